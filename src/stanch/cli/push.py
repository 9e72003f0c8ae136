"""`stanch push`: send profiles to a server.

Exit codes: 0 all are kept, 1 one was refused, 2 wrong use or the server could not be reached.
"""

import argparse
import sys
import time
from pathlib import Path

from stanch.cli.errors import CliError
from stanch.cli.server_options import add_server_arguments

PATH = "/api/v1/push"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "push",
        help="send profiles to a server",
        description="Send pprof profiles, gzip or plain, to `stanch server`. Each is on the "
        "server's disk when the command says so; the same one again is kept once.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="a profile; - for standard input")
    add_server_arguments(parser, "push")
    parser.add_argument("--service", required=True, metavar="NAME", help="whose profiles they are")
    parser.add_argument("--instance", default="", metavar="NAME", help="which process's")
    parser.add_argument("--release", default="", metavar="TEXT", help="the version that it ran")
    parser.add_argument(
        "--retry-for",
        default="1m",
        metavar="DURATION",
        help="while the server is full, busy or away, try again for so long (1m)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send all; print one line for each. Returns the exit code."""
    from stanch.cli.server_client import ask, open_client
    from stanch.collect.sizes import parse_duration_s

    try:
        retry_s = parse_duration_s(arguments.retry_for)
    except ValueError as error:
        raise CliError(f"--retry-for: {error}", 2) from error
    headers = {b"Content-Type": b"application/octet-stream"}
    for name in ("service", "instance", "release"):
        text: str = getattr(arguments, name)
        headers[f"X-Stanch-{name.title()}".encode()] = text.encode("utf-8", "replace")
    url = arguments.url.removesuffix(PATH)
    refused = False
    with open_client(url, arguments.token_file, arguments.ca, headers) as client:
        for name in arguments.files:
            body = _read(name)
            answer = ask(client, "POST", PATH, time.monotonic() + retry_s, body=body)
            text = answer.text.strip()
            if answer.is_success:
                told = answer.json()
                state = "kept" if told["taken"] else "was there already"
                print(f"{name}: {told['kind']} of {told['service']} {told['instance']}: {state}")
            elif answer.status_code in (401, 403):
                raise CliError(f"{arguments.url} refused with {answer.status_code}: {text}", 2)
            else:
                refused = True
                print(f"stanch: {name}: refused with {answer.status_code}: {text}", file=sys.stderr)
    return 1 if refused else 0


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise CliError(f"cannot read {name}: {error.strerror}", 2) from error

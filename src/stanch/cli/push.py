"""`stanch push`: send profiles to a server.

Exit codes: 0 all are kept, 1 one was refused, 2 wrong use or the server could not be reached.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stanch.cli.errors import CliError

if TYPE_CHECKING:
    import httpx

PATH = "/api/v1/push"
_TIMEOUT_S = 30.0
_LONGEST_PAUSE_S = 60.0
_AGAIN = (429, 503)


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "push",
        help="send profiles to a server",
        description="Send pprof profiles, gzip or plain, to `stanch server`. Each is on the "
        "server's disk when the command says so; the same one again is kept once.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="a profile; - for standard input")
    parser.add_argument(
        "--url", default="http://127.0.0.1:4041", help="the server (http://127.0.0.1:4041)"
    )
    parser.add_argument("--service", required=True, metavar="NAME", help="whose profiles they are")
    parser.add_argument("--instance", default="", metavar="NAME", help="which process's")
    parser.add_argument("--release", default="", metavar="TEXT", help="the version that it ran")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="a token that may push")
    parser.add_argument("--ca", metavar="FILE", help="what the server's certificate is checked by")
    parser.add_argument(
        "--retry-for",
        default="1m",
        metavar="DURATION",
        help="while the server is full, busy or away, try again for so long (1m)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send all; print one line for each. Returns the exit code."""
    from stanch.collect.sizes import parse_duration_s

    try:
        retry_s = parse_duration_s(arguments.retry_for)
    except ValueError as error:
        raise CliError(f"--retry-for: {error}", 2) from error
    refused = False
    with _client(arguments) as client:
        for name in arguments.files:
            answer = _send(client, _read(name), time.monotonic() + retry_s)
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


def _client(arguments: argparse.Namespace) -> "httpx.Client":
    import ssl

    import httpx

    from stanch.collect import TargetError, parse_target

    options = f" token_file={arguments.token_file}" if arguments.token_file else ""
    try:
        target = parse_target(f"{arguments.url}{options}")
    except TargetError as error:
        raise CliError(f"--url: {error}", 2) from error
    headers = {b"Content-Type": b"application/octet-stream", b"User-Agent": b"stanch"}
    for name in ("service", "instance", "release"):
        text: str = getattr(arguments, name)
        headers[f"X-Stanch-{name.title()}".encode()] = text.encode("utf-8", "replace")
    try:
        if arguments.token_file is not None:
            token = arguments.token_file.read_text().strip()
            headers[b"Authorization"] = f"Bearer {token}".encode()
        verify = ssl.create_default_context(cafile=arguments.ca)
    except OSError as error:
        raise CliError(f"cannot read {error.filename or arguments.ca}: {error.strerror}") from error
    base = target.base_url.removesuffix(PATH)
    # A redirect could lead the token elsewhere; the proxies of the environment are not used.
    return httpx.Client(
        base_url=base,
        headers=headers,
        timeout=_TIMEOUT_S,
        verify=verify,
        follow_redirects=False,
        trust_env=False,
    )


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise CliError(f"cannot read {name}: {error.strerror}", 2) from error


def _send(client: "httpx.Client", body: bytes, until_s: float) -> "httpx.Response":
    """The server's answer, the last one when it was full or busy all the time. Raises CliError."""
    import httpx

    for pause_s in _pauses():
        try:
            answer = client.post(PATH, content=body)
            if answer.status_code not in _AGAIN:
                return answer
            asked = answer.headers.get("Retry-After", "")
            pause_s = min(float(asked), _LONGEST_PAUSE_S) if asked.isdigit() else pause_s
            if time.monotonic() + pause_s > until_s:
                return answer
        except httpx.HTTPError as error:
            if time.monotonic() + pause_s > until_s:
                raise CliError(f"cannot reach {client.base_url}: {error}", 2) from error
        time.sleep(pause_s)
    raise AssertionError  # _pauses() has no end


def _pauses() -> Iterator[float]:
    pause_s = 0.5
    while True:
        yield pause_s
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

"""`stanch export`: the profiles that a server keeps, as files or to a Pyroscope server.

Exit codes: 0 done, 1 there was none or one was refused, 2 wrong use or a server cannot be reached.
"""

import argparse
import base64
import json
import re
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from stanch.cli.errors import CliError
from stanch.cli.server_options import add_server_arguments

if TYPE_CHECKING:
    import httpx

    from stanch.profile import Profile

_PYROSCOPE = "/push.v1.PusherService/Push"
_NAMES = {"heap": "memory", "goroutine": "goroutines"}
_RETRY_S = 60.0
_MOST_PROFILES = 10_000


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "export",
        help="take profiles out of a server, as files or to Pyroscope",
        description="Take the profiles that `stanch server` keeps of a service out of it: the "
        "newest, or with --since one for each --every. They are pprof files, or are sent to a "
        "Pyroscope server. Those of several instances at one time are added up.",
    )
    add_server_arguments(parser, "view")
    parser.add_argument("--service", required=True, metavar="NAME", help="whose profiles")
    parser.add_argument("--instance", default="", metavar="NAME", help="of this process only")
    parser.add_argument("--release", default="", metavar="TEXT", help="of this version only")
    parser.add_argument("--label", default="", metavar="KEY=VALUE", help="with this label only")
    parser.add_argument(
        "--kind", default="heap", choices=("heap", "goroutine", "thread", "task"), help="(heap)"
    )
    parser.add_argument("--until", metavar="TIME", help="UTC, such as 2026-03-01T12:30 (now)")
    parser.add_argument("--since", metavar="DURATION", help="from so long before it")
    parser.add_argument("--every", default="5m", metavar="DURATION", help="one for each (5m)")
    parser.add_argument("--to", default=".", type=Path, metavar="DIR", help="where files go (.)")
    parser.add_argument("--pyroscope", metavar="URL", help="send them to this server instead")
    parser.add_argument("--pyroscope-token-file", type=Path, metavar="FILE", help="its token")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export all; print one line for each. Returns the exit code."""
    from stanch.cli.server_client import open_client
    from stanch.profile import ProfileError, parse

    times = _times(arguments)
    seen: set[int] = set()
    refused = False
    with open_client(arguments.url, arguments.token_file, arguments.ca, {}) as client:
        for unix_s in times:
            data = _download(client, arguments, unix_s)
            if data is None:
                continue
            try:
                profile = parse(data)
            except ProfileError as error:
                raise CliError(f"{arguments.url} sent no profile: {error}", 2) from error
            if profile.time_nanos in seen:
                continue
            seen.add(profile.time_nanos)
            if arguments.pyroscope:
                refused |= not _send(arguments, profile, data)
            else:
                _write(arguments, profile, data)
    if not seen:
        raise CliError(f"there is no {arguments.kind} of {arguments.service} at that time", 1)
    return 1 if refused else 0


def _times(arguments: argparse.Namespace) -> list[int]:
    """The times to ask for, in Unix seconds, the oldest first."""
    from stanch.collect.sizes import parse_duration_s

    try:
        # A profile of this second belongs to the newest.
        until_s = int(time.time()) + 1
        if arguments.until:
            moment = datetime.fromisoformat(arguments.until)
            until_s = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        if not arguments.since:
            return [until_s]
        every_s = max(1, round(parse_duration_s(arguments.every)))
        since_s = until_s - round(parse_duration_s(arguments.since))
    except (ValueError, OverflowError) as error:
        raise CliError(f"{error}; see 'stanch export --help'", 2) from error
    times = range(until_s, since_s, -every_s)[::-1]
    if len(times) > _MOST_PROFILES:
        raise CliError(f"that is {len(times):,} profiles; give a longer --every", 2)
    return list(times)


def _download(client: "httpx.Client", arguments: argparse.Namespace, at_s: int) -> bytes | None:
    """The profile of a time; None when there is none. Raises CliError."""
    from stanch.cli.server_client import ask

    asked = {name: getattr(arguments, name) for name in ("kind", "instance", "release", "label")}
    query = urlencode({"at": at_s, **{name: text for name, text in asked.items() if text}})
    path = f"/download/{quote(arguments.service)}?{query}"
    answer = ask(client, "GET", path, time.monotonic() + _RETRY_S)
    if answer.status_code == 404:
        return None
    if not answer.is_success:
        told = answer.text.strip()[:300]
        raise CliError(f"{arguments.url} refused with {answer.status_code}: {told}", 2)
    return answer.content


def _write(arguments: argparse.Namespace, profile: "Profile", data: bytes) -> None:
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(profile.time_nanos / 1e9))
    name = re.sub(r"[^\w.-]+", "_", arguments.service).lstrip(".")
    path: Path = arguments.to / f"{name}-{arguments.kind}-{moment}.pb.gz"
    try:
        arguments.to.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror}", 2) from error
    print(path)


def _send(arguments: argparse.Namespace, profile: "Profile", data: bytes) -> bool:
    """Send one to Pyroscope; whether it was taken. Raises CliError when it cannot be reached."""
    from stanch.cli.server_client import ask, open_client

    labels = {
        "__name__": _NAMES.get(arguments.kind, arguments.kind),
        "service_name": arguments.service,
        "instance": arguments.instance,
        "version": arguments.release,
    }
    series = {
        "labels": [{"name": name, "value": value} for name, value in labels.items() if value],
        "samples": [{"ID": str(uuid.uuid4()), "rawProfile": base64.b64encode(data).decode()}],
    }
    body = json.dumps({"series": [series]}).encode()
    url, token_file = arguments.pyroscope, arguments.pyroscope_token_file
    headers = {b"Content-Type": b"application/json"}
    with open_client(url, token_file, arguments.ca, headers) as client:
        answer = ask(client, "POST", _PYROSCOPE, time.monotonic() + _RETRY_S, body=body)
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(profile.time_nanos / 1e9))
    if answer.is_success:
        print(f"{arguments.kind} of {arguments.service} {moment}: sent")
        return True
    told = f"refused with {answer.status_code}: {answer.text.strip()[:300]}"
    print(f"stanch: {arguments.kind} {moment}: {told}", file=sys.stderr)
    return False

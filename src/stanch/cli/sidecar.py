"""`stanch sidecar`: keeps the last heap profile of a Go process beside it, for its autopsy."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stanch.cli.errors import CliError

if TYPE_CHECKING:
    from stanch.sampler.cgroup import MemoryGroup
    from stanch.sidecar import SidecarOptions

_EPILOG = """\
A target is unix:PATH or http://127.0.0.1:PORT. docs/sidecar.md shows how a Go program serves pprof
on a unix socket, with a mux of its own.
"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "sidecar",
        help="beside a Go process: keep its last profile, take one when memory runs short",
        description="Read pprof of a process of this machine over loopback or a unix socket, watch "
        "its memory cgroup, and keep its last heap profile on disk for the autopsy.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="TARGET")
    parser.add_argument("--keep", metavar="DIR", type=Path, required=True, help="where to keep")
    parser.add_argument("--pid", type=int, help="the process (default: the one that listens)")
    parser.add_argument(
        "--cgroup", metavar="DIR", type=Path, help="its memory cgroup (default: by the process)"
    )
    parser.add_argument("--every", metavar="DURATION", default="15s", help="(%(default)s)")
    parser.add_argument(
        "--at", metavar="PERCENTS", default="70,85,95", help="of the limit (%(default)s)"
    )
    parser.add_argument("--push", metavar="URL", help="send each profile there")
    parser.add_argument("--token-file", metavar="FILE", type=Path, help="with --push over https")
    parser.add_argument("--ca", metavar="FILE", type=Path, help="certificates to trust, PEM")
    parser.add_argument("--service", metavar="NAME", default="", help="name of the service")
    parser.add_argument("--instance", metavar="NAME", default="", help="name of this replica")
    parser.add_argument("--for", dest="duration", metavar="DURATION", help="stop after this time")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look until Ctrl-C or the time is over. Returns 0."""
    try:
        from stanch.collect.sizes import parse_duration_s
        from stanch.sidecar import Sidecar, SidecarError
    except ModuleNotFoundError as error:
        raise CliError(
            f"sidecar needs the package {error.name}; pip install 'stanch[cli]'", 2
        ) from error
    try:
        for_s = parse_duration_s(arguments.duration) if arguments.duration else None
        with Sidecar(_options(arguments)) as sidecar:
            for text in sidecar.run(for_s):
                clock = time.strftime("%H:%M:%S")
                print(f"{clock} {text}", flush=True)
    except (SidecarError, ValueError) as error:
        raise CliError(str(error), 2) from error
    except KeyboardInterrupt:
        print("stanch: ended", file=sys.stderr)
    return 0


def _options(arguments: argparse.Namespace) -> "SidecarOptions":
    """Raises ValueError for what cannot be used."""
    from stanch.collect import TargetError, parse_target
    from stanch.collect.sizes import parse_duration_s
    from stanch.sidecar import SidecarOptions

    try:
        target = parse_target(arguments.target)
    except TargetError as error:
        raise ValueError(str(error)) from error
    try:
        at = tuple(float(part) / 100 for part in arguments.at.split(","))
    except ValueError:
        at = ()
    if not at or not all(0 < share <= 1 for share in at):
        raise ValueError(f"--at is {arguments.at!r}; expected percents such as 70,85,95")
    return SidecarOptions(
        target=target,
        directory=arguments.keep,
        pid=arguments.pid,
        group=_group(arguments.cgroup) if arguments.cgroup is not None else None,
        every_s=parse_duration_s(arguments.every),
        at=at,
        push_url=arguments.push,
        push_token_file=arguments.token_file,
        push_ca=arguments.ca,
        service=arguments.service,
        instance=arguments.instance,
    )


def _group(directory: Path) -> "MemoryGroup":
    from stanch.sampler.cgroup import MemoryGroup

    for version, name in ((2, "memory.current"), (1, "memory.usage_in_bytes")):
        if (directory / name).exists():
            return MemoryGroup(directory, directory, version)
    raise ValueError(f"{directory} is no memory cgroup")

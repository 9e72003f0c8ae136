"""The entry of the `stanch` command: one subcommand per part, errors as one sentence.

Exit codes: what the subcommand says; 2 for a wrong use; 130 after Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from stanch.cli import (
    alarms,
    attach,
    autopsy,
    deaths,
    demo,
    evaluate,
    export,
    memory,
    push,
    recycles,
    report,
    run,
    server,
    sidecar,
    store,
    token,
    watch,
    why,
)
from stanch.cli.errors import CliError
from stanch.version import __version__

PARTS = (
    *(
        run,
        attach,
        watch,
        server,
        push,
        export,
        token,
        store,
        alarms,
        deaths,
        recycles,
        sidecar,
        why,
    ),
    *(memory, report, autopsy, evaluate, demo),
)

EPILOG = """\
examples:
  stanch run -- gunicorn app:app          start a service with the agent inside
  stanch watch http://127.0.0.1:6060      name what leaks, in Python and Go services
  stanch memory 4242                      what the memory of a process is made of
  stanch why http://127.0.0.1:6060        show what keeps the leaked objects alive
  stanch top heap.pb.gz                   read a heap profile
  stanch autopsy /var/lib/stanch/42.stanch  what a killed process held
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"stanch: {message}; see '{self.prog} --help'\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every subcommand; each sets `run`, a function of the arguments."""
    parser = _Parser(
        prog="stanch",
        description="Find memory leaks in live Python and Go services before they are killed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"stanch {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for part in PARTS:
        part.register(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parsed = build_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.run
    try:
        return command(parsed)
    except CliError as error:
        print(f"stanch: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has enough; keep the interpreter from saying so at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs a command in this process, as the shell would see it."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

from stanch.cli.main import main


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def stanch(*arguments: str | Path) -> Outcome:
    """Run `stanch ARGUMENTS...`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse's way out
            code = int(end.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())

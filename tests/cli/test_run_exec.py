"""What `stanch run` hands on by exec is what it was given."""

import os
import subprocess
import sys

from tests.agent.hosts import STANCH

SHOW = "grep SigIgn /proc/self/status; env | grep -E '^(LC_|LANG)'; true"


def test_a_command_inherits_nothing_of_our_interpreter() -> None:
    """Ignored signals and locale of a command that is no Python are as without Stanch."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    bare, run = (
        subprocess.run(
            [*command, "/bin/sh", "-c", SHOW],
            capture_output=True,
            text=True,
            timeout=60,
            env=environ,
        )
        for command in ((), (*STANCH, "run", "--"))
    )
    assert "SigIgn" in bare.stdout
    assert (run.stdout, run.stderr, run.returncode) == (bare.stdout, bare.stderr, 0)

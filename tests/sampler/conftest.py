"""Runs programs in processes of their own: a crash or a fork there cannot hurt the tests."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_python() -> RunPython:
    """Give a function that runs a program and checks its exit code."""

    def run(
        program: str, *arguments: object, exit_code: int = 0, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        answer = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **environment},
        )
        assert answer.returncode == exit_code, answer.stderr[-3000:]
        return answer

    return run

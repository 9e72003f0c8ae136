"""Runs programs in processes of their own: a crash or a fork there cannot hurt the tests."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stanch.sampler import PRELOAD, preload_problem

from .preloaded import PROLOGUE, SOURCES, RunPreloaded, RunPython, build

__all__ = ["RunPreloaded", "RunPython"]


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


@pytest.fixture(scope="session")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the C library."""
    if problem := preload_problem():
        pytest.skip(problem)
    return build(SOURCES / "blocks.c", tmp_path_factory.mktemp("native") / "libblocks.so")


@pytest.fixture
def run_preloaded(run_python: RunPython, blocks: Path) -> RunPreloaded:
    """Give a function that runs a program, behind PROLOGUE, with the library preloaded."""

    def run(program: str, *arguments: object, **more: str) -> "subprocess.CompletedProcess[str]":
        environment = {"LD_PRELOAD": str(PRELOAD), "BLOCKS": str(blocks)} | more
        return run_python(PROLOGUE + textwrap.dedent(program), *arguments, **environment)

    return run

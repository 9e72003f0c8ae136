"""Real programs to watch, and `stanch watch` as a process of its own whose lines are read."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

STANCH = (sys.executable, "-m", "stanch.cli.main")
GO_SOURCE = Path(__file__).parent / "leaky_go"
PATIENCE_S = 150.0
"""Longer than anything takes; what waits so long has failed."""


def build_go(directory: Path) -> Path:
    """Build the Go program; skips the test without a Go toolchain."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go toolchain on this machine; with one, a real Go service is watched")
    program = directory / "ledger"
    command = [go, "build", "-o", str(program), "."]
    subprocess.run(command, cwd=GO_SOURCE, check=True, timeout=PATIENCE_S)
    return program


@contextmanager
def running(*command: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program with its output in a pipe; it is killed at the end of the block."""
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_until(process: subprocess.Popen[str], is_last: Callable[[str], bool]) -> list[str]:
    """The lines a process prints up to one that `is_last` accepts; fails when it ends before."""
    assert process.stdout is not None
    lines: list[str] = []
    watchdog = _kill_later(process)
    try:
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if is_last(line):
                return lines
    finally:
        watchdog.kill()
        watchdog.wait()
    raise AssertionError(f"it ended without the line that was waited for: {lines[-20:]}")


def _kill_later(process: subprocess.Popen[str]) -> "subprocess.Popen[bytes]":
    """Kill a process when it has not said what was waited for in time."""
    code = "import os, sys, time; time.sleep(float(sys.argv[1])); os.kill(int(sys.argv[2]), 9)"
    return subprocess.Popen([sys.executable, "-c", code, str(PATIENCE_S), str(process.pid)])


def interrupt(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Press Ctrl-C: the exit code and what was still printed."""
    assert process.stdout is not None
    process.send_signal(signal.SIGINT)
    watchdog = _kill_later(process)
    try:
        # Not communicate(), which does not know what the line reader has in its buffer.
        rest = process.stdout.read()
        return process.wait(PATIENCE_S), rest.splitlines()
    finally:
        watchdog.kill()
        watchdog.wait()


def events(lines: list[str]) -> list[dict[str, Any]]:
    """JSON lines as values."""
    return [json.loads(line) for line in lines]


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose name is short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="watch-") as name:
        yield Path(name)

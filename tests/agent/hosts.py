"""Runs real programs under `stanch run`, asks their sockets, and cleans up after them.

A host has a run directory of its own, so tests do not see each other's processes.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from stanch.profile import Profile, parse

STANCH = (sys.executable, "-m", "stanch.cli.main")
LONGEST_S = 120.0

Found = TypeVar("Found")


class Runs:
    """The directory of runs of one test, and the environment that names it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        unwanted = ("STANCH_", "PYTHONWARNINGS")
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
        self.environ["STANCH_DIR"] = str(directory)

    def script(self, name: str, text: str) -> Path:
        """Write a program beside the runs and return its path."""
        path = self.directory.parent / name
        path.write_text(textwrap.dedent(text))
        return path

    def stanch(self, *arguments: object, **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run `stanch ARGUMENTS` to its end."""
        return self.finish(*STANCH, *arguments, **environ)

    def finish(self, *command: object, **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            env=self.environ | environ,
            cwd=self.directory.parent,
        )

    @contextmanager
    def running(self, *arguments: object, **environ: str) -> Iterator["subprocess.Popen[str]"]:
        """Start `stanch run ARGUMENTS` in a session of its own, and kill that in the end."""
        log = (self.directory.parent / "output").open("w")
        process = subprocess.Popen(
            [*STANCH, "run", *(str(part) for part in arguments)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environ | environ,
            cwd=self.directory.parent,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=LONGEST_S)
            log.close()

    def output(self) -> str:
        """Return what the running command has written so far."""
        return (self.directory.parent / "output").read_text()

    def sockets(self) -> list[Path]:
        """Return the sockets of all processes."""
        return sorted(self.directory.glob("*/*.sock"))

    def tables(self) -> list[Path]:
        """Return the tables of all processes."""
        return sorted(self.directory.glob("*/*.stanch"))

    def left(self) -> list[Path]:
        """Return all that is in the directory of runs."""
        return sorted(self.directory.rglob("*"))


@contextmanager
def runs_directory() -> Iterator[Runs]:
    """Give a `Runs` in a directory whose name is short enough for sockets."""
    top = Path(tempfile.mkdtemp(prefix="st-"))
    try:
        yield Runs(top / "runs")
    finally:
        shutil.rmtree(top, ignore_errors=True)


def wait_for(condition: Callable[[], Found], runs: Runs) -> Found:
    """Return the first true value of a condition; fail with the host's output after LONGEST_S."""
    deadline = time.monotonic() + LONGEST_S
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited in vain; {runs.left()}; {runs.output()[-3000:]}")


def ask(path: Path, target: str) -> bytes:
    """GET a target over a unix socket and return the body of an answer of 200."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LONGEST_S)
        connection.connect(str(path))
        connection.sendall(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n")[0], answer[:500]
    return body


def heap(path: Path) -> Profile:
    """Return the heap profile of the one process that listens there."""
    return parse(ask(path, f"/debug/pprof/heap?pid={path.stem}"))


def functions(profile: Profile) -> set[str]:
    """Return the names of the functions of a profile."""
    return {
        line.function.name
        for sample in profile.samples
        for location in sample.locations
        for line in location.lines
    }

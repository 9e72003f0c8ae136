"""Starts measured processes, each under one tool, and talks to them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.peers.sink import Sink
from benchmarks.peers.sites import LIBRARY_VARIABLE
from benchmarks.peers.tools import Tool
from stanch.demo.host.toolchain import build_library

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LONGEST_S = 180.0


class RunError(RuntimeError):
    """A measured process ended early or did not answer; the text has the end of its stderr."""


class Run:
    """One process of child.py in a folder of its own; a context that leaves nothing behind."""

    def __init__(self, tool: Tool, library: Path, *arguments: str, hurried: bool = False) -> None:
        self.tool = tool
        self.folder = Path(tempfile.mkdtemp(prefix="stanch-bench-"))
        self.sink = Sink()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the run
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONSAFEPATH": "1",
            "PYTHONHASHSEED": "0",
            "OPENBLAS_NUM_THREADS": "1",
            LIBRARY_VARIABLE: str(library),
            **tool.environment(self.sink.url, hurried),
        }
        command = tool.command(self.folder)
        command += [str(HERE / "child.py"), tool.name, str(self.folder), *arguments]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            cwd=self.folder,
            start_new_session=True,
        )
        self._watchdog = threading.Timer(LONGEST_S, self._kill_all)

    def __enter__(self) -> "Run":
        self.sink.__enter__()
        self._watchdog.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watchdog.cancel()
        self._kill_all()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr] # both are pipes
        self.sink.__exit__(kind, value, trace)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _kill_all(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def answer(self) -> Any:
        """Wait for the next answer. Raises RunError when there comes none."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"@"):
                return json.loads(line[1:])
        self._errors.seek(0)
        told = self._errors.read().decode(errors="replace").strip()
        raise RunError(f"{self.tool.name} ended without an answer: {told[-300:]}")

    def tell(self, *words: str) -> Any:
        """Send one command and return its answer. Raises RunError."""
        self._send(*words)
        return self.answer()

    def _send(self, *words: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` says why
            self._process.stdin.write(" ".join(words).encode() + b"\n")
            self._process.stdin.flush()

    def end(self) -> None:
        """Let the process end in good order, and wait for that."""
        self._send("end")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LONGEST_S)

    def kill(self, pid: int) -> None:
        """Send SIGKILL to the measured process, and wait for what was around it to end."""
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10.0)

    def look(self, since: float = 0.0) -> Any:
        """Return what the tool shows of the process now; see Tool.look."""
        return self.tool.look(self.folder, self.sink, since)


def build_structs(folder: Path) -> Path:
    """Compile structs.c. Raises stanch.demo.host.toolchain.BuildError."""
    library = folder / "structs.so"
    build_library(HERE / "structs.c", library)
    return library

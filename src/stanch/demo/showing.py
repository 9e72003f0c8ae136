"""The incident in the server's pages: what the watch sees is spooled for a process that shows it.

To spool it costs the watch a few milliseconds of a second, and the process (`pages.py`) nothing
until somebody opens its URL; then it runs on the time that the incident leaves over.
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stanch.collect import Scrape
from stanch.detect import Finding
from stanch.server.slowness import Latencies
from stanch.server.watch import WatchState
from stanch.store import Look
from stanch.store.model import thin

from .spool import Said, Seen, Spool

START_SECONDS = 60.0
END_SECONDS = 20.0
SPOOL_NAME = "spool"
_PACKAGES = ("chdb", "clickhouse_connect", "starlette", "uvicorn", "httptools", "jinja2")


def missing_packages() -> tuple[str, ...]:
    """Name what the pages need and is not installed."""
    return tuple(name for name in _PACKAGES if find_spec(name) is None)


class Showing:
    """The spool and the process that shows it, from their start to `stop`."""

    def __init__(self, data: Path, log: Path) -> None:
        """Start it. data: a directory of its own, where the spool stays. log: where the process
        writes what goes wrong."""
        from stanch.server.fleet import taken_of  # Needs the packages of the server.

        self._taken_of = taken_of
        self._latencies = Latencies()
        data.mkdir(parents=True, exist_ok=True)
        self._spool = Spool(data / SPOOL_NAME)
        with log.open("wb") as errors:
            self._process = start_pages(data / SPOOL_NAME, errors.fileno(), "--idle")

    @property
    def dropped(self) -> int:
        """How many messages there was no room for."""
        return self._spool.dropped

    def url(self) -> str | None:
        """Wait until it answers; None when it does not start."""
        return read_url(self._process)

    def witness(self, scrape: Scrape, look: Look | None) -> None:
        """Hand on what a target gave."""
        if look is not None:
            latency_s = self._latencies.latency_s(scrape)
            self._spool.append(Seen(thin(look), self._taken_of(scrape), latency_s))

    def take(
        self, state: WatchState, answer_to: Callable[[Finding], Mapping[str, Any] | None]
    ) -> None:
        """Hand on what the watch says. answer_to: what a retention search said of a finding."""
        answers = {finding: answer_to(finding) for finding in (*state.findings, *state.resolved)}
        self._spool.append(Said(state, answers))

    def stop(self) -> None:
        """End the process. Safe to call twice."""
        self._spool.close()
        end_pages(self._process)


def start_pages(spool: Path, errors: int, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start the process over a spool. errors: a file descriptor for what goes wrong."""
    return subprocess.Popen(
        [sys.executable, "-m", "stanch.demo.pages", str(spool), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,  # Ctrl-C is for the demo, which then ends this.
    )


def read_url(process: "subprocess.Popen[bytes]") -> str | None:
    """Wait until the process says where it answers; None when it does not start."""
    out = process.stdout
    assert out is not None
    said = b""
    until = time.monotonic() + START_SECONDS
    while not said.endswith(b"\n"):
        ready, _, _ = select.select([out], [], [], max(0.0, until - time.monotonic()))
        part = os.read(out.fileno(), 4096) if ready else b""
        if not part:
            return None
        said += part
    return said.decode().strip()


def end_pages(process: "subprocess.Popen[bytes]") -> None:
    """Have the process end. Safe to call twice."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()

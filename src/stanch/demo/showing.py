"""The incident in the server's pages: what the watch sees is handed to a process that shows it.

That process (`pages.py`) is a server without loops of its own: it scrapes nothing and judges
nothing, so the services are asked once, and the pages say what the watch says. It runs on the
time that the incident leaves over. What it cannot take in time is dropped and counted.
"""

import os
import pickle
import queue
import select
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

from stanch.collect import Scrape
from stanch.server.slowness import Latencies
from stanch.server.watch import WatchState
from stanch.store import Look
from stanch.store.model import thin

START_SECONDS = 60.0
END_SECONDS = 20.0
MOST_WAITING = 500
_PACKAGES = ("chdb", "clickhouse_connect", "starlette", "uvicorn", "jinja2")


def missing_packages() -> tuple[str, ...]:
    """Name what the pages need and is not installed."""
    return tuple(name for name in _PACKAGES if find_spec(name) is None)


class Showing:
    """The process that shows the incident, from its start to `stop`."""

    def __init__(self, data: Path, log: Path) -> None:
        """Start it. data: a directory of its own. log: where it writes what goes wrong."""
        from stanch.server.fleet import taken_of  # Needs the packages of the server.

        self._taken_of = taken_of
        self._latencies = Latencies()
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stanch.demo.pages", str(data)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for the demo, which then ends this.
            )
        self._messages: queue.Queue[object] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._send, name="showing", daemon=True)
        self._thread.start()
        self.dropped = 0

    def url(self) -> str | None:
        """Wait until it answers; None when it does not start."""
        out = self._process.stdout
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

    def witness(self, scrape: Scrape, look: Look | None) -> None:
        """Hand on what a target gave."""
        if look is not None:
            self._put((thin(look), self._taken_of(scrape), self._latencies.latency_s(scrape)))

    def take(self, state: WatchState) -> None:
        """Hand on what the watch says."""
        self._put(state)

    def stop(self) -> None:
        """End the process. Safe to call twice."""
        self._put(None)
        self._thread.join(END_SECONDS)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _put(self, message: object) -> None:
        try:
            self._messages.put_nowait(message)
        except queue.Full:
            self.dropped += 1

    def _send(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        try:
            with pipe:
                while (message := self._messages.get()) is not None:
                    pickle.dump(message, pipe)
                    pipe.flush()
        except OSError:
            return  # The process has ended; the incident goes on without its pages.

"""Watching the nodes as `stanch watch` does, in a thread of the demo's own process."""

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from stanch.collect.targets import Target
from stanch.detect import Finding
from stanch.server.watch import Watcher, WatchState

from .errors import DemoError

EVERY_SECONDS = 2.5
STOP_SECONDS = 20.0


class Watching:
    """A watcher in a thread, from `with` to the end of the block.

    It is given targets and nothing else: what it finds, it finds as it would anywhere.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = tuple(targets)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watching", daemon=True)
        self._lock = threading.Lock()  # guards the two that follow
        self._state: WatchState | None = None
        self._failure: Exception | None = None

    def __enter__(self) -> "Watching":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join(STOP_SECONDS)

    def findings(self) -> tuple[Finding, ...]:
        """Return all findings of the last step. DemoError when the watcher has failed."""
        with self._lock:
            if self._failure is not None:
                raise DemoError(f"the watcher failed: {self._failure!r}") from self._failure
            return self._state.findings if self._state is not None else ()

    def _run(self) -> None:
        try:
            with Watcher(self._targets, EVERY_SECONDS) as watcher:
                due = time.monotonic()
                while not self._stopping.wait(max(0.0, due - time.monotonic())):
                    due = max(due, time.monotonic()) + EVERY_SECONDS
                    state = watcher.step()
                    with self._lock:
                        self._state = state
        except Exception as problem:  # Handed to the main thread, which ends the demo by it.
            with self._lock:
                self._failure = problem

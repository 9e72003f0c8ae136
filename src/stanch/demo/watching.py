"""Watching the nodes as `stanch watch` does, in a thread of the demo's own process."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

from stanch.alert import Policy
from stanch.alert.configuration import AlarmConfiguration
from stanch.alert.message import Message
from stanch.collect import FixedTargets, Scrape
from stanch.collect.targets import Target
from stanch.deaths import Death
from stanch.deaths.book import JournalBook
from stanch.detect import Finding
from stanch.recycle import RecyclePolicy
from stanch.recycle.backends import Backend
from stanch.recycle.recycler import RecycleEvent
from stanch.server.alarming import Alarming
from stanch.server.chronicle import Chronicle
from stanch.server.recycling import Recycling, TargetClients
from stanch.server.watch import Watcher, WatchState
from stanch.store import Look

from .errors import DemoError
from .showing import Showing

EVERY_SECONDS = 2.5
STOP_SECONDS = 20.0


class Watching:
    """A watcher in a thread, from `with` to the end of the block.

    It is given targets and, for autopsies, where live tables are: what it finds, it finds as it
    would anywhere. Alarms fire from `probable` on, so that each stage of a leak is counted.
    data: a directory for its journal. recycled: how nodes are recycled; none are without.
    showing: where it is shown.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        data: Path,
        tables: Iterable[Path],
        recycled: Sequence[tuple[RecyclePolicy, Backend]] = (),
        showing: Showing | None = None,
    ) -> None:
        self._showing = showing
        self._recycled = tuple(recycled)
        self._targets = tuple(targets)
        self._data = data
        self._tables = tuple(tables)
        self._told: queue.SimpleQueue[Callable[[Chronicle], object]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watching", daemon=True)
        self._lock = threading.Lock()  # guards the five that follow
        self._state: WatchState | None = None
        self._deaths: list[Death] = []
        self._alarms: list[Message] = []
        self._recycles: list[RecycleEvent] = []
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
        self.stop()

    def stop(self) -> None:
        """Look a last time, and end. Safe to call twice."""
        self._stopping.set()
        self._thread.join(STOP_SECONDS)

    def findings(self) -> tuple[Finding, ...]:
        """Return all findings of the last step. DemoError when the watcher has failed."""
        with self._lock:
            if self._failure is not None:
                raise DemoError(f"the watcher failed: {self._failure!r}") from self._failure
            return self._state.findings if self._state is not None else ()

    def tell(self, word: Callable[[Chronicle], object]) -> None:
        """Have something told to the chronicle, before its next look."""
        self._told.put(word)

    def take_deaths(self) -> list[Death]:
        """Return the deaths that were written down since the last call."""
        with self._lock:
            taken, self._deaths = self._deaths, []
        return taken

    def take_alarms(self) -> list[Message]:
        """Return what people would have been told since the last call."""
        with self._lock:
            taken, self._alarms = self._alarms, []
        return taken

    def take_recycles(self) -> list[RecycleEvent]:
        """Return what recycling did since the last call."""
        with self._lock:
            taken, self._recycles = self._recycles, []
        return taken

    def _run(self) -> None:
        configuration = AlarmConfiguration(policy=Policy(fire_at="probable"))
        try:
            with contextlib.ExitStack() as ending:
                book = JournalBook(self._data)
                chronicle = ending.enter_context(Chronicle(book, self._tables))
                watcher = ending.enter_context(
                    Watcher(self._targets, EVERY_SECONDS, witness=self._witnesses(chronicle))
                )
                clients = TargetClients(FixedTargets(self._targets))
                recycling = ending.enter_context(
                    Recycling(self._data, self._recycled, clients, chronicle)
                )
                alarming = ending.enter_context(
                    Alarming(
                        configuration,
                        self._data,
                        series=watcher.series,
                        harmless=recycling.harmless,
                    )
                )
                due = time.monotonic()
                while not self._stopping.wait(max(0.0, due - time.monotonic())):
                    due = max(due, time.monotonic()) + EVERY_SECONDS
                    self._step(watcher, chronicle, recycling, alarming)
                self._step(watcher, chronicle, recycling, alarming)  # the last deaths
        except Exception as problem:  # Handed to the main thread, which ends the demo by it.
            with self._lock:
                self._failure = problem

    def _witnesses(self, chronicle: Chronicle) -> Callable[[Scrape, Look | None], None]:
        showing = self._showing
        if showing is None:
            return chronicle.witness

        def witness(scrape: Scrape, look: Look | None) -> None:
            chronicle.witness(scrape, look)
            showing.witness(scrape, look)

        return witness

    def _step(
        self, watcher: Watcher, chronicle: Chronicle, recycling: Recycling, alarming: Alarming
    ) -> None:
        while not self._told.empty():
            self._told.get()(chronicle)
        state = chronicle.take(watcher.step())
        events = recycling.take(state)
        told = alarming.take(state, recycling.conditions())
        if trouble := alarming.trouble or chronicle.trouble or recycling.trouble:
            raise DemoError(f"the journal does not work: {trouble}")
        if self._showing is not None:
            self._showing.take(state, watcher.answer_to)
        with self._lock:
            self._state = state
            self._deaths += state.deaths
            self._alarms += told
            self._recycles += events

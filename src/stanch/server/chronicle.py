"""The chronicle of a watch: every end of a process goes into a book, with what was foretold.

A book that cannot be written is told as `trouble`, in a sentence; the watch goes on.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from stanch.collect import Scrape
from stanch.deaths import Death, DeathWatch, Evidence, Forecast
from stanch.deaths.book import BookError, DeathBook
from stanch.deaths.witness import MOST_TARGETS, LastProfile
from stanch.detect import Finding, finding_title
from stanch.server.watch import WatchState
from stanch.store import Look


class Chronicle:
    """Give `witness` each scrape, and each state to `take`. May be used from several threads.
    Use it in a `with` block, at whose end the book is closed.

    tables: directories of live tables on this machine. most_targets, last_profile: see DeathWatch.
    """

    def __init__(
        self,
        book: DeathBook,
        tables: Iterable[Path] = (),
        wall: Callable[[], float] = time.time,
        *,
        most_targets: int = MOST_TARGETS,
        last_profile: LastProfile | None = None,
    ) -> None:
        self._lock = threading.RLock()  # guards the death watch
        self._book = book
        self._deaths = DeathWatch(
            book, tables, wall=wall, most_targets=most_targets, last_profile=last_profile
        )
        self.trouble: str | None = None

    def __enter__(self) -> "Chronicle":
        return self

    def __exit__(self, *_: object) -> None:
        self._book.close()

    def witness(self, scrape: Scrape, look: Look | None) -> None:
        """See DeathWatch. Never raises."""
        try:
            with self._lock:
                self._deaths.witness(scrape, look)
        except BookError as error:
            self.trouble = str(error)

    def tell(
        self, service: str, instance: str, evidence: Evidence, **known: float | str | None
    ) -> Death | None:
        """Write down an end that somebody else knows of; see DeathWatch. None when it failed, or
        was written down before."""
        try:
            with self._lock:
                return self._deaths.tell(service, instance, evidence, **known)  # type: ignore[arg-type]
        except BookError as error:
            self.trouble = str(error)
            return None

    def expect(self, service: str, instance: str, evidence: Evidence) -> None:
        """Hear why a process of an instance will end; see DeathWatch. From any thread."""
        self._deaths.expect(service, instance, evidence)

    def take(self, state: WatchState) -> WatchState:
        """Note what a state foretells; return it with the deaths and troubles since the last."""
        leaks = {
            (finding.service, instance): finding
            for finding in reversed(state.findings)
            if finding.is_confirmed_leak
            for instance in finding.instances
        }
        with self._lock:
            return self._take(state, leaks)

    def _take(self, state: WatchState, leaks: dict[tuple[str, str], Finding]) -> WatchState:
        for row in state.rows:
            finding = leaks.get((row.service, row.instance))
            if finding is not None and row.seconds_to_death is not None:
                forecast = _forecast(state.unix_s, finding, row.seconds_to_death)
                self._deaths.foretell(row.instance, forecast)
        self._deaths.forget_all_but({row.instance for row in state.rows})
        state = replace(state, deaths=tuple(self._deaths.take()))
        trouble, self.trouble = self.trouble, None
        return state.troubled(f"deaths: {trouble}") if trouble else state


def _forecast(now_unix: float, finding: Finding, seconds: tuple[float, float, float]) -> Forecast:
    soonest, likely, latest = (now_unix + each for each in seconds)
    return Forecast(now_unix, finding_title(finding), soonest, likely, latest)

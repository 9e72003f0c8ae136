"""Pauses of the garbage collector, timed now and then.

A callback in gc.callbacks costs each collection the making of its arguments, which a program that
allocates much would feel: 0.5 % more instructions in ten rounds of `benchmarks.workloads`' object
churn on CPython 3.11, by callgrind, the sampler off. So it is there for WATCHED_S of each CYCLE_S
only, a tenth of that, and the metrics tell how long the collector was watched. `GcWatch.tick` is
called by the endpoint's acceptor thread.
"""

from collections.abc import Callable

from stanch import sampler

WATCHED_S = 1.0
CYCLE_S = 10.0


class GcWatch:
    """Turns the timing on and off in turn. Not thread-safe: one thread ticks, and stops it."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._on_since: float | None = None
        self._next = monotonic()
        self._watched_s = 0.0

    @property
    def watched_seconds(self) -> float:
        """How long the collector was watched, in seconds, until the last change."""
        return self._watched_s

    def tick(self) -> float:
        """Turn the timing on or off when it is time; return the seconds until the next tick."""
        now = self._monotonic()
        if now >= self._next:
            if self._on_since is not None:
                self.stop()
                self._next = now + CYCLE_S - WATCHED_S
            else:
                if sampler.running():
                    sampler.gc_watch(True)
                    self._on_since = now
                self._next = now + WATCHED_S
        return max(self._next - now, 0.0)

    def stop(self) -> None:
        """Take the callback out."""
        if self._on_since is None:
            return
        sampler.gc_watch(False)
        self._watched_s += max(self._monotonic() - self._on_since, 0.0)
        self._on_since = None

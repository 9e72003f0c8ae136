"""The series that detection reads: what a store gives, whatever it is made of.

All arrays are float64, read-only by convention, and share the looks' time axis where they say so.
Unknown numbers are NaN. Times are seconds on the life's own clock, whose zero is the start of the
oldest process (the first look when its age is unknown), so they do not know of wall clocks.
"""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stanch.store.model import Look, Stack

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Births:
    """Bytes still alive by time of birth, for each stack of a life.

    edges_s: (bands + 1,), evenly spaced. live_bytes: (stacks, bands), at the last look.
    settled_bytes: (stacks, bands), what was alive when the band had been closed for one width,
    so that short-lived memory was gone; NaN for bands that have not come to that.
    """

    edges_s: Floats
    live_bytes: Floats
    settled_bytes: Floats


@dataclass(frozen=True, slots=True)
class Counts:
    """Goroutines, threads or tasks per stack: `count` is (stacks, looks)."""

    kinds: tuple[str, ...]
    stacks: tuple[Stack, ...]
    count: Floats


@dataclass(frozen=True, slots=True)
class LifeSeries:
    """One life of one target, from its first look to its last.

    time_s, rss_bytes, memory_bytes, heap_bytes, runtime_bytes, requests, in_flight: (looks,).
    memory_bytes is what counts against the limit: the working set where known, else the RSS.
    heap_bytes is the live heap, sampled. heap_fresh: (looks,) False where the heap columns
    repeat an older profile. live_bytes, allocated_bytes: (stacks, looks); the last row of
    `stacks` may be OTHER, the sum of what was too small to be kept apart.
    object_bytes: (stacks,) mean size of the live objects, NaN when there are none.
    period_bytes: the largest mean sampling distance of the life.
    ended_near_limit: the life is over and its last memory was at its limit.
    release: which build of the service it runs, "" when unknown. slack_bytes: (looks,) what
    allocators hold free, for reuse. page_cache_bytes: (looks,) of the container. max_fds: how many
    files it may open. These are None, and single looks NaN, when unknown.
    """

    service: str
    instance: str
    language: str
    first_unix_s: float
    time_s: Floats
    rss_bytes: Floats
    memory_bytes: Floats
    heap_bytes: Floats
    runtime_bytes: Floats
    requests: Floats
    in_flight: Floats
    limit_bytes: float | None
    period_bytes: float
    heap_fresh: NDArray[np.bool_]
    stacks: tuple[Stack, ...]
    live_bytes: Floats
    allocated_bytes: Floats
    object_bytes: Floats
    births: Births | None
    counts: Counts
    ended_near_limit: bool = False
    release: str = ""
    slack_bytes: Floats | None = None
    page_cache_bytes: Floats | None = None
    max_fds: float | None = None


@dataclass(frozen=True, slots=True)
class ServiceSeries:
    """All that is known of one service: the lives going on, and ended ones, oldest first."""

    service: str
    lives: tuple[LifeSeries, ...]
    past: tuple[LifeSeries, ...]


class Store(Protocol):
    """Where looks go and where detection reads them.

    `add` takes the looks of one instance in the order of their time; those of different instances
    may mix. A later `add` does not change a series that was given out.
    """

    def add(self, look: Look) -> None:
        """Take in one look; never fails on what it holds."""

    def services(self) -> tuple[str, ...]:
        """Names of the services with at least one look, sorted."""

    def series(self, service: str) -> ServiceSeries:
        """Everything about one service; without lives when it is unknown."""

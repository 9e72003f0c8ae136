"""The store in memory: bounded, gone with the process that holds it.

Keeps the running life of each instance, and of the lives that ended the few newest per service,
cut down to the stacks that held most. A process that vanishes from a target which stood at its
limit ends the life too: the kernel killed one of several, and the rest begins anew.
"""

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from stanch.store.life import Bounds, Life, is_same_life
from stanch.store.model import Look
from stanch.store.series import Births, LifeSeries, ServiceSeries

_MOST_REFUSED = 10_000


@dataclass(frozen=True, slots=True)
class StoreBounds:
    """How much is kept: instances in all, and per service ended lives with so many stacks."""

    instances: int = 256
    past_lives: int = 6
    past_stacks: int = 48
    life: Bounds = field(default_factory=Bounds)


class MemoryStore:
    """The Store protocol over dictionaries; for one thread."""

    def __init__(self, bounds: StoreBounds | None = None) -> None:
        self._bounds = bounds or StoreBounds()
        self._lives: dict[tuple[str, str], Life] = {}
        self._past: dict[str, deque[LifeSeries]] = {}
        self._refused_instances: set[tuple[str, str]] = set()

    @property
    def refused_instances(self) -> int:
        """How many instances there was no room for, 10,000 at most; their looks are not kept."""
        return len(self._refused_instances)

    def add(self, look: Look) -> None:
        """Take in one look, beginning a new life when another process answers."""
        key = (look.service, look.instance)
        life = self._lives.get(key)
        if life is not None and (not is_same_life(life.last, look) or _lost_one(life, look)):
            self._bury(life)
            life = None
        if life is None:
            if key not in self._lives and len(self._lives) >= self._bounds.instances:
                if len(self._refused_instances) < _MOST_REFUSED:
                    self._refused_instances.add(key)
                return
            life = self._lives[key] = Life(look, self._bounds.life)
        life.add(look)

    def services(self) -> tuple[str, ...]:
        """Names of the services with at least one look, sorted."""
        return tuple(sorted({service for service, _ in self._lives}))

    def series(self, service: str) -> ServiceSeries:
        """The running lives of a service in the order of their instances, and the ended ones."""
        running = sorted(key for key in self._lives if key[0] == service)
        return ServiceSeries(
            service=service,
            lives=tuple(self._lives[key].series() for key in running),
            past=tuple(self._past.get(service, ())),
        )

    def forget(self, service: str, instance: str) -> None:
        """Drop the running life of an instance that is no longer a target."""
        self._lives.pop((service, instance), None)

    def _bury(self, life: Life) -> None:
        series = _largest_stacks(life.series(ended=True), self._bounds.past_stacks)
        past = self._past.setdefault(series.service, deque(maxlen=self._bounds.past_lives))
        past.append(series)


def _lost_one(life: Life, look: Look) -> bool:
    before = {process.pid for process in life.last.processes}
    return bool(before - {process.pid for process in look.processes}) and life.near_limit()


def _largest_stacks(life: LifeSeries, most: int) -> LifeSeries:
    """The life with only the stacks that held most at its end."""
    if not life.stacks or not life.time_s.size:
        return life
    rows = np.sort(np.argsort(-life.live_bytes[:, -1], kind="stable")[:most])
    births = life.births
    return replace(
        life,
        stacks=tuple(life.stacks[row] for row in rows),
        live_bytes=life.live_bytes[rows],
        allocated_bytes=life.allocated_bytes[rows],
        object_bytes=life.object_bytes[rows],
        births=births
        and Births(births.edges_s, births.live_bytes[rows], births.settled_bytes[rows]),
    )

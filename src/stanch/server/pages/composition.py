"""What the memory of a service is made of: the parts of its largest replica, and how they grew."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stanch.agent.breakdown import SORTS, Leak, Sort
from stanch.server.selfwatch import ENGINE
from stanch.store.history import MemorySeries
from stanch.store.series import Floats

_SORTS: dict[str, Sort] = {
    **{str(kind): sort for kind, sort in SORTS.items()},
    ENGINE: Sort("the store's engine", "chDB: caches, queries, parts that are merged", "yes"),
}
_LEAKS: dict[Leak, str] = {
    "yes": "yes",
    "threads": "by threads",
    "unclear": "not told apart",
    "no": "no, kept for reuse",
    "never": "no, given up when memory is short",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of memory. grown_bytes: since the first look of the range."""

    title: str
    what: str
    bytes: float
    grown_bytes: float
    leak: str


@dataclass(frozen=True, slots=True)
class Composition:
    """The parts of one life's memory, the largest first."""

    instance: str
    parts: tuple[Part, ...]


def composition_of(memory: Sequence[MemorySeries]) -> Composition | None:
    """That of the life whose parts are largest at its last look; None when no agent tells any."""
    lives = [one for one in memory if one.breakdown]
    if not lives:
        return None
    largest = max(lives, key=lambda one: sum(_last(values) for values in one.breakdown.values()))
    parts = []
    for kind, values in largest.breakdown.items():
        sort = _SORTS.get(kind, Sort(kind, "", "unclear"))
        known = values[np.isfinite(values)]
        if known.size:
            grown = float(known[-1] - known[0])
            parts.append(Part(sort.title, sort.what, float(known[-1]), grown, _LEAKS[sort.leak]))
    parts.sort(key=lambda part: -part.bytes)
    return Composition(largest.life.instance, tuple(parts))


def _last(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known[-1]) if known.size else 0.0

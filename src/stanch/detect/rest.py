"""Causes outside the sampled heap: native memory, and numbers of goroutines, threads and tasks."""

import math

import numpy as np

from stanch.detect.cause import NATIVE, Cause, shape_of
from stanch.detect.finding import Kind
from stanch.detect.groups import Place, group_by_place, main_line
from stanch.detect.growth import Requests, growth_by_level
from stanch.detect.settings import Settings
from stanch.store import Frame
from stanch.store.series import Floats, LifeSeries

_COUNT_KINDS: dict[str, Kind] = {
    "goroutine": "goroutine leak",
    "thread": "thread leak",
    "task": "task leak",
    "fd": "fd leak",
}


def unexplained_memory(life: LifeSeries, settings: Settings) -> Floats:
    """RSS that the runtime's own memory does not explain, in bytes: (looks,).

    For Go that is what it holds from the system. For Python it is the live heap times what
    allocators add at most. Memory that was once freed need not have gone back to the system, so the
    highest of it so far counts, less what RSS has fallen since its own highest: what did go back is
    no growth when it is taken anew. NaN where unknown.
    """
    runtime = life.runtime_bytes
    if life.language == "go":
        explained = runtime
    else:
        # A heap below nothing explains nothing, and makes no memory either.
        explained = np.maximum(np.nan_to_num(life.heap_bytes, nan=0.0), 0.0) * settings.overhead
        explained = np.where(np.isfinite(life.heap_bytes).any(), explained, np.nan)
        if life.slack_bytes is not None and np.isfinite(life.slack_bytes).any():
            # What allocators hold free is known here, so nothing needs to be allowed for it twice.
            live = np.nan_to_num(life.heap_bytes, nan=0.0)
            explained = np.fmax(explained, live + _known_from_then_on(life.slack_bytes))
    highest = np.fmax.accumulate(life.rss_bytes) - np.fmax.accumulate(explained)
    return np.asarray(np.minimum(life.rss_bytes - explained, highest))


def _known_from_then_on(values: Floats) -> Floats:
    """The values with every unknown one replaced by the last known; 0 before the first."""
    last = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(values.size), -1))
    return np.where(last >= 0, values[last], 0.0)


def idle_causes(life: LifeSeries, floor_bytes: float) -> list[Cause]:
    """Memory that grows and is no leak: free in the allocators, or the kernel's page cache."""
    found = []
    sources: tuple[tuple[Kind, Floats | None, str], ...] = (
        ("fragmentation", life.slack_bytes, "memory that allocators keep for reuse"),
        ("page cache", life.page_cache_bytes, "the kernel's page cache"),
    )
    for kind, values, name in sources:
        if values is None or not np.isfinite(values).any():
            continue
        growth = growth_by_level(life.time_s, values, requests=None)
        if growth is None or growth.grown < floor_bytes:
            continue
        found.append(
            Cause(
                kind=kind,
                place=Place("", name),
                places=(Place("", name),),
                frame=Frame(name, "", 0),
                stack=(),
                growth=growth,
                shape="ended" if growth.rates[2] <= 0 else "slowing",
                bound=0.0,
            )
        )
    return found


def native_cause(
    life: LifeSeries, requests: Requests | None, floor_bytes: float, settings: Settings
) -> Cause | None:
    """Growth of memory that the heap does not explain, when it is above the floor."""
    rest = unexplained_memory(life, settings)
    growth = growth_by_level(life.time_s, rest, requests=requests)
    if growth is None or growth.grown < floor_bytes:
        return None
    # The sampled heap is drawn anew as it turns over: its error is that of its level.
    heap = float(np.nan_to_num(life.heap_bytes[-1])) if life.language != "go" else 0.0
    noise = 4.0 * settings.overhead * math.sqrt(life.period_bytes * max(heap, 0.0))
    shape = shape_of(growth, settings)
    return Cause(
        kind="native leak" if shape == "steady" else "warm-up",
        place=NATIVE,
        places=(NATIVE,),
        frame=Frame("", "", 0),
        stack=(),
        growth=growth,
        shape=shape,
        bound=noise,
    )


def count_causes(life: LifeSeries, requests: Requests | None, settings: Settings) -> list[Cause]:
    """Functions at which ever more goroutines, threads or tasks stand.

    Numbers are exact, but arrivals and departures scatter like a Poisson count: growth below a
    few roots of the level is noise.
    """
    counts = life.counts
    causes: list[Cause] = []
    for kind in sorted(set(counts.kinds)):
        rows = [row for row, name in enumerate(counts.kinds) if name == kind]
        stacks = tuple(counts.stacks[row] for row in rows)
        number = counts.count[rows]
        for group in group_by_place(stacks):
            level = number[group.rows].sum(axis=0)
            if level[-1] < settings.min_count:
                continue
            growth = growth_by_level(life.time_s, level, requests=requests)
            if growth is None or growth.grown < settings.min_count:
                continue
            frame, stack = main_line(stacks, group.rows, number[:, -1])
            shape = shape_of(growth, settings)
            causes.append(
                Cause(
                    kind=_COUNT_KINDS.get(kind, "goroutine leak") if shape == "steady" else "load",
                    place=group.place,
                    places=(group.place,),
                    frame=frame,
                    stack=stack,
                    growth=growth,
                    shape=shape,
                    bound=5.0 * math.sqrt(float(level[-1])),
                    counted=kind,
                )
            )
    return causes

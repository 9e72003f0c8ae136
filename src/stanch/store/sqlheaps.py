"""The heaps and counts of lives at chosen looks, for all lives of a service in few queries.

The tables are ordered by stack before instance, so a query for one life reads nearly what one for
all lives reads. Looks at times that are rolled up come from the coarse table.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stanch.store.engine import Engine, StackFrames
from stanch.store.life import OTHER
from stanch.store.model import FILES, Frame, Stack
from stanch.store.rows import band_width_s
from stanch.store.schema import ROLLED, SAMPLES, Table
from stanch.store.series import Births, Counts, Floats

_MAX_FRAMES = 64
_MOST_CACHED = 200_000
_MOST_LISTED = 2_000


@dataclass(frozen=True, slots=True)
class LifeLooks:
    """The looks at a life that are read, as arrays of one length, oldest first.

    numbers: columns of the memory table by name. fresh: whether a heap came with the look.
    rolled: whether its samples are in the coarse table.
    """

    life: int
    times_ms: list[int]
    numbers: dict[str, Floats]
    fresh: NDArray[np.bool_]
    rolled: NDArray[np.bool_]


@dataclass(slots=True)
class Heap:
    """The samples of one life at its looks; see LifeSeries."""

    stacks: tuple[Stack, ...]
    live_bytes: Floats
    allocated_bytes: Floats
    object_bytes: Floats
    counts: Counts
    births: Births | None = None
    names: list[int] = field(default_factory=list)


def no_heap(looks: LifeLooks) -> Heap:
    """The heap of a life whose samples are not read: its open files alone."""
    size = len(looks.times_ms)
    nothing = np.zeros((0, size))
    return Heap((), nothing, nothing, np.zeros(0), _with_files(Counts((), (), nothing), looks))


def read_heaps(
    engine: Engine, service: str, lives: Sequence[LifeLooks], most: int
) -> dict[int, Heap]:
    """The heaps of these lives, of each the `most` stacks that held most. Raises StoreError."""
    if not lives:
        return {}
    heaps = {looks.life: no_heap(looks) for looks in lives}
    _read_stacks(engine, service, lives, most, heaps)
    for looks in lives:
        _repeat_stale(heaps[looks.life], looks)
    _read_births(engine, service, lives, heaps)
    _read_counts(engine, service, lives, most, heaps)
    return heaps


def births_through(
    engine: Engine, service: str, looks: LifeLooks, through: str, given: Mapping[str, Any]
) -> Births | None:
    """The births of a life as one row, of the stacks that a condition with parameters names."""
    bands = _Bands.of(looks)
    if bands is None:
        return None
    found = _births(engine, service, [(looks, bands)], through, given, "toUInt128(0)")
    if not found:
        return None
    return bands.births([0], 1, {key[1:]: size for key, size in found.items()})


def _read_stacks(
    engine: Engine, service: str, lives: Sequence[LifeLooks], most: int, heaps: dict[int, Heap]
) -> None:
    rows = engine.query(
        "SELECT life, stack, groupArray(toUnixTimestamp64Milli(time)), groupArray(live),"
        " groupArray(allocated), argMaxIf(live / objects, time, objects > 0),"
        " countIf(objects > 0) FROM (SELECT life, stack, time, sum(live_bytes) AS live,"
        " sum(alloc_bytes) AS allocated, sum(live_objects) AS objects FROM"
        f" {_samples(lives, 'live_bytes, alloc_bytes, live_objects')} WHERE kind = 'heap'"
        " GROUP BY life, stack, time)"
        " GROUP BY life, stack ORDER BY life, max(live) DESC, stack LIMIT {most:UInt32} BY life",
        {"service": service, "most": most},
    )
    by_life: dict[int, list[Any]] = {}
    for life, *row in rows:
        by_life.setdefault(life, []).append(row)
    frames = read_stacks(engine, {row[1] for row in rows})
    crowded = [looks for looks in lives if len(by_life.get(looks.life, ())) == most]
    totals = _totals(engine, service, crowded) if crowded else {}
    for looks in lives:
        found = by_life.get(looks.life)
        if not found:
            continue
        heap, columns = heaps[looks.life], _columns(looks)
        live, allocated = np.zeros((2, len(found), len(columns)))
        objects = np.full(len(found), np.nan)
        for number, (_, times, lives_bytes, allocations, object_bytes, counted) in enumerate(found):
            at = [columns[time_ms] for time_ms in times]
            live[number, at] = lives_bytes
            allocated[number, at] = allocations
            if counted:
                objects[number] = object_bytes
        heap.names = [row[0] for row in found]
        heap.stacks = tuple(frames.get(name, unknown_stack(name)) for name in heap.names)
        heap.live_bytes, heap.allocated_bytes, heap.object_bytes = live, allocated, objects
        if looks.life in totals:
            rest_live, rest_allocated = totals[looks.life]
            rest_live = rest_live - live.sum(axis=0)
            rest_allocated = rest_allocated - allocated.sum(axis=0)
            if rest_live.any() or rest_allocated.any():
                heap.stacks = (*heap.stacks, OTHER)
                heap.live_bytes = np.vstack([live, np.maximum(rest_live, 0.0)])
                heap.allocated_bytes = np.vstack([allocated, np.maximum(rest_allocated, 0.0)])
                heap.object_bytes = np.append(objects, np.nan)


def _totals(
    engine: Engine, service: str, lives: Sequence[LifeLooks]
) -> dict[int, tuple[Floats, Floats]]:
    """Live and allocated bytes of all stacks of each life at each look."""
    rows = engine.query(
        "SELECT life, groupArray(toUnixTimestamp64Milli(time)), groupArray(live),"
        " groupArray(allocated) FROM (SELECT life, time, sum(live_bytes) AS live,"
        f" sum(alloc_bytes) AS allocated FROM {_samples(lives, 'live_bytes, alloc_bytes')}"
        " WHERE kind = 'heap' GROUP BY life, time) GROUP BY life",
        {"service": service},
    )
    by_life = {looks.life: looks for looks in lives}
    totals = {}
    for life, times, live_bytes, alloc_bytes in rows:
        columns = _columns(by_life[life])
        live, allocated = np.zeros((2, len(columns)))
        at = [columns[time_ms] for time_ms in times]
        live[at], allocated[at] = live_bytes, alloc_bytes
        totals[life] = live, allocated
    return totals


def _repeat_stale(heap: Heap, looks: LifeLooks) -> None:
    for column in np.flatnonzero(~looks.fresh):
        if column:
            heap.live_bytes[:, column] = heap.live_bytes[:, column - 1]
            heap.allocated_bytes[:, column] = heap.allocated_bytes[:, column - 1]


@dataclass(frozen=True, slots=True)
class _Bands:
    """Which look tells what of each band of birth, as `births.BirthTable` has them.

    final: the newest fresh look, which tells what is alive. due: for each of the bands that have
    settled, the look at which it was first seen so.
    """

    width_s: int
    count: int
    final: int
    due: list[int]

    @classmethod
    def of(cls, looks: LifeLooks) -> "_Bands | None":
        fresh = np.flatnonzero(looks.fresh)
        if not fresh.size:
            return None
        ages_s = looks.numbers["age_s"][fresh]
        now_s = max(float(ages_s[-1]), 0.0)
        width_s = band_width_s(now_s)
        count = int(now_s / width_s) + 1
        closed = max(0, min(int(now_s / width_s) - 1, count))
        due = np.searchsorted(np.maximum.accumulate(ages_s), (np.arange(closed) + 2) * width_s)
        return cls(width_s, count, int(fresh[-1]), fresh[np.minimum(due, fresh.size - 1)].tolist())

    def needed(self) -> dict[int, tuple[int, int]]:
        """The looks that tell something, each with the seconds of birth that it tells of; the
        final look tells of all."""
        wanted: dict[int, tuple[int, int]] = {}
        for band, look in enumerate(self.due):
            first, _ = wanted.get(look, (band * self.width_s, 0))
            wanted[look] = first, (band + 1) * self.width_s
        wanted[self.final] = 0, 2**32 - 1
        return wanted

    def births(
        self, names: Sequence[int], rows: int, found: Mapping[tuple[int, int, int], float]
    ) -> Births:
        """found: bytes by stack, look and band. rows: of the stacks with names, and others."""
        live = np.zeros((rows, self.count))
        settled = np.full((rows, self.count), np.nan)
        settled[:, : len(self.due)] = 0.0
        number = {name: row for row, name in enumerate(names)}
        for (stack, look, band), size in found.items():
            row = number.get(stack)
            if row is None:
                continue
            if look == self.final:
                live[row, band] = size
            if band < len(self.due) and look == self.due[band]:
                settled[row, band] = size
        return Births(np.arange(self.count + 1, dtype=np.float64) * self.width_s, live, settled)


def _read_births(
    engine: Engine, service: str, lives: Sequence[LifeLooks], heaps: dict[int, Heap]
) -> None:
    telling = [
        (looks, bands)
        for looks in lives
        if heaps[looks.life].names and (bands := _Bands.of(looks)) is not None
    ]
    if not telling:
        return
    names = {name for looks, _ in telling for name in heaps[looks.life].names}
    found = _births(engine, service, telling, f"stack IN ({_listed(names)})", {}, "stack")
    by_life: dict[int, dict[tuple[int, int, int], float]] = {}
    for (life, *key), size in found.items():
        by_life.setdefault(life, {})[key[0], key[1], key[2]] = size
    for looks, bands in telling:
        if looks.life in by_life:
            heap = heaps[looks.life]
            heap.births = bands.births(heap.names, len(heap.stacks), by_life[looks.life])


def _births(
    engine: Engine,
    service: str,
    lives: Sequence[tuple[LifeLooks, _Bands]],
    chosen: str,
    given: Mapping[str, Any],
    by: str,
) -> dict[tuple[int, int, int, int], float]:
    """Bytes by life, stack, look and band, of the looks that tell something."""
    told = []
    thinned = []
    for looks, bands in lives:
        needed = bands.needed()
        at = sorted(needed)
        thinned.append(
            LifeLooks(
                looks.life,
                [looks.times_ms[look] for look in at],
                {},
                looks.fresh[at],
                looks.rolled[at],
            )
        )
        told += [
            f"({looks.life},{looks.times_ms[look]},{look},{needed[look][0]},{needed[look][1]},"
            f"{bands.width_s},{bands.count - 1})"
            for look in at
        ]
    rows = engine.query(
        "SELECT life, name, look, band, sum(size) FROM (SELECT samples.life AS life,"
        f" {by} AS name, told.3 AS look, least(intDiv(born.1, told.6), told.7) AS band,"
        " born.2 AS size FROM"
        f" {_samples(thinned, 'birth_s, birth_bytes')} AS samples INNER JOIN"
        f" (SELECT arrayJoin([{','.join(told)}]) AS told, toUInt64(told.1) AS life,"
        " toInt64(told.2) AS ms) AS looks"
        " ON samples.life = looks.life AND toUnixTimestamp64Milli(samples.time) = looks.ms"
        " ARRAY JOIN arrayFilter(one -> one.1 >= told.4 AND one.1 < told.5,"
        f" arrayZip(birth_s, birth_bytes)) AS born WHERE kind = 'heap' AND {chosen})"
        " GROUP BY life, name, look, band",
        {"service": service, **given},
    )
    return {(life, stack, look, band): float(size) for life, stack, look, band, size in rows}


def _read_counts(
    engine: Engine, service: str, lives: Sequence[LifeLooks], most: int, heaps: dict[int, Heap]
) -> None:
    rows = engine.query(
        "SELECT life, kind, stack, groupArray(toUnixTimestamp64Milli(time)), groupArray(count)"
        " FROM (SELECT life, kind, stack, time, sum(live_objects) AS count FROM"
        f" {_samples(lives, 'live_objects')} WHERE kind IN ('goroutine', 'thread', 'task')"
        " GROUP BY life, kind, stack, time)"
        " GROUP BY life, kind, stack ORDER BY life, max(count) DESC LIMIT {most:UInt32} BY life",
        {"service": service, "most": most},
    )
    by_life: dict[int, list[Any]] = {}
    for life, *row in rows:
        by_life.setdefault(life, []).append(row)
    frames = read_stacks(engine, {row[2] for row in rows})
    for looks in lives:
        found = by_life.get(looks.life)
        if not found:
            continue
        columns = _columns(looks)
        count = np.zeros((len(found), len(columns)))
        told: set[int] = set()
        for number, (_, _, times, counts) in enumerate(found):
            at = [columns[time_ms] for time_ms in times]
            count[number, at] = counts
            told.update(at)
        for column in range(1, len(columns)):
            if column not in told:  # Its profile of counts did not come.
                count[:, column] = count[:, column - 1]
        counts = Counts(
            tuple(row[0] for row in found),
            tuple(frames.get(row[1], unknown_stack(row[1])) for row in found),
            count,
        )
        heaps[looks.life].counts = _with_files(counts, looks)


def _with_files(counts: Counts, looks: LifeLooks) -> Counts:
    """Open files are a number of a look, and for detection a count as others are."""
    files = looks.numbers["open_fds"]
    if np.isnan(files).all():
        return counts
    return Counts(
        (*counts.kinds, "fd"),
        (*counts.stacks, FILES),
        np.vstack([counts.count, np.nan_to_num(filled(files))]),
    )


def filled(values: Floats) -> Floats:
    """Unknown numbers as the last known one before."""
    known = np.where(np.isnan(values), 0, np.arange(values.size))
    return values[np.maximum.accumulate(known)] if values.size else values


def _columns(looks: LifeLooks) -> dict[int, int]:
    return {time_ms: column for column, time_ms in enumerate(looks.times_ms)}


def _samples(lives: Sequence[LifeLooks], columns: str) -> str:
    """The samples of these lives at their looks, as a table; its parameter is the service."""
    parts = [
        part
        for table, rolled in ((SAMPLES, False), (ROLLED, True))
        if (part := _samples_of(table, lives, rolled, columns))
    ]
    return f"({' UNION ALL '.join(parts)})"


def _samples_of(table: Table, lives: Sequence[LifeLooks], rolled: bool, columns: str) -> str:
    pairs = [
        (looks.life, time_ms)
        for looks in lives
        for time_ms, is_rolled in zip(looks.times_ms, looks.rolled.tolist(), strict=True)
        if is_rolled == rolled
    ]
    if not pairs:
        return ""
    times = [time_ms for _, time_ms in pairs]
    wanted = ",".join(f"({life},{time_ms})" for life, time_ms in pairs)
    names = ",".join(str(life) for life in {life for life, _ in pairs})
    return (
        f"SELECT life, time, stack, kind, {columns} FROM {table.name}"
        " WHERE service = {service:String}"
        f" AND time >= fromUnixTimestamp64Milli({min(times)})"
        f" AND time <= fromUnixTimestamp64Milli({max(times)})"
        f" AND life IN ({names}) AND (life, toUnixTimestamp64Milli(time)) IN ({wanted})"
    )


def unknown_stack(name: int) -> Stack:
    """What stands for a stack whose frames are not known."""
    return (Frame(f"{name:#x}", "", 0),)


def read_stacks(engine: Engine, names: Iterable[int]) -> dict[int, Stack]:
    """The frames of stacks, leaf first, at most 64 of each; unknown ones are left out."""
    return {
        name: tuple(Frame(*frame[:3]) for frame in frames[:_MAX_FRAMES])
        for name, frames in read_frames(engine, names).items()
    }


def read_frames(engine: Engine, names: Iterable[int]) -> dict[int, StackFrames]:
    """The frames of stacks with the first lines of their functions, leaf first.

    The same stacks are asked for again and again, so the engine's answers are remembered.
    """
    cache = engine.stacks
    if len(cache) > _MOST_CACHED:
        cache.clear()
    wanted = set(names)
    missing = sorted(wanted - cache.keys())
    for first in range(0, len(missing), _MOST_LISTED):
        rows = engine.query(
            "SELECT stack, any(functions), any(files), any(lines), any(starts) FROM stacks"
            f" WHERE stack IN ({_listed(missing[first : first + _MOST_LISTED])}) GROUP BY stack"
        )
        for stack, *columns in rows:
            cache[stack] = tuple(zip(*columns, strict=True))
    return {name: cache[name] for name in wanted if name in cache}


def _listed(names: Iterable[int]) -> str:
    """Stack names as literals; a bound array of 128-bit numbers is not what every client knows."""
    return ", ".join(f"toUInt128('{name}')" for name in names)

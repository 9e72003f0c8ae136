"""What detection reads, asked of the tables: the lives of a service as arrays.

SQL narrows: of each life at most `looks` instants, one in each step of its time, and the stacks
that held most at any of them; the rest is one row. So a life costs the same however long it lasts.
Of a service with many instances those whose memory grows fastest against their limit have their
stacks read; the others have their memory only.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stanch.store.engine import Engine, Row
from stanch.store.life import NEAR_LIMIT, OTHER
from stanch.store.model import FILES, Frame, Stack
from stanch.store.rows import band_width_s
from stanch.store.schema import MEMORY
from stanch.store.series import Births, Counts, Floats, LifeSeries, ServiceSeries
from stanch.store.track import REFRESH_S

_MAX_FRAMES = 64
_MOST_CACHED = 200_000


@dataclass(frozen=True, slots=True)
class SeriesBounds:
    """How much of a service is read for one judgement.

    silent_s: a life that was not heard of for so long is not running. past_s: how far back lives
    that ended are looked for.
    """

    looks: int = 160
    stacks: int = 256
    lives: int = 512
    lives_with_stacks: int = 24
    past_lives: int = 6
    past_stacks: int = 48
    silent_s: float = 180.0
    past_s: float = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class _Life:
    """A life as the tables know it, with its looks as arrays of one length."""

    life: int
    instance: str
    language: str
    release: str
    start_ms: int
    seen_ms: int
    ended: bool
    times_ms: list[int]
    numbers: dict[str, Floats]
    fresh: "np.ndarray[tuple[int], np.dtype[np.bool_]]"


_NUMBERS = (
    "age_s",
    "rss_bytes",
    "memory_bytes",
    "limit_bytes",
    "heap_bytes",
    "runtime_bytes",
    "requests",
    "in_flight",
    "period_bytes",
    *MEMORY.added,
)


def read_services(engine: Engine, since_ms: int) -> tuple[str, ...]:
    """Names of the services heard of since then, sorted."""
    rows = engine.query(
        "SELECT DISTINCT service FROM memory WHERE time >= fromUnixTimestamp64Milli({since:Int64})"
        " ORDER BY service",
        {"since": since_ms},
    )
    return tuple(row[0] for row in rows)


def read_series(engine: Engine, service: str, now_ms: int, bounds: SeriesBounds) -> ServiceSeries:
    """All lives of a service that go on, and the newest that ended. Raises StoreError."""
    lives = _lives(engine, service, now_ms, bounds)
    running = [life for life in lives if not life.ended]
    past = sorted((life for life in lives if life.ended), key=lambda life: life.seen_ms)
    closest = sorted(running, key=_urgency, reverse=True)[: bounds.lives_with_stacks]
    full = {life.life for life in closest}
    return ServiceSeries(
        service=service,
        lives=tuple(
            _series(engine, service, life, bounds.stacks if life.life in full else 0)
            for life in sorted(running, key=lambda life: life.instance)
        ),
        past=tuple(_series(engine, service, life, bounds.past_stacks) for life in past),
    )


def read_life(engine: Engine, life: int, bounds: SeriesBounds) -> LifeSeries | None:
    """One life by its number, None when it is unknown. Raises StoreError."""
    rows = engine.query(
        "SELECT service, life, instance, language, release, toUnixTimestamp64Milli(start),"
        " toUnixTimestamp64Milli(seen), end FROM lives FINAL WHERE life = {life:UInt64}",
        {"life": life},
    )
    if not rows:
        return None
    service, *row = rows[0]
    lives = _with_looks(engine, service, [tuple(row)], bounds)
    return _series(engine, service, lives[0], bounds.stacks) if lives else None


def _urgency(life: _Life) -> float:
    """How much of its limit the life has taken since its middle; without a limit, in GiB."""
    memory = life.numbers["memory_bytes"]
    if np.isnan(memory).all():
        memory = life.numbers["heap_bytes"]
    known = memory[~np.isnan(memory)]
    if known.size < 2:
        return 0.0
    limit = life.numbers["limit_bytes"][-1]
    scale = limit if limit > 0 else 2.0**30
    return float((known[-1] - known[known.size // 2]) / scale)


def _lives(engine: Engine, service: str, now_ms: int, bounds: SeriesBounds) -> list[_Life]:
    rows = engine.query(
        "SELECT life, instance, language, release, toUnixTimestamp64Milli(start),"
        " toUnixTimestamp64Milli(seen), end FROM lives FINAL"
        " WHERE service = {service:String} AND seen >= fromUnixTimestamp64Milli({since:Int64})"
        " ORDER BY seen DESC LIMIT {most:UInt32}",
        {
            "service": service,
            "since": now_ms - round(bounds.past_s * 1000),
            "most": bounds.lives,
        },
    )
    # The rows of lives are behind by up to REFRESH_S; their looks tell when they were last seen.
    silent_ms = now_ms - round(bounds.silent_s * 1000)
    recent_ms = silent_ms - round(REFRESH_S * 1000)
    running = [row for row in rows if row[6] == "running" and row[5] >= recent_ms]
    ended = [row for row in rows if row[6] != "running"][: bounds.past_lives]
    wanted = running + ended
    if not wanted:
        return []
    lives = _with_looks(engine, service, wanted, bounds)
    return [life for life in lives if life.ended or life.times_ms[-1] >= silent_ms]


def _with_looks(
    engine: Engine, service: str, wanted: Sequence[Row], bounds: SeriesBounds
) -> list[_Life]:
    looks = _looks(engine, service, [row[0] for row in wanted], bounds)
    lives = []
    for life, instance, language, release, start_ms, seen_ms, end in wanted:
        if found := looks.get(life):
            table = np.array([numbers for _, numbers in found], dtype=np.float64).T
            lives.append(
                _Life(
                    life=life,
                    instance=instance,
                    language=language,
                    release=release,
                    start_ms=start_ms,
                    seen_ms=seen_ms,
                    ended=end != "running",
                    times_ms=[time_ms for time_ms, _ in found],
                    numbers=dict(zip(_NUMBERS, table, strict=False)),
                    fresh=table[len(_NUMBERS)].astype(np.bool_),
                )
            )
    return lives


def _looks(
    engine: Engine, service: str, lives: Sequence[int], bounds: SeriesBounds
) -> dict[int, list[tuple[int, tuple[float, ...]]]]:
    """For each life its looks, at most one in each step of its time: time in ms and numbers."""
    columns = ", ".join(_NUMBERS)
    rows = engine.query(
        f"SELECT life, toUnixTimestamp64Milli(max(time)), argMax(({columns}, fresh), time)"
        " FROM (SELECT *, min(time) OVER (PARTITION BY life) AS first,"
        " max(time) OVER (PARTITION BY life) AS final FROM memory"
        " WHERE service = {service:String} AND life IN {lives:Array(UInt64)})"
        " GROUP BY life, intDiv((toUnixTimestamp64Milli(final) - toUnixTimestamp64Milli(time))"
        " * {looks:UInt32}, toUnixTimestamp64Milli(final) - toUnixTimestamp64Milli(first) + 1)"
        " ORDER BY life, max(time)",
        {"service": service, "lives": list(lives), "looks": bounds.looks},
    )
    found: dict[int, list[tuple[int, tuple[float, ...]]]] = defaultdict(list)
    for life, time_ms, numbers in rows:
        found[life].append((time_ms, numbers))
    return found


def _series(engine: Engine, service: str, life: _Life, most_stacks: int) -> LifeSeries:
    heap = _Heap(engine, service, life, most_stacks)
    numbers = life.numbers
    memory, limit = numbers["memory_bytes"], numbers["limit_bytes"]
    known_limits = limit[~np.isnan(limit)]
    limit_bytes = float(known_limits[-1]) if known_limits.size else None
    fresh = np.zeros(len(life.times_ms), dtype=np.bool_) if not most_stacks else life.fresh
    heap_bytes = numbers["heap_bytes"]
    return LifeSeries(
        service=service,
        instance=life.instance,
        language=life.language,
        first_unix_s=life.times_ms[0] / 1000,
        time_s=numbers["age_s"],
        rss_bytes=numbers["rss_bytes"],
        memory_bytes=memory,
        heap_bytes=_filled(heap_bytes),
        runtime_bytes=numbers["runtime_bytes"],
        requests=numbers["requests"],
        in_flight=numbers["in_flight"],
        limit_bytes=limit_bytes,
        period_bytes=float(np.nanmax(numbers["period_bytes"])),
        heap_fresh=fresh,
        stacks=heap.stacks,
        live_bytes=heap.live_bytes,
        allocated_bytes=heap.allocated_bytes,
        object_bytes=heap.object_bytes,
        births=heap.births,
        counts=heap.counts,
        ended_near_limit=life.ended and _near_limit(memory, limit_bytes),
        release=life.release,
        slack_bytes=numbers["slack_bytes"],
        page_cache_bytes=numbers["page_cache_bytes"],
        max_fds=None if np.isnan(numbers["max_fds"][-1]) else float(numbers["max_fds"][-1]),
    )


def _near_limit(memory: Floats, limit_bytes: float | None) -> bool:
    last = memory[-2:]
    if limit_bytes is None or not last.size or np.isnan(last).any():
        return False
    rise = max(0.0, float(last[-1] - last[0]))
    return bool(last[-1] + 1.5 * rise >= NEAR_LIMIT * limit_bytes)


def _filled(values: Floats) -> Floats:
    """Unknown numbers as the last known one before."""
    known = np.where(np.isnan(values), 0, np.arange(values.size))
    return values[np.maximum.accumulate(known)] if values.size else values


class _Heap:
    """The samples of one life at its looks."""

    def __init__(self, engine: Engine, service: str, life: _Life, most: int) -> None:
        self._engine = engine
        self._life = life
        self._column = {time_ms: column for column, time_ms in enumerate(life.times_ms)}
        self._where = (
            "service = {service:String} AND life = {life:UInt64}"
            " AND time >= fromUnixTimestamp64Milli({first:Int64})"
            " AND time <= fromUnixTimestamp64Milli({final:Int64})"
            " AND toUnixTimestamp64Milli(time) IN {times:Array(Int64)}"
        )
        self._parameters = {
            "service": service,
            "life": life.life,
            "first": life.times_ms[0],
            "final": life.times_ms[-1],
            "times": life.times_ms,
            "most": most,
        }
        self.stacks: tuple[Stack, ...] = ()
        looks = len(life.times_ms)
        self.live_bytes = self.allocated_bytes = np.zeros((0, looks))
        self.object_bytes: Floats = np.zeros(0)
        self.births: Births | None = None
        self.counts = Counts((), (), np.zeros((0, looks)))
        if most:
            self._read_heap(most)
            self._read_counts()
        self._add_files()

    def _read_heap(self, most: int) -> None:
        rows = self._engine.query(
            "SELECT stack, groupArray(toUnixTimestamp64Milli(time)), groupArray(live),"
            " groupArray(allocated), argMaxIf(live / objects, time, objects > 0),"
            " countIf(objects > 0)"
            " FROM (SELECT stack, time, sum(live_bytes) AS live, sum(alloc_bytes) AS allocated,"
            " sum(live_objects) AS objects FROM samples"
            f" WHERE {self._where} AND kind = 'heap' GROUP BY stack, time)"
            " GROUP BY stack ORDER BY max(live) DESC, stack LIMIT {most:UInt32}",
            self._parameters,
        )
        if not rows:
            return
        looks = len(self._life.times_ms)
        live, allocated = np.zeros((len(rows), looks)), np.zeros((len(rows), looks))
        objects = np.full(len(rows), np.nan)
        for number, (_, times, lives, allocations, object_bytes, counted) in enumerate(rows):
            columns = [self._column[time_ms] for time_ms in times]
            live[number, columns] = lives
            allocated[number, columns] = allocations
            if counted:
                objects[number] = object_bytes
        names = [row[0] for row in rows]
        frames = read_stacks(self._engine, names)
        self.stacks = tuple(frames.get(name, (Frame(f"{name:#x}", "", 0),)) for name in names)
        self.live_bytes, self.allocated_bytes, self.object_bytes = live, allocated, objects
        rest = self._rest(names) if len(rows) == most else None
        if rest is not None:
            self.stacks = (*self.stacks, OTHER)
            self.live_bytes = np.vstack([live, rest[0]])
            self.allocated_bytes = np.vstack([allocated, rest[1]])
            self.object_bytes = np.append(objects, np.nan)
        for column in np.flatnonzero(~self._life.fresh):
            if column:
                self.live_bytes[:, column] = self.live_bytes[:, column - 1]
                self.allocated_bytes[:, column] = self.allocated_bytes[:, column - 1]
        self._read_births(names)

    def _rest(self, names: list[int]) -> tuple[Floats, Floats] | None:
        """Live and allocated bytes of the other stacks at each look."""
        rows = self._engine.query(
            "SELECT toUnixTimestamp64Milli(time), sum(live_bytes), sum(alloc_bytes) FROM samples"
            f" WHERE {self._where} AND kind = 'heap' AND stack NOT IN ({_listed(names)})"
            " GROUP BY time",
            self._parameters,
        )
        if not rows:
            return None
        live, allocated = np.zeros(len(self._column)), np.zeros(len(self._column))
        for time_ms, live_bytes, alloc_bytes in rows:
            live[self._column[time_ms]] = live_bytes
            allocated[self._column[time_ms]] = alloc_bytes
        return live, allocated

    def _read_births(self, names: list[int]) -> None:
        """As `births.BirthTable` has them: alive at the last look, and alive once settled."""
        ages_s = self._life.numbers["age_s"]
        fresh_ages_s = ages_s[self._life.fresh]
        if not fresh_ages_s.size:
            return
        now_s = float(fresh_ages_s[-1])
        width_s = band_width_s(max(now_s, 0.0))
        bands = int(max(now_s, 0.0) / width_s) + 1
        ages = ", ".join(f"{age_s!r}" for age_s in ages_s.tolist())
        rows = self._engine.query(
            "SELECT stack, band, argMax(bytes, look), max(look),"
            " argMinIf(bytes, look, age >= (band + 2) * {width:UInt32}),"
            " minIf(look, age >= (band + 2) * {width:UInt32}),"
            " countIf(age >= (band + 2) * {width:UInt32})"
            " FROM (SELECT stack, least(intDiv(second, {width:UInt32}), {last:UInt32}) AS band,"
            " indexOf({times:Array(Int64)}, toUnixTimestamp64Milli(time)) AS look,"
            f" arrayElement([{ages}], look) AS age, sum(alive) AS bytes"
            " FROM samples ARRAY JOIN birth_s AS second, birth_bytes AS alive"
            f" WHERE {self._where} AND kind = 'heap' AND stack IN ({_listed(names)})"
            " GROUP BY stack, band, look, age) GROUP BY stack, band",
            {**self._parameters, "width": width_s, "last": bands - 1},
        )
        if not rows:
            return
        number = {name: row for row, name in enumerate(names)}
        live = np.zeros((len(self.stacks), bands))
        settled = np.full((len(self.stacks), bands), np.nan)
        closed = max(0, min(int(now_s / width_s) - 1, bands))
        settled[:, :closed] = 0.0
        final_look = int(np.flatnonzero(self._life.fresh)[-1]) + 1
        # The look at which a band was first seen settled; a stack without a row there has died out.
        fresh_looks = np.flatnonzero(self._life.fresh)
        for stack, band, last_bytes, last_look, first_bytes, first_look, count in rows:
            if last_look == final_look:
                live[number[stack], band] = last_bytes
            if count and band < closed:
                due = fresh_looks[fresh_ages_s >= (band + 2) * width_s]
                if due.size and first_look == int(due[0]) + 1:
                    settled[number[stack], band] = first_bytes
        edges_s = np.arange(bands + 1, dtype=np.float64) * width_s
        self.births = Births(edges_s, live, settled)

    def _read_counts(self) -> None:
        rows = self._engine.query(
            "SELECT kind, stack, groupArray(toUnixTimestamp64Milli(time)), groupArray(count)"
            " FROM (SELECT kind, stack, time, sum(live_objects) AS count FROM samples"
            f" WHERE {self._where} AND kind IN ('goroutine', 'thread', 'task')"
            " GROUP BY kind, stack, time)"
            " GROUP BY kind, stack ORDER BY max(count) DESC LIMIT {most:UInt32}",
            self._parameters,
        )
        if not rows:
            return
        count = np.zeros((len(rows), len(self._column)))
        for number, (_, _, times, counts) in enumerate(rows):
            count[number, [self._column[time_ms] for time_ms in times]] = counts
        told = {self._column[time_ms] for row in rows for time_ms in row[2]}
        for column in range(1, len(self._column)):
            if column not in told:  # Its profile of counts did not come.
                count[:, column] = count[:, column - 1]
        frames = read_stacks(self._engine, [row[1] for row in rows])
        self.counts = Counts(
            tuple(row[0] for row in rows),
            tuple(frames.get(row[1], (Frame(f"{row[1]:#x}", "", 0),)) for row in rows),
            count,
        )

    def _add_files(self) -> None:
        """Open files are a number of a look, and for detection a count as others are."""
        files = self._life.numbers["open_fds"]
        if np.isnan(files).all():
            return
        self.counts = Counts(
            (*self.counts.kinds, "fd"),
            (*self.counts.stacks, FILES),
            np.vstack([self.counts.count, np.nan_to_num(_filled(files))]),
        )


def read_stacks(engine: Engine, names: Iterable[int]) -> dict[int, Stack]:
    """The frames of stacks, leaf first, at most 64 of each; those that are not known are left out.

    Recent stacks are asked for again and again, so the engine's answers are remembered.
    """
    cache = engine.stacks
    if len(cache) > _MOST_CACHED:
        cache.clear()
    missing = sorted({name for name in names if name not in cache})
    for first in range(0, len(missing), 2000):
        rows = engine.query(
            "SELECT stack, any(functions), any(files), any(lines) FROM stacks"
            f" WHERE stack IN ({_listed(missing[first : first + 2000])}) GROUP BY stack"
        )
        for stack, functions, files, lines in rows:
            frames = zip(functions, files, lines, strict=True)
            cache[stack] = tuple(Frame(*frame) for frame in list(frames)[:_MAX_FRAMES])
    return {name: cache[name] for name in names if name in cache}


def _listed(names: Iterable[int]) -> str:
    """Stack names as literals; a bound array of 128-bit numbers is not what every client knows."""
    return ", ".join(f"toUInt128('{name}')" for name in names)

"""What detection reads, asked of the tables: the lives of a service as arrays.

SQL narrows: of each life at most `looks` instants, one in each step of its time, and the stacks
that held most at any of them; the rest is one row. Of a life so long that its steps are no finer
than what is rolled up, only the last quarter of an hour is read in full. So a life costs the same
however long it lasts.
Of a service with many instances those whose memory grows fastest against their limit have their
stacks read; the others have their memory only.
"""

from collections import defaultdict
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stanch.store.engine import Engine, Row
from stanch.store.life import NEAR_LIMIT
from stanch.store.series import Births, Floats, LifeSeries, ServiceSeries
from stanch.store.sqlheaps import (
    Heap,
    LifeLooks,
    births_through,
    filled,
    no_heap,
    read_heaps,
)
from stanch.store.track import REFRESH_S, ROLLED_EVERY_S

_RECENT_S = 900.0
_SETTLED_MS = 60_000
_MOST_ENDED = 200


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
    """A life as the tables know it, with its looks."""

    instance: str
    language: str
    release: str
    start_ms: int
    seen_ms: int
    ended: bool
    looks: LifeLooks


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
    "slack_bytes",
    "page_cache_bytes",
    "open_fds",
    "max_fds",
)


def read_services(engine: Engine, since_ms: int) -> tuple[str, ...]:
    """Names of the services heard of since then, sorted."""
    rows = engine.query(
        "SELECT DISTINCT service FROM memory WHERE time >= fromUnixTimestamp64Milli({since:Int64})"
        " ORDER BY service",
        {"since": since_ms},
    )
    return tuple(row[0] for row in rows)


def read_series(
    engine: Engine,
    service: str,
    now_ms: int,
    bounds: SeriesBounds,
    ended: MutableMapping[int, LifeSeries] | None = None,
) -> ServiceSeries:
    """All lives of a service that go on, and the newest that ended. Raises StoreError.

    ended: lives that ended, by number, as they were read before; they do not change any more.
    """
    known = {} if ended is None else ended
    lives = _lives(engine, service, now_ms, bounds)
    running = sorted((life for life in lives if not life.ended), key=lambda life: life.instance)
    past = sorted((life for life in lives if life.ended), key=lambda life: life.seen_ms)
    closest = sorted(running, key=_urgency, reverse=True)[: bounds.lives_with_stacks]
    heaps = read_heaps(engine, service, [life.looks for life in closest], bounds.stacks)
    missing = [life for life in past if life.looks.life not in known]
    buried = read_heaps(engine, service, [life.looks for life in missing], bounds.past_stacks)
    fresh = {life.looks.life: _series(service, life, buried[life.looks.life]) for life in missing}
    series = ServiceSeries(
        service=service,
        lives=tuple(_series(service, life, heaps.get(life.looks.life)) for life in running),
        past=tuple(fresh.get(life.looks.life) or known[life.looks.life] for life in past),
    )
    for life in missing:
        # What was taken last of a life may still be on its way into the tables.
        if life.seen_ms < now_ms - _SETTLED_MS:
            known[life.looks.life] = fresh[life.looks.life]
    for oldest in list(known)[:-_MOST_ENDED]:
        known.pop(oldest, None)
    return series


def read_life_births(
    engine: Engine, life: int, through: str, given: Mapping[str, Any], bounds: SeriesBounds
) -> Births | None:
    """The births of a life as one row, of the stacks that a condition with parameters names; None
    when the life is unknown or tells none. Raises StoreError."""
    rows = engine.query(
        "SELECT service, life, instance, language, release, toUnixTimestamp64Milli(start),"
        " toUnixTimestamp64Milli(seen), end FROM lives FINAL WHERE life = {life:UInt64}",
        {"life": life},
    )
    if not rows:
        return None
    service, *row = rows[0]
    lives = _with_looks(engine, service, [tuple(row)], bounds)
    return births_through(engine, service, lives[0].looks, through, given) if lives else None


def _urgency(life: _Life) -> float:
    """How much of its limit the life has taken since its middle; without a limit, in GiB."""
    memory = life.looks.numbers["memory_bytes"]
    if np.isnan(memory).all():
        memory = life.looks.numbers["heap_bytes"]
    known = memory[~np.isnan(memory)]
    if known.size < 2:
        return 0.0
    limit = life.looks.numbers["limit_bytes"][-1]
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
    return [life for life in lives if life.ended or life.looks.times_ms[-1] >= silent_ms]


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
                    instance=instance,
                    language=language,
                    release=release,
                    start_ms=start_ms,
                    seen_ms=seen_ms,
                    ended=end != "running",
                    looks=LifeLooks(
                        life=life,
                        times_ms=[time_ms for time_ms, _ in found],
                        numbers=dict(zip(_NUMBERS, table, strict=False)),
                        fresh=table[len(_NUMBERS)].astype(np.bool_),
                        rolled=table[len(_NUMBERS) + 1].astype(np.bool_),
                    ),
                )
            )
    return lives


def _looks(
    engine: Engine, service: str, lives: Sequence[int], bounds: SeriesBounds
) -> dict[int, list[tuple[int, tuple[float, ...]]]]:
    """For each life its looks, at most one in each step of its time: time in ms, the numbers,
    whether a heap came with it, and whether its samples are to be had rolled up."""
    columns = ", ".join(_NUMBERS)
    rows = engine.query(
        f"SELECT life, toUnixTimestamp64Milli(max(time)), argMax(({columns}, fresh,"
        " is_long AND rolled), time)"
        " FROM (SELECT *, min(time) OVER (PARTITION BY life) AS first,"
        " max(time) OVER (PARTITION BY life) AS final,"
        " toUnixTimestamp64Milli(final) - toUnixTimestamp64Milli(first) >= {long:Int64} AS is_long"
        " FROM memory"
        " WHERE service = {service:String} AND life IN {lives:Array(UInt64)})"
        " WHERE NOT is_long OR rolled OR time > final - INTERVAL {recent:UInt32} SECOND"
        " GROUP BY life, intDiv((toUnixTimestamp64Milli(final) - toUnixTimestamp64Milli(time))"
        " * {looks:UInt32}, toUnixTimestamp64Milli(final) - toUnixTimestamp64Milli(first) + 1)"
        " ORDER BY life, max(time)",
        {
            "service": service,
            "lives": list(lives),
            "looks": bounds.looks,
            "long": round(bounds.looks * ROLLED_EVERY_S / 2 * 1000),
            "recent": round(_RECENT_S),
        },
    )
    found: dict[int, list[tuple[int, tuple[float, ...]]]] = defaultdict(list)
    for life, time_ms, numbers in rows:
        found[life].append((time_ms, numbers))
    return found


def _series(service: str, life: _Life, heap: Heap | None) -> LifeSeries:
    """heap: None when its samples are not read."""
    is_read = heap is not None
    heap = heap or no_heap(life.looks)
    looks, numbers = life.looks, life.looks.numbers
    memory, limit = numbers["memory_bytes"], numbers["limit_bytes"]
    known_limits = limit[~np.isnan(limit)]
    limit_bytes = float(known_limits[-1]) if known_limits.size else None
    fresh = looks.fresh if is_read else np.zeros(len(looks.times_ms), dtype=np.bool_)
    heap_bytes = numbers["heap_bytes"]
    return LifeSeries(
        service=service,
        instance=life.instance,
        language=life.language,
        first_unix_s=looks.times_ms[0] / 1000,
        time_s=numbers["age_s"],
        rss_bytes=numbers["rss_bytes"],
        memory_bytes=memory,
        heap_bytes=filled(heap_bytes),
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

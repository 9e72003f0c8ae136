"""One life judged: what grows in it, how sure that is, and when it will end."""

from dataclasses import dataclass, replace

from stanch.detect.cause import Cause
from stanch.detect.finding import Kind
from stanch.detect.forecast import Slope, memory_slope, time_to_limit
from stanch.detect.groups import Place
from stanch.detect.growth import growth_by_level, requests_served
from stanch.detect.heap import heap_causes
from stanch.detect.rest import count_causes, idle_causes, native_cause
from stanch.detect.room import (
    Room,
    count_with_share,
    passing_bytes,
    room_of,
    with_share,
)
from stanch.detect.settings import Settings
from stanch.detect.stages import NOTHING, Known, is_cleared, staged
from stanch.store.series import LifeSeries

_THREAD_BYTES = 256 * 1024
"""A thread's stack and arena rarely touch more: native growth below it per thread is theirs."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one life shows. slope: of its memory, over the growth of its gravest cause."""

    life: LifeSeries
    causes: tuple[Cause, ...]
    room: Room | None
    slope: Slope | None
    seconds_to_death: tuple[float, float, float] | None


def judge(
    life: LifeSeries,
    settings: Settings,
    known: Known = NOTHING,
) -> Judgement:
    """Judge one life by itself and by what else is known of its service."""
    room = room_of(life, settings)
    if room is None or life.time_s.size < 2:
        return Judgement(life, (), room, None, None)
    requests = requests_served(life.time_s, life.requests, from_start=life.births is not None)
    floor = settings.material * room.limit_bytes
    causes = heap_causes(life, requests, floor, settings)
    counts = count_causes(life, requests, settings)
    native = native_cause(life, requests, floor, settings)
    if native is not None and not _thread_stacks(counts, native):
        causes.append(native)
    room = replace(room, passing_bytes=sum(passing_bytes(cause, settings) for cause in causes))
    causes = [with_share(cause, causes, life, room, settings) for cause in causes]
    explained = [cause for cause in causes if is_cleared(cause, life, room, known, settings)]
    causes += [count_with_share(cause, life, room, explained) for cause in counts]
    causes += idle_causes(life, floor)
    slope = _slope(life, causes)
    death = (
        time_to_limit(slope, room.memory_bytes, room.limit_bytes, settings.horizon_s)
        if slope is not None
        else None
    )
    causes = [
        staged(
            cause,
            life,
            room,
            known,
            settings,
            is_dying=death is not None or cause.counted == "fd",
        )
        for cause in causes
    ]
    return Judgement(life, tuple(causes), room, slope, death if room.is_known else None)


def causes_of_death(life: LifeSeries, settings: Settings) -> frozenset[tuple[Kind, Place]]:
    """What an ended life died of: leaks that held a good part of its limit.

    Empty when it did not die at its limit.
    """
    if not life.ended_near_limit or life.limit_bytes is None:
        return frozenset()
    return frozenset(
        (cause.kind, place)
        for cause in judge(life, settings).causes
        if cause.leaks and (cause.is_count or _is_material(cause, life.limit_bytes, settings))
        for place in cause.places
    )


def _is_material(cause: Cause, limit_bytes: float, settings: Settings) -> bool:
    return cause.growth.grown_until_now >= settings.past_material * limit_bytes


def _thread_stacks(counts: list[Cause], native: Cause) -> bool:
    threads = sum(cause.growth.grown for cause in counts if cause.kind == "thread leak")
    return native.growth.grown <= threads * _THREAD_BYTES


def _slope(life: LifeSeries, causes: list[Cause]) -> Slope | None:
    leaks = [cause for cause in causes if cause.leaks]
    if leaks:
        since = max(leaks, key=lambda cause: cause.share).growth.onset_s
        return memory_slope(life.time_s, life.memory_bytes, since)
    growth = growth_by_level(life.time_s, life.memory_bytes, requests=None)
    since = growth.onset_s if growth is not None else float(life.time_s[0])
    return memory_slope(life.time_s, life.memory_bytes, since)

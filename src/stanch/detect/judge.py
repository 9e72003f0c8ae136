"""One life judged: what grows in it, how sure that is, and when it will end."""

from dataclasses import dataclass, replace

import numpy as np

from stanch.detect.cause import Cause
from stanch.detect.finding import LEAKS, Kind, Stage
from stanch.detect.forecast import Slope, memory_slope, time_to_limit
from stanch.detect.groups import Place
from stanch.detect.growth import growth_by_level, requests_served
from stanch.detect.heap import heap_causes
from stanch.detect.rest import count_causes, native_cause
from stanch.detect.room import (
    Room,
    count_with_share,
    memory_since,
    passing_bytes,
    room_of,
    with_share,
)
from stanch.detect.settings import Settings
from stanch.store.series import LifeSeries

_THREAD_BYTES = 256 * 1024
"""A thread's stack and arena rarely touch more: native growth below it per thread is theirs."""

_RECENT_LOOKS = 3


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
    died_of: frozenset[tuple[Kind, Place]] = frozenset(),
) -> Judgement:
    """Judge one life. died_of: what earlier lives of the service died of."""
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
    causes += [count_with_share(cause, life, room) for cause in counts]
    slope = _slope(life, causes)
    death = (
        time_to_limit(slope, room.memory_bytes, room.limit_bytes, settings.horizon_s)
        if slope is not None
        else None
    )
    staged = [_staged(cause, life, death is not None, died_of, settings) for cause in causes]
    return Judgement(life, tuple(staged), room, slope, death if room.is_known else None)


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


def _staged(
    cause: Cause,
    life: LifeSeries,
    is_dying: bool,
    died_of: frozenset[tuple[Kind, Place]],
    settings: Settings,
) -> Cause:
    stage: Stage = "suspect"
    repeats = any((cause.kind, place) in died_of for place in cause.places)
    if cause.leaks and cause.kind in LEAKS and is_dying:
        growth = cause.growth
        watched = (
            growth.looks >= settings.min_looks
            and growth.watched_s >= settings.watched * growth.duration_s
            and _goes_on(cause, life, settings)
            and _is_a_good_part(cause, life, settings)
        )
        if watched and cause.share >= settings.probable:
            stage = "probable"
        if watched and (
            repeats
            or cause.share >= settings.confirmed
            or cause.joint_share >= settings.confirmed_jointly
        ):
            stage = "confirmed"
    return replace(cause, stage=stage, repeats=repeats)


def _goes_on(cause: Cause, life: LifeSeries, settings: Settings) -> bool:
    """Whether memory has followed the growth up to the last look.

    Births say late that a cache has reached its bound: when the first old entry goes. Memory
    itself says it at once.
    """
    known = np.isfinite(life.memory_bytes)
    times, memory = life.time_s[known], life.memory_bytes[known]
    if times.size < _RECENT_LOOKS + 1:
        return False
    recent_s = max(times[-1] - times[-1 - _RECENT_LOOKS], settings.recent * cause.growth.duration_s)
    since = float(np.interp(times[-1] - recent_s, times, memory))
    expected = 0.0 if cause.is_count else cause.growth.rate * recent_s
    return bool(memory[-1] - since > settings.followed * expected)


def _is_a_good_part(cause: Cause, life: LifeSeries, settings: Settings) -> bool:
    """Whether the cause has part enough in the growth of memory since it began.

    When death is near, the room left is so small that any trifle seems to fill it.
    """
    since = memory_since(life, cause.growth.onset_s)
    if since is None or cause.is_count:
        return True
    return cause.growth.grown_until_now >= settings.good_part * since

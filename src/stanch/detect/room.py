"""The room below the limit, and how much of it each growth has taken."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stanch.detect.blame import is_library
from stanch.detect.cause import NATIVE, Cause
from stanch.detect.groups import Place, place_of
from stanch.detect.settings import Settings
from stanch.store.series import LifeSeries

_OWN_PART = 0.4
"""Causes of one request path count together, but not for one that is a small part of it: that may
be a cache that fills beside a leak."""


@dataclass(frozen=True, slots=True)
class Room:
    """Memory now and where it ends.

    is_known: whether the limit is real or assumed. passing_bytes: what requests of this moment
    hold, which comes and goes with the load.
    """

    memory_bytes: float
    limit_bytes: float
    is_known: bool
    passing_bytes: float = 0.0

    @property
    def left_bytes(self) -> float:
        """What is left below the limit, or will be when passing memory has gone."""
        used = self.memory_bytes - min(self.passing_bytes, self.memory_bytes)
        return max(self.limit_bytes - used, 0.0)


def room_of(life: LifeSeries, settings: Settings) -> Room | None:
    known = life.memory_bytes[np.isfinite(life.memory_bytes)]
    if not known.size:
        return None
    memory = float(known[-1])
    if life.limit_bytes is not None and life.limit_bytes > 0:
        return Room(memory, life.limit_bytes, True)
    # Without a limit, growth is measured against what a service may well take.
    assumed = max(settings.assumed_limit_bytes, settings.assumed_limit_factor * float(known[0]))
    return Room(memory, max(assumed, memory), False)


def memory_since(life: LifeSeries, since_s: float) -> float | None:
    """How much memory has grown since a time; None when nobody looked then."""
    known = np.isfinite(life.memory_bytes)
    times, memory = life.time_s[known], life.memory_bytes[known]
    if not times.size or times[0] > since_s + 2 * (times[-1] - times[0]) / times.size:
        return None
    return float(memory[-1] - np.interp(since_s, times, memory))


def with_share(
    cause: Cause, causes: list[Cause], life: LifeSeries, room: Room, settings: Settings
) -> Cause:
    """Reckon how much of the room at its onset the cause has taken, alone and with its kin."""
    own = cause.growth.grown_until_now
    if not cause.leaks or own <= 0:
        return cause
    others = [other for other in causes if other.leaks and other is not cause]
    kin = sum(other.growth.grown_until_now for other in others if _on_one_path(cause, other))
    everything = own + sum(other.growth.grown_until_now for other in others)
    joint = own + kin if own > _OWN_PART * (own + kin) else own
    return replace(
        cause,
        share=_share(cause, own, everything, life, room, settings),
        joint_share=_share(cause, joint, everything, life, room, settings),
    )


def passing_bytes(cause: Cause, settings: Settings) -> float:
    """Of memory that does not last, what is of the newest third of its time or younger."""
    growth = cause.growth
    if not growth.by_birth or growth.kept >= settings.survival or sum(growth.rates) <= 0:
        return 0.0
    return growth.level * max(growth.rates[2], 0.0) / sum(growth.rates)


def _share(
    cause: Cause,
    grown: float,
    everything: float,
    life: LifeSeries,
    room: Room,
    settings: Settings,
) -> float:
    """The share of the room that `grown` bytes of the cause and its kin have taken.

    Reckoned in two ways, of which the lower holds. By bytes, memory itself is exact and of this
    moment, so its growth, divided among all that grows (`everything`), bounds what the sampled
    growth claims; how much memory goes with a sampled byte is unknown, but at most `overhead`.
    By time, the growth has lasted so long out of what it would take at its newest rate.
    """
    growth = cause.growth
    if growth.rates[2] <= 0:
        return 0.0
    since = memory_since(life, growth.onset_s)
    taken = grown
    if since is not None:
        most = grown * (1.0 if cause.place == NATIVE else _overhead(life, settings))
        taken = min(most, max(since, 0.0) * grown / everything)
    by_bytes = taken / (taken + room.left_bytes) if taken > 0 else 0.0
    newest = growth.rates[2] * grown / growth.grown_until_now
    left_s = room.left_bytes / (newest * max(1.0, taken / grown))
    by_time = growth.duration_s / (growth.duration_s + left_s)
    return min(by_bytes, by_time)


def _overhead(life: LifeSeries, settings: Settings) -> float:
    return settings.overhead_go if life.language == "go" else settings.overhead


def _on_one_path(one: Cause, other: Cause) -> bool:
    """Whether two causes are of one request path: a function of the user's calls both."""
    if NATIVE in (one.place, other.place):
        return False
    return bool(_callers(one) & _callers(other))


def _callers(cause: Cause) -> set[Place]:
    return {
        place_of(frame)
        for frame in cause.stack
        if not is_library(frame) and frame.function not in ("<module>", "main.main", "main")
    }


def count_with_share(
    cause: Cause, life: LifeSeries, room: Room, explained: Sequence[Cause]
) -> Cause:
    """A count takes room with whatever it holds: the memory that grew since it began to.

    explained: growths that are no leak, such as a cache that fills meanwhile; theirs is not its.
    """
    if cause.counted == "fd":
        return _files_share(cause, life)
    since = cause.growth.onset_s
    grown = memory_since(life, since)
    if not cause.leaks or grown is None:
        return cause
    grown -= sum(_grown_since(other, since) for other in explained)
    return replace(cause, share=grown / (grown + room.left_bytes) if grown > 0 else 0.0)


def _grown_since(cause: Cause, since_s: float) -> float:
    """What a growth has added since a time, as if it had been even."""
    growth = cause.growth
    together_s = min(growth.now_s - since_s, growth.duration_s)
    part = together_s / growth.duration_s if growth.duration_s > 0 else 0.0
    return max(growth.grown_until_now, 0.0) * part


def _files_share(cause: Cause, life: LifeSeries) -> Cause:
    """Open files end at their own limit, whatever memory they take."""
    if not cause.leaks or not life.max_fds:
        return cause
    left = max(life.max_fds - cause.growth.level, 0.0)
    grown = cause.growth.grown_until_now
    return replace(cause, share=grown / (grown + left) if grown > 0 else 0.0)

"""How sure it is that a growth is a leak: suspect, probable or confirmed, and on what evidence.

A cache that is filling and a leak look alike until the cache is full, so growth alone has to take
a large share of the room below the limit. What else is known lowers that share, or forbids to
accuse: a death of the same growth, what holds the memory, and what earlier lives did.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from stanch.detect.cause import Cause, Earlier
from stanch.detect.envelope import Envelope
from stanch.detect.finding import LEAKS, Kind, Stage
from stanch.detect.groups import Place
from stanch.detect.holder import Holder
from stanch.detect.room import Room, memory_since
from stanch.detect.settings import Settings
from stanch.store.series import LifeSeries

_RECENT_LOOKS = 3

_MOSTLY = 0.6
"""A cause is most of what grows when it makes up this share of the growth of memory."""

NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside the series of the life itself.

    died_of: what earlier lives of the service died of. envelope: what they did otherwise, None
    when there were none. holders: what holds the memory of a place, where that was looked at.
    """

    died_of: frozenset[tuple[Kind, Place]] = frozenset()
    envelope: Envelope | None = None
    holders: tuple[tuple[Place, Holder], ...] = ()

    def holder(self, cause: Cause) -> Holder | None:
        """What holds the memory of a cause; None when nobody looked, or it is no heap memory."""
        if cause.is_count:
            return None
        for place, holder in self.holders:
            if place in cause.places:
                return holder
        return None


NOTHING = Known()


def staged(
    cause: Cause,
    life: LifeSeries,
    room: Room,
    known: Known,
    settings: Settings,
    *,
    is_dying: bool,
) -> Cause:
    """The cause with its stage and the evidence beside its own growth."""
    if not (cause.leaks and cause.kind in LEAKS):
        return cause
    cause = _with_evidence(cause, life, known)
    growth = cause.growth
    watched = (
        is_dying
        and growth.looks >= settings.min_looks
        and growth.watched_s >= settings.watched * growth.duration_s
        and _goes_on(cause, life, settings)
        and _is_part(cause, life, settings.good_part)
    )
    if not watched:
        return cause
    needed = needed_share(
        cause,
        room.left_bytes,
        settings,
        straight=_straightness(cause, life),
        is_unseen=cause.is_count or cause.kind == "native leak",
        is_clear=growth.looks >= settings.many_looks and _is_part(cause, life, _MOSTLY),
    )
    if needed < settings.confirmed and not _is_part(cause, life, settings.main_part):
        needed = settings.confirmed
    stage: Stage = "suspect"
    if settings.probable <= cause.share and needed < NEVER:
        stage = "probable"
    if cause.share >= needed or cause.joint_share >= settings.jointly * needed:
        stage = "confirmed"
    return replace(cause, stage=stage)


def is_cleared(
    cause: Cause, life: LifeSeries, room: Room, known: Known, settings: Settings
) -> bool:
    """Whether a growth is known to be no leak, by its look or by what is known beside it."""
    if not (cause.leaks and cause.kind in LEAKS):
        return True
    known_cause = _with_evidence(cause, life, known)
    return needed_share(known_cause, room.left_bytes, settings) == NEVER


def _with_evidence(cause: Cause, life: LifeSeries, known: Known) -> Cause:
    return replace(
        cause,
        repeats=any((cause.kind, place) in known.died_of for place in cause.places),
        holder=known.holder(cause),
        earlier=known.envelope.relation(cause, life) if known.envelope else Earlier("untold"),
    )


def needed_share(
    cause: Cause,
    left_bytes: float,
    settings: Settings,
    *,
    straight: float = 1.0,
    is_unseen: bool = False,
    is_clear: bool = False,
) -> float:
    """The share of the room a leak must have taken to be confirmed; NEVER when it is none.

    left_bytes: what is left below the limit now. straight: the pace of its newest third as a
    share of the middle one's.
    is_unseen: whether no retention search can tell what holds it. is_clear: whether memory shows
    its pace without much else in it, at many looks.
    """
    if cause.repeats:
        return 0.0
    if cause.holder is not None and _will_be_full(cause, cause.holder, left_bytes):
        return NEVER
    if cause.earlier.relation == "known":
        return NEVER
    needed = settings.confirmed
    # Earlier lives that grew alike lived on, so it is no news; else it is as rare as that.
    grew_alike = cause.earlier.relation == "untold" and cause.earlier.lives > 0
    if is_unseen and straight >= settings.straight and not grew_alike:
        needed = settings.unseen
    if cause.earlier.relation in ("new", "steeper"):
        needed = min(needed, settings.changed)
    is_even = straight >= settings.straight_held and not grew_alike
    match cause.holder.behaviour if cause.holder is not None else "unknown":
        case "endless" | "lost":
            return settings.held_for_good
        case "never emptied" if (
            is_clear and cause.in_requests and not grew_alike and _fills(cause.share, straight)
        ):
            return settings.asked_for
        case "never emptied" | "not emptied" | "uncollected" if is_even:
            return min(needed, settings.never_emptied)
        case "unbounded" if is_even:
            return min(needed, settings.held)
        case "emptied" if is_even:
            return min(needed, settings.emptied)
        case "maybe bounded":
            return settings.confirmed
    return needed


def _fills(share: float, straight: float) -> bool:
    """Whether a growth that slows on as it does will fill the room all the same.

    What is asked for again slows by the same factor each third; all that is yet to come of it is
    then the newest third times `1 / -ln(straight)`.
    """
    if not 0 < share < 1:
        return share >= 1
    return straight >= math.exp(-share / 3 / (1 - share))


def _straightness(cause: Cause, life: LifeSeries) -> float:
    """The pace of the newest third of a growth as a share of the middle one's.

    A cache that is asked for keys again fills ever more slowly, long before it is full. Memory
    tells it best, for it is exact; not where others grow as much, nor of Go, whose collector takes
    memory in leaps.
    """
    growth = cause.growth
    since = memory_since(life, growth.onset_s)
    own = growth.rates
    if (
        life.language != "go"
        and since is not None
        and (cause.is_count or growth.grown_until_now > _MOSTLY * since)
    ):
        known = np.isfinite(life.memory_bytes)
        at = np.linspace(growth.onset_s, growth.now_s, 4)
        memory = np.interp(at, life.time_s[known], life.memory_bytes[known])
        first, middle, last = np.diff(memory).tolist()
        own = (first, middle, last)
    if growth.requests_per_s is not None and min(growth.requests_per_s) > 0:
        pairs = zip(own, growth.requests_per_s, strict=True)
        first, middle, last = (pace / requests for pace, requests in pairs)
        own = (first, middle, last)
    # The first third has the rubbish of a start in it.
    return own[2] / own[1] if own[1] > 0 else 0.0


def _will_be_full(cause: Cause, holder: Holder, left_bytes: float) -> bool:
    """Whether the holder's bound stops the growth before the limit does.

    A container that was at its bound when it was looked at, and whose memory has grown on by half
    since, is not what bounds it.
    """
    if holder.behaviour != "bounded" or not holder.bound or not holder.length:
        return False
    grown = cause.growth.grown_until_now
    to_come = max(holder.at_bytes, 1.0) * max(holder.bound / holder.length - 1.0, 0.0)
    if grown > 1.5 * (holder.at_bytes + to_come):
        return False
    return holder.at_bytes + to_come - grown < left_bytes


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


def _is_part(cause: Cause, life: LifeSeries, least: float) -> bool:
    """Whether the cause has at least this part in the growth of memory since it began.

    When death is near, the room left is so small that any trifle seems to fill it.
    """
    since = memory_since(life, cause.growth.onset_s)
    if since is None or cause.is_count:
        return True
    return cause.growth.grown_until_now >= least * since

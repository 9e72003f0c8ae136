"""What the same code did in earlier lives, as far as it tells a leak from a plateau.

Assumption: a place whose memory levelled off in an earlier life of the service levels off in this
one, at about the same height; a place that held next to nothing through a life at least as long as
this one, and now grows, has been changed by what was deployed in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stanch.detect.cause import NATIVE, Cause, Earlier, Relation
from stanch.detect.groups import Place, group_by_place
from stanch.detect.rest import unexplained_memory
from stanch.detect.settings import Settings
from stanch.store.series import Floats, LifeSeries

_SETTLED = 0.15
"""A life that gained no more than this share of its highest level in its last third had settled."""

_NEAR = 1.3
"""A plateau may be so much higher in another life: another load, other keys."""

_LITTLE = 0.1
_AS_OLD = 0.8


@dataclass(frozen=True, slots=True)
class _Curve:
    """The level of one thing over an earlier life."""

    time_s: Floats
    level: Floats
    release: str

    @property
    def reach(self) -> float:
        return float(self.level.max()) if self.level.size else 0.0

    @property
    def settled(self) -> bool:
        if self.level.size < 4:
            return False
        since = self.time_s[0] + (self.time_s[-1] - self.time_s[0]) * 2 / 3
        before = float(np.interp(since, self.time_s, self.level))
        return float(self.level[-1]) - before <= _SETTLED * max(self.reach, 1.0)


class Envelope:
    """Earlier lives of a service; made once, asked for each suspect of each running life."""

    def __init__(self, past: Sequence[LifeSeries], settings: Settings) -> None:
        # What died at its limit shows the leak, not what is normal.
        self._past = [one for one in past if not one.ended_near_limit and one.time_s.size >= 4]
        self._settings = settings
        self._rows: dict[int, dict[Place, list[int]]] = {}

    def relation(self, cause: Cause, life: LifeSeries) -> Earlier:
        """How the growth of a cause in a running life relates to the earlier ones."""
        level, age_s = cause.growth.level, float(life.time_s[-1])
        if cause.place == NATIVE:
            # What was there at the start is none of it; the curves are above their lowest too.
            level = min(level, cause.growth.grown_until_now)
        room_for_noise = cause.bound if not cause.is_count else 0.0
        curves = [self._curve(number, cause) for number in range(len(self._past))]
        plateaus = [one for one in curves if one.settled and one.reach > _LITTLE * level]
        highest = max((one.reach for one in plateaus), default=0.0)
        if plateaus and level <= _NEAR * highest + room_for_noise:
            return Earlier("known", len(plateaus), highest, plateaus[-1].release)
        telling = [one for one in curves if one.time_s[-1] >= _AS_OLD * age_s]
        if not telling:
            # What ended before was on the same way: that is no news, and no plateau either.
            alike = [one for one in curves if one.reach > level * one.time_s[-1] / age_s / 2]
            return Earlier("untold", len(alike), max((one.reach for one in alike), default=0.0))
        then = max(float(np.interp(age_s, one.time_s, one.level)) for one in telling)
        then = max(then, highest)
        if level <= 2 * then + room_for_noise:
            return Earlier("untold", len(telling), then)
        relation: Relation = "new" if then <= _LITTLE * level else "steeper"
        if relation == "new" and (before := self._renamed(cause, life, level)) is not None:
            return Earlier("known", 1, before.reach, before.release)
        return Earlier(relation, len(telling), then, telling[-1].release)

    def _renamed(self, cause: Cause, life: LifeSeries, level: float) -> _Curve | None:
        """The plateau of a function that is gone, of the same file or of the same name elsewhere.

        Releases rename and move functions; what is new by name may be what was there all along.
        """
        if cause.is_count or cause.place == NATIVE:
            return None
        now = {group.place for group in group_by_place(life.stacks)}
        for number, past in enumerate(self._past):
            if past.release == life.release:
                continue
            for place, rows in self._places(number).items():
                alike = place.file == cause.place.file or place.function == cause.place.function
                if not alike or place in now:
                    continue
                curve = _Curve(past.time_s, past.live_bytes[rows].sum(axis=0), past.release)
                if curve.settled and level <= _NEAR * curve.reach + cause.bound:
                    return curve
        return None

    def _places(self, number: int) -> dict[Place, list[int]]:
        if number not in self._rows:
            groups = group_by_place(self._past[number].stacks)
            self._rows[number] = {group.place: group.rows for group in groups}
        return self._rows[number]

    def _curve(self, number: int, cause: Cause) -> _Curve:
        life = self._past[number]
        nothing = np.zeros(life.time_s.size)
        if cause.place == NATIVE:
            level = unexplained_memory(life, self._settings)
            known = np.isfinite(level)
            level = level[known] - float(level[known].min()) if known.any() else nothing
            times = life.time_s[known] if known.any() else life.time_s
            return _Curve(times, level, life.release)
        if cause.is_count:
            rows = [
                row
                for row, (kind, stack) in enumerate(
                    zip(life.counts.kinds, life.counts.stacks, strict=True)
                )
                if kind == cause.counted
                and any(group.place in cause.places for group in group_by_place((stack,)))
            ]
            level = life.counts.count[rows].sum(axis=0) if rows else nothing
            return _Curve(life.time_s, level, life.release)
        found = [row for place in cause.places for row in self._places(number).get(place, [])]
        level = life.live_bytes[found].sum(axis=0) if found else nothing
        return _Curve(life.time_s, level, life.release)

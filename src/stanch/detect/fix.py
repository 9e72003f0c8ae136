"""Whether a leak that an earlier release had is gone: the same place, the pace then and now.

Assumption: the load is like it was, or requests are known and the pace is told per request. A life
that has not run long enough to have shown the old leak says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from stanch.detect.blame import short_names
from stanch.detect.cause import NATIVE, Cause
from stanch.detect.finding import Kind
from stanch.detect.groups import Place
from stanch.detect.judge import Judgement
from stanch.detect.wording import amount_text, time_text

State: TypeAlias = Literal["fixed", "still leaking"]

_TIMES_NOISE = 4.0
"""The old pace must have shown by now, so many times beyond the noise and the smallest share."""

_GONE = 0.1
"""A pace below this share of the former one counts as fixed."""


@dataclass(frozen=True, slots=True)
class Fix:
    """What became of a leak of an earlier release.

    share: of the former rate that is left, 0 when there is no growth. release, before: of the
    lives compared, "" when unknown. evidence: in sentences.
    """

    service: str
    kind: Kind
    file: str
    function: str
    state: State
    share: float
    release: str
    before: str
    evidence: tuple[str, ...]


def fixes_of(
    service: str, judgements: Sequence[Judgement], earlier: Sequence[Judgement], floor: float
) -> tuple[Fix, ...]:
    """Compare each running life with the newest life of another release that died of a leak.

    earlier: judged lives that died at their limit, oldest first. floor: the share of the limit
    that growth must have to be told.
    """
    found: dict[tuple[bool, Place], Fix] = {}
    for before in reversed(earlier):
        for cause in before.causes:
            key = (cause.is_count, cause.place)
            if cause.stage != "confirmed" or key in found:
                continue
            told = [
                fix
                for now in judgements
                if (fix := _fix(service, cause, before, now, floor)) is not None
            ]
            if told:
                found[key] = max(told, key=lambda fix: fix.share)
    return tuple(found.values())


def _fix(service: str, cause: Cause, before: Judgement, now: Judgement, floor: float) -> Fix | None:
    release, old_release = now.life.release, before.life.release
    # Without another release there was nothing that could have fixed it.
    if not release or release == old_release or now.room is None:
        return None
    growing = next(
        (
            one
            for one in now.causes
            if one.is_count == cause.is_count and set(one.places) & set(cause.places)
        ),
        None,
    )
    age_s = float(now.life.time_s[-1])
    old, per_request = cause.growth.rate, cause.growth.per_request
    served = _served(now)
    expected = per_request * served if per_request and served else old * age_s
    enough = _TIMES_NOISE * max(
        cause.bound, 0.0 if cause.is_count else floor * now.room.limit_bytes
    )
    if expected < enough:
        return None
    grown = growing.growth.grown_until_now if growing is not None and growing.leaks else 0.0
    share = grown / expected if expected > 0 else 0.0
    state: State = "fixed" if share < _GONE else "still leaking"
    place = cause.place
    names = short_names([place.file])
    then = f"release {old_release}" if old_release else "the life before"
    what = "unexplained memory" if place == NATIVE else place.function
    if state == "fixed":
        said = f"Release {release} has fixed {what}: {amount_text(cause, grown)} in"
    else:
        said = f"Release {release} still leaks in {what}, at {share:.0%} of the former rate:"
        said += f" {amount_text(cause, grown)} in"
    evidence = (
        f"{said} {time_text(age_s)}, where {then} would have kept {amount_text(cause, expected)}.",
    )
    return Fix(
        service=service,
        kind=cause.kind,
        file=names.get(place.file, place.file),
        function=place.function,
        state=state,
        share=min(share, 9.99),
        release=release,
        before=old_release,
        evidence=evidence,
    )


def _served(now: Judgement) -> float | None:
    known = now.life.requests[now.life.requests == now.life.requests]  # NaN is not equal to itself
    return float(known[-1]) if known.size and known[-1] > 0 else None

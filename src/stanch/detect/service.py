"""All replicas of one service judged together: one finding per cause, whoever shows it."""

from collections import Counter
from statistics import median

from stanch.detect.blame import is_native, short_names
from stanch.detect.cause import Cause
from stanch.detect.finding import (
    LEAKS,
    STAGES,
    Finding,
    InstanceVerdict,
    Kind,
    ServiceVerdict,
)
from stanch.detect.groups import Place
from stanch.detect.judge import Judgement, causes_of_death, judge
from stanch.detect.settings import Settings
from stanch.detect.wording import evidence_of, native_text
from stanch.store import Frame
from stanch.store.series import LifeSeries, ServiceSeries

_MOST_INSTANCES = 64
_Shown = tuple[Judgement, Cause]


def judge_service(series: ServiceSeries, settings: Settings | None = None) -> ServiceVerdict:
    """Everything that can be said of a service now. Pure: the same series, the same verdict."""
    chosen = settings or Settings()
    deaths = [causes_of_death(life, chosen) for life in series.past]
    died_of = frozenset[tuple[Kind, Place]]().union(*deaths)
    judgements = [judge(life, chosen, died_of) for life in series.lives]
    # What a life died of stays said while the next one is too young to show it.
    recent = [judge(life, chosen, died_of) for life in series.past if life.ended_near_limit]
    findings = _findings(series.service, judgements, recent, deaths, chosen)
    return ServiceVerdict(
        service=series.service,
        findings=tuple(sorted(findings, key=_gravity)),
        instances=tuple(_instance(judgement) for judgement in judgements),
    )


def _gravity(finding: Finding) -> tuple[bool, int, float]:
    return (
        finding.kind not in LEAKS,
        -STAGES.index(finding.stage),
        -finding.grown_bytes,
    )


def _findings(
    service: str,
    judgements: list[Judgement],
    recent: list[Judgement],
    deaths: list[frozenset[tuple[Kind, Place]]],
    settings: Settings,
) -> list[Finding]:
    shown: dict[tuple[bool, Place], list[_Shown]] = {}
    for judgement in judgements:
        for cause in judgement.causes:
            if _is_worth_saying(cause, judgement, settings):
                shown.setdefault((cause.is_count, cause.place), []).append((judgement, cause))
    for judgement in recent:
        for cause in judgement.causes:
            key = (cause.is_count, cause.place)
            if cause.stage == "confirmed" and key not in shown:
                shown[key] = [(judgement, cause)]
    names = short_names(
        {frame.file for group in shown.values() for _, cause in group for frame in cause.stack}
        | {place.file for _, place in shown}
    )
    died = Counter(place for causes in deaths for _, place in causes)
    findings = []
    for key, group in shown.items():
        if not _is_said_by_task(key, shown):
            findings.append(_finding(service, group, names, died[key[1]]))
    return findings


def _is_worth_saying(cause: Cause, judgement: Judgement, settings: Settings) -> bool:
    if cause.kind in LEAKS:
        return cause.leaks
    room = judgement.room
    floor = settings.explained * room.limit_bytes if room and not cause.is_count else 0.0
    return cause.growth.level > max(cause.bound, floor)


def _is_said_by_task(
    key: tuple[bool, Place], shown: dict[tuple[bool, Place], list[_Shown]]
) -> bool:
    """Whether a heap leak is that of a count leak in the same function, which says more."""
    is_count, place = key
    counted = shown.get((True, place), []) if not is_count else []
    return any(cause.stage != "suspect" for _, cause in counted)


def _finding(service: str, group: list[_Shown], names: dict[str, str], deaths: int) -> Finding:
    graves = sorted(group, key=lambda one: (STAGES.index(one[1].stage), one[1].growth.grown))
    judgement, cause = graves[-1]
    leaking = [one for one in group if one[1].kind == cause.kind]
    rates = sorted(_bytes_per_second(one) for one in leaking)
    dying = [
        (one.seconds_to_death, one.life.instance)
        for one, _ in leaking
        if one.seconds_to_death is not None and cause.kind in LEAKS
    ]
    soonest = min(dying, key=lambda death: death[0][1], default=(None, ""))
    instances = tuple(sorted(one.life.instance for one, _ in leaking))
    return Finding(
        service=service,
        kind=cause.kind,
        stage=cause.stage,
        file=names.get(cause.frame.file, cause.frame.file),
        line=cause.frame.line,
        function=cause.place.function,
        stack=tuple(_frame_text(frame, names) for frame in cause.stack),
        rate_bytes_per_second=median(rates),
        rates=(rates[0], median(rates), rates[-1]),
        rate_bytes_per_request=None if cause.is_count else cause.growth.per_request,
        rate_count_per_second=cause.growth.rate if cause.is_count else None,
        grown_bytes=sum(_grown_bytes(one) for one in leaking),
        confidence=confidence_of(cause),
        seconds_to_death=soonest[0],
        first_to_die=soonest[1],
        instances=instances[:_MOST_INSTANCES],
        evidence=_evidence(judgement, cause, len(leaking), deaths),
        taken_by=native_text(cause.taken_by) if cause.taken_by else "",
    )


def _frame_text(frame: Frame, names: dict[str, str]) -> str:
    file = names.get(frame.file, frame.file)
    return (
        f"{file} {frame.function}" if is_native(frame) else f"{file}:{frame.line} {frame.function}"
    )


def _bytes_per_second(one: _Shown) -> float:
    """Of a cause; for a count, of the memory that grows with it."""
    judgement, cause = one
    if not cause.is_count:
        return cause.growth.rate
    return max(judgement.slope.mid, 0.0) if judgement.slope is not None else 0.0


def _grown_bytes(one: _Shown) -> float:
    judgement, cause = one
    if not cause.is_count:
        return cause.growth.grown_until_now
    room = judgement.room
    return cause.share / (1 - cause.share) * room.left_bytes if room and cause.share < 1 else 0.0


def _evidence(judgement: Judgement, cause: Cause, instances: int, deaths: int) -> tuple[str, ...]:
    sentences = list(evidence_of(cause, judgement))
    if len(cause.places) > 1:
        others = sorted(place.function for place in cause.places if place != cause.place)
        sentences.append(f"The growth of {', '.join(others)} flows through the same calls.")
    if instances > 1:
        sentences.append(f"{instances} instances show it; the numbers are of the clearest.")
    if deaths:
        lives = "One earlier life" if deaths == 1 else f"{deaths} earlier lives"
        sentences.append(f"{lives} of the service died at the limit while this grew.")
    return tuple(sentences)


def confidence_of(cause: Cause) -> float:
    """How far the evidence goes: the product of four shares, at most 0.99; not a probability.

    Growth against the noise bound (full at twice), newest against middle third, what is kept,
    and the room taken (full at half, or when an earlier life died of it).
    """
    growth = cause.growth
    beyond_noise = min(1.0, growth.grown / (2 * cause.bound)) if cause.bound > 0 else 1.0
    pace = growth.rates[2] / growth.rates[1] if growth.rates[1] > 0 else 1.0
    if growth.requests_per_s is not None and min(growth.requests_per_s) > 0:
        pace = max(pace, pace * growth.requests_per_s[1] / growth.requests_per_s[2])
    room = 1.0 if cause.repeats else min(1.0, cause.share / 0.5)
    product = beyond_noise * min(max(pace, 0.0), 1.0) * max(growth.kept, 0.0) * room
    return round(min(0.99, max(0.0, product)), 2)


def _instance(judgement: Judgement) -> InstanceVerdict:
    life, room, slope = judgement.life, judgement.room, judgement.slope
    return InstanceVerdict(
        service=life.service,
        instance=life.instance,
        verdict=_verdict(judgement),
        memory_bytes=room.memory_bytes if room else None,
        limit_bytes=life.limit_bytes,
        growth_bytes_per_second=slope.mid if slope else None,
        seconds_to_death=judgement.seconds_to_death,
    )


def _verdict(judgement: Judgement) -> str:
    life: LifeSeries = judgement.life
    if life.time_s.size < 4:
        return "starting"
    leaks = [cause for cause in judgement.causes if cause.kind in LEAKS and cause.leaks]
    if leaks:
        gravest = max(leaks, key=lambda cause: (STAGES.index(cause.stage), cause.share))
        return gravest.kind if gravest.stage == "confirmed" else f"{gravest.stage} {gravest.kind}"
    growing = judgement.slope is not None and judgement.slope.low > 0
    if not growing:
        return "steady"
    named = [cause for cause in judgement.causes if cause.kind not in LEAKS]
    if named:
        return max(named, key=lambda cause: cause.growth.grown).kind
    return "growing"

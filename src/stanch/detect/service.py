"""All replicas of one service judged together: one finding per cause, whoever shows it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from statistics import median
from types import MappingProxyType

from stanch.detect.blame import is_native, short_names
from stanch.detect.cause import Cause
from stanch.detect.confidence import probability
from stanch.detect.envelope import Envelope
from stanch.detect.finding import (
    LEAKS,
    STAGES,
    Finding,
    InstanceVerdict,
    Kind,
)
from stanch.detect.fix import fixes_of
from stanch.detect.groups import Place
from stanch.detect.holder import Holder, Inspection
from stanch.detect.judge import Judgement, causes_of_death, judge
from stanch.detect.kinship import one_leak_each
from stanch.detect.settings import Settings
from stanch.detect.stages import Known
from stanch.detect.verdict import ServiceVerdict
from stanch.detect.wording import evidence_of, kin_sentences, native_text
from stanch.store import Frame
from stanch.store.series import LifeSeries, ServiceSeries

_MOST_INSTANCES = 64
_Shown = tuple[Judgement, Cause]


def judge_service(
    series: ServiceSeries,
    settings: Settings | None = None,
    holders: Mapping[Place, Holder] = MappingProxyType({}),
) -> ServiceVerdict:
    """Everything that can be said of a service now. Pure: the same series, the same verdict.

    holders: what retention searches found that the verdict's `inspections` had asked for.
    """
    chosen = settings or Settings()
    judgements, recent, deaths = judgements_of(series, chosen, holders)
    findings = _findings(series.service, judgements, recent, deaths, chosen)
    return ServiceVerdict(
        service=series.service,
        findings=tuple(sorted(findings, key=_gravity)),
        instances=tuple(_instance(judgement) for judgement in judgements),
        inspections=tuple(_inspections(judgements, holders, chosen)),
        fixes=fixes_of(series.service, judgements, recent, chosen.material),
    )


def judgements_of(
    series: ServiceSeries, settings: Settings, holders: Mapping[Place, Holder]
) -> tuple[list[Judgement], list[Judgement], list[frozenset[tuple[Kind, Place]]]]:
    """The running lives and those that died at their limit, judged, and what each one died of."""
    deaths = [causes_of_death(life, settings) for life in series.past]
    known = Known(
        died_of=frozenset[tuple[Kind, Place]]().union(*deaths),
        envelope=Envelope(series.past, settings) if series.past else None,
        holders=tuple(holders.items()),
    )
    judgements = [judge(life, settings, known) for life in series.lives]
    # What a life died of stays said while the next one is too young to show it.
    recent = [judge(life, settings, known) for life in series.past if life.ended_near_limit]
    return judgements, recent, deaths


def _inspections(
    judgements: list[Judgement], holders: Mapping[Place, Holder], settings: Settings
) -> Iterator[Inspection]:
    """One retention search per suspect, on the replica that shows it most; again as it doubles."""
    most: dict[Place, tuple[float, Inspection]] = {}
    for judgement in judgements:
        for cause in judgement.causes:
            if not (cause.leaks and cause.kind == "leak" and judgement.life.births is not None):
                continue
            before = next((holders[place] for place in cause.places if place in holders), None)
            grown = cause.growth.grown_until_now
            if cause.share < settings.inspected or (before and grown < 2 * before.at_bytes):
                continue
            if cause.share > most.get(cause.place, (0.0, None))[0]:
                inspection = Inspection(judgement.life.instance, cause.place, grown)
                most[cause.place] = (cause.share, inspection)
    yield from (inspection for _, inspection in most.values())


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
    graves = {key: _gravest(group)[1] for key, group in shown.items()}
    return [
        _finding(service, shown[first], [graves[key] for key in others], names, died[first[1]])
        for first, *others in one_leak_each(graves)
    ]


def _is_worth_saying(cause: Cause, judgement: Judgement, settings: Settings) -> bool:
    if cause.kind in LEAKS:
        return cause.leaks
    room = judgement.room
    floor = settings.explained * room.limit_bytes if room and not cause.is_count else 0.0
    return cause.growth.level > max(cause.bound, floor)


def _gravest(group: list[_Shown]) -> _Shown:
    return max(group, key=lambda one: (STAGES.index(one[1].stage), one[1].growth.grown))


def _finding(
    service: str, group: list[_Shown], kin: list[Cause], names: dict[str, str], deaths: int
) -> Finding:
    judgement, cause = _gravest(group)
    stage = max((cause.stage, *(one.stage for one in kin)), key=STAGES.index)
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
        stage=stage,
        file=names.get(cause.frame.file, cause.frame.file),
        line=cause.frame.line,
        function=cause.place.function,
        stack=tuple(_frame_text(frame, names) for frame in cause.stack),
        rate_bytes_per_second=median(rates),
        rates=(rates[0], median(rates), rates[-1]),
        rate_bytes_per_request=None if cause.is_count else cause.growth.per_request,
        rate_count_per_second=cause.growth.rate if cause.is_count else None,
        grown_bytes=sum(_grown_bytes(one) for one in leaking),
        confidence=probability(cause),
        seconds_to_death=soonest[0],
        first_to_die=soonest[1],
        instances=instances[:_MOST_INSTANCES],
        evidence=_evidence(judgement, cause, kin, len(leaking), deaths),
        holder=next((one.holder.name for one in (cause, *kin) if one.holder is not None), ""),
        taken_by=native_text(cause.taken_by) if cause.taken_by else "",
        with_it=tuple(
            (one.is_count, names.get(one.frame.file, one.frame.file), one.place.function)
            for one in kin
        ),
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


def _evidence(
    judgement: Judgement, cause: Cause, kin: list[Cause], instances: int, deaths: int
) -> tuple[str, ...]:
    sentences = list(evidence_of(cause, judgement))
    if len(cause.places) > 1:
        others = sorted(place.function for place in cause.places if place != cause.place)
        sentences.append(f"The growth of {', '.join(others)} flows through the same calls.")
    sentences += kin_sentences(cause, kin)
    if instances > 1:
        sentences.append(f"{instances} instances show it; the numbers are of the clearest.")
    if deaths:
        lives = "One earlier life" if deaths == 1 else f"{deaths} earlier lives"
        sentences.append(f"{lives} of the service died at the limit while this grew.")
    return tuple(sentences)


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

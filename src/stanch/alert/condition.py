"""What an alarm can be about: something that is wrong with a service at one moment."""

import hashlib
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace

from stanch.detect import LEAKS, Finding, Stage, finding_facts, finding_title

LEAK = "StanchLeak"
RECYCLING_STOPPED = "StanchRecyclingStopped"


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is wrong with a service, not with one of its replicas.

    fingerprint: the same for the same cause, over restarts of anything; two causes differ.
    name: the kind of alarm, as Alertmanager's `alertname`. cause: where or what, without numbers
    that change. kind: of a leak, else "". rate: how bad it is, in bytes per second (None: not in
    numbers). death_unix: when the first instance is likely to die of it. file, is_count: of a leak:
    where it is, and whether tasks, threads or goroutines are counted rather than bytes. stack: of
    a leak's causes on the way to it. kin: fingerprints of what is of the same leak, and not said
    apart.
    """

    fingerprint: str
    name: str
    service: str
    stage: Stage
    cause: str
    title: str
    text: str
    kind: str = ""
    rate: float | None = None
    death_unix: float | None = None
    first_to_die: str = ""
    instances: tuple[str, ...] = ()
    file: str = ""
    is_count: bool = False
    stack: frozenset[str] = frozenset()
    kin: frozenset[str] = frozenset()


def fingerprint_of(*parts: object) -> str:
    """Return sixteen hexadecimal digits that stand for a cause."""
    text = "\0".join(map(str, parts))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def condition_of(finding: Finding, now_unix: float) -> Condition | None:
    """Return what a finding is to alarms; None for growth that is no leak."""
    if finding.kind not in LEAKS:
        return None
    death = finding.seconds_to_death
    cause = f"{finding.file} {finding.function}" if finding.file else "native memory"
    return Condition(
        fingerprint=fingerprint_of(LEAK, *finding.key),
        name=LEAK,
        service=finding.service,
        stage=finding.stage,
        cause=cause if finding.rate_count_per_second is None else f"{cause} ({finding.kind})",
        title=finding_title(finding),
        text="\n".join((f"{finding_facts(finding)}.", *finding.evidence)),
        kind=finding.kind,
        rate=finding.rate_bytes_per_second,
        death_unix=None if death is None else now_unix + death[1],
        first_to_die=finding.first_to_die,
        instances=finding.instances,
        file=finding.file,
        is_count=finding.rate_count_per_second is not None,
        stack=frozenset(map(_without_line, finding.stack)),
        kin=frozenset(
            fingerprint_of(LEAK, finding.service, not is_count, file, function)
            for is_count, file, function in finding.with_it
        ),
    )


def without_doubles(conditions: Iterable[Condition], told: Container[str] = ()) -> list[Condition]:
    """Return the conditions, with those that are one leak seen more than once as one.

    Tasks that are never done keep whatever they refer to, wherever it was allocated, and a request
    that leaks keeps more than one thing. So leaks of a service are one when one is of tasks,
    threads or goroutines and the other of bytes, or when the function of one is on the stack of
    the other. It goes on under the one that was told (fingerprints in `told`, of kin too), else
    under the count, else under the first; the others are said in its text, and told when they go
    on alone.
    """
    groups: list[list[Condition]] = []
    for condition in conditions:
        joined = [group for group in groups if any(_are_twins(each, condition) for each in group)]
        groups = [group for group in groups if group not in joined]
        groups.append([*(each for group in joined for each in group), condition])
    return [_as_one(group, told) for group in groups]


def _as_one(group: list[Condition], told: Container[str]) -> Condition:
    first, *others = sorted(
        group, key=lambda each: (each.fingerprint not in told, not each.is_count)
    )
    if first.fingerprint not in told:
        as_told = sorted(kin for each in group for kin in each.kin if kin in told)
        first = replace(first, fingerprint=next(iter(as_told), first.fingerprint))
    if not others:
        return first
    also = "; ".join(other.title for other in others)
    return replace(first, text=f"{first.text}\nWith it: {also}.")


def _are_twins(one: Condition, other: Condition) -> bool:
    if one.service != other.service or not (one.file and other.file):
        return False
    if one.is_count is not other.is_count:
        return True
    return one.cause in other.stack or other.cause in one.stack


def _without_line(frame: str) -> str:
    """Turn "file:line function", as it stands in a finding's stack, into "file function"."""
    place, _, function = frame.partition(" ")
    return f"{place.rpartition(':')[0] or place} {function}"

"""What an alarm can be about: something that is wrong with a service at one moment."""

import hashlib
from dataclasses import dataclass

from stanch.detect import LEAKS, Finding, Stage, finding_facts, finding_title

LEAK = "StanchLeak"
RECYCLING_STOPPED = "StanchRecyclingStopped"


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is wrong with a service, not with one of its replicas.

    fingerprint: the same for the same cause, over restarts of anything; two causes differ.
    name: the kind of alarm, as Alertmanager's `alertname`. cause: where or what, without numbers
    that change. kind: of a leak, else "". rate: how bad it is, in bytes per second (None: not in
    numbers). death_unix: when the first instance is likely to die of it.
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
    )

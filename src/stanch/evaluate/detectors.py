"""What the benchmark asks of a detector, and Stanch's own answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from stanch.detect import Finding, Holder, Place, Settings, holder_of, judge_service
from stanch.store.series import ServiceSeries

PROCESS = "(the process)"
"""What a rule accuses that sees memory only, not which code holds it."""


@dataclass(frozen=True, slots=True)
class Accusation:
    """One thing a detector says leaks.

    where: the function, "" for native memory, PROCESS when the rule does not say. rate: bytes per
    second, None when not told. seconds_to_death: soonest, likely, latest; None without a forecast.
    probability: that it is a leak, None when not told.
    """

    where: str
    rate: float | None = None
    seconds_to_death: tuple[float, float, float] | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a detector says at one look.

    accused: what would raise an alarm. suspected: what it only shows. classes: for each function
    it speaks of, the kind it gives it.
    """

    accused: tuple[Accusation, ...] = ()
    suspected: tuple[Accusation, ...] = ()
    classes: tuple[tuple[str, str], ...] = ()


Inspect: TypeAlias = Callable[[str], Mapping[str, Any] | None]


class Detector(Protocol):
    """Judges a service from its series alone. One is made for each episode."""

    name: str

    def judge(self, series: ServiceSeries, inspect: Inspect) -> Opinion:
        """Judge the service as of its last look.

        inspect: what keeps the memory of a function, as the agent's retention search tells it;
        None where nobody can tell.
        """


class Stanch:
    """Stanch's detection as the watcher runs it: an accusation is a confirmed leak."""

    name = "stanch"

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self.holders: dict[Place, Holder] = {}

    def judge(self, series: ServiceSeries, inspect: Inspect) -> Opinion:
        """Judge with `judge_service`, and search where the verdict asks for it, for next time."""
        verdict = judge_service(series, self._settings, self.holders)
        for asked in verdict.inspections:
            if (answer := inspect(asked.place.function)) is not None:
                self.holders[asked.place] = holder_of(answer, asked.grown_bytes)
        findings = verdict.findings
        leaks = [one for one in findings if one.kind.endswith("leak")]
        return Opinion(
            accused=tuple(_accusation(one) for one in leaks if one.is_confirmed_leak),
            suspected=tuple(_accusation(one) for one in leaks if not one.is_confirmed_leak),
            classes=tuple((one.function, one.kind) for one in findings),
        )


def _accusation(finding: Finding) -> Accusation:
    return Accusation(
        where=finding.function,
        rate=finding.rate_bytes_per_second,
        seconds_to_death=finding.seconds_to_death,
        probability=finding.confidence,
    )

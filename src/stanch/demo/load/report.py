"""What the load generator reports, and the sums over many reports. Pure values."""

import json
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Report:
    """One period of the generator: requests answered and failed by service, latencies in ms.

    `elapsed_s` is the time since the generator began, at the end of the period. Only answered
    requests have a latency.
    """

    elapsed_s: float = 0.0
    answered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)


def to_line(report: Report) -> str:
    """Return the report as one line of JSON."""
    return json.dumps({name: getattr(report, name) for name in Report.__slots__})


def from_line(line: str) -> Report:
    """Read what `to_line` wrote. ValueError, KeyError or TypeError on anything else."""
    raw = json.loads(line)
    return Report(
        float(raw["elapsed_s"]),
        Counter(raw["answered"]),
        Counter(raw["failed"]),
        list(raw["latencies_ms"]),
    )


@dataclass(frozen=True, slots=True)
class LoadMeasure:
    """The load over `seconds`: requests answered and failed by service, latencies in ms."""

    seconds: float
    answered: Mapping[str, int]
    failed: Mapping[str, int]
    p50_ms: float
    p99_ms: float
    max_ms: float

    @property
    def answered_count(self) -> int:
        """Requests answered, over all services."""
        return sum(self.answered.values())

    @property
    def failed_count(self) -> int:
        """Requests failed, over all services."""
        return sum(self.failed.values())

    @property
    def per_minute(self) -> float:
        """Requests a minute, answered or failed; 0 before the first report."""
        if self.seconds <= 0:
            return 0.0
        return (self.answered_count + self.failed_count) * 60.0 / self.seconds


class Tally:
    """The sum of reports: 4 bytes for each request, so 40 minutes at 10,000 a minute are 1.6 MB."""

    def __init__(self) -> None:
        self._answered: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._latencies_ms = array("f")

    def add(self, report: Report) -> None:
        """Count one report in."""
        self._answered.update(report.answered)
        self._failed.update(report.failed)
        self._latencies_ms.extend(report.latencies_ms)

    def measure(self, seconds: float) -> LoadMeasure:
        """Return the sum, as the load over `seconds`."""
        ordered = sorted(self._latencies_ms)
        return LoadMeasure(
            seconds=seconds,
            answered=dict(self._answered),
            failed=dict(self._failed),
            p50_ms=percentile(ordered, 0.50),
            p99_ms=percentile(ordered, 0.99),
            max_ms=ordered[-1] if ordered else 0.0,
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the ordered values lie; 0.0 for none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

"""The Prometheus text format, version 0.0.4, as far as memory needs it.

Reads samples; types, help, exemplars and time stamps are passed over. Bounded: too many lines are
a FetchError; a line that is too long or makes no sense is skipped and counted.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import math
import re
from dataclasses import dataclass, field

from stanch.collect.errors import FetchError

_MAX_LINES = 50_000
_MAX_LINE = 4_096
_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{(.*)\})?\s+(\S+)(?:\s+\S+)?\s*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass(frozen=True, slots=True)
class Metric:
    """One sample of one series."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Exposition:
    """The samples of one scrape by metric name, and how many lines were not understood."""

    metrics: dict[str, list[Metric]] = field(default_factory=dict)
    skipped: int = 0

    def total(self, name: str, pid: str | None = None) -> float | None:
        """The sum of a metric over its series, of one pid when given; None without a series."""
        values = [
            metric.value
            for metric in self.metrics.get(name, ())
            if math.isfinite(metric.value) and (pid is None or metric.labels.get("pid", pid) == pid)
        ]
        return sum(values) if values else None

    def largest(self, name: str) -> float | None:
        """The largest value of a metric over its series; None without a series."""
        values = [
            metric.value for metric in self.metrics.get(name, ()) if math.isfinite(metric.value)
        ]
        return max(values, default=None)

    def label(self, name: str, label: str) -> str:
        """The value of a label of a metric's first series, "" without."""
        found = self.metrics.get(name)
        return found[0].labels.get(label, "") if found else ""


def parse_exposition(data: bytes) -> Exposition:
    """Read the body of a /metrics answer. Raises FetchError when it is something else."""
    text = data.decode("utf-8", "replace")
    if text.lstrip()[:1] == "<":
        raise FetchError("/metrics answered with HTML; expected the Prometheus text format")
    metrics: dict[str, list[Metric]] = {}
    skipped = lines = 0
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        lines += 1
        if lines > _MAX_LINES:
            raise FetchError(f"/metrics has more than {_MAX_LINES:,} series; expected fewer")
        match = _LINE.fullmatch(line) if len(line) <= _MAX_LINE else None
        value = _number(match.group(3)) if match else None
        if match is None or value is None:
            skipped += 1
            continue
        metrics.setdefault(match.group(1), []).append(Metric(_labels(match.group(2) or ""), value))
    if skipped and not metrics:
        raise FetchError("/metrics answered with something else than the Prometheus text format")
    return Exposition(metrics, skipped)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _labels(text: str) -> dict[str, str]:
    return {
        name: re.sub(r"\\.", lambda escape: _ESCAPES.get(escape.group(), escape.group()), value)
        for name, value in _LABEL.findall(text)
    }

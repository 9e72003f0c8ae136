"""From episodes to numbers: recall, false alarms with exact bounds, lines, rates, forecasts."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from stanch.evaluate.play import Result, counted_forecasts
from stanch.evaluate.spec import BANDS

SHARES = (0.05, 0.10, 0.25, 0.50, 1.0)
"""Shares of the time to death at which recall is told."""


def poisson_upper(count: int, confidence: float = 0.95) -> float:
    """The exact one-sided upper bound of a Poisson mean of which `count` events were seen.

    Source: Garwood, "Fiducial limits for the Poisson distribution", Biometrika 28 (1936): the
    mean at which seeing so few has probability 1 - confidence.
    """
    low, high = float(count), count + 10.0 + 10.0 * math.sqrt(count + 1.0)
    for _ in range(100):
        mean = (low + high) / 2
        term = total = math.exp(-mean)
        for number in range(1, count + 1):
            term *= mean / number
            total += term
        low, high = (mean, high) if total > 1 - confidence else (low, mean)
    return high


def summary(results: Sequence[Result], name: str) -> dict[str, Any]:
    """All metrics of one detector, as JSON-able values; None where nothing was there to measure."""
    leaks = [one for one in results if one.truth.leaks and one.died_s is not None]
    healthy = [one for one in results if not one.truth.leaks]
    days = sum(one.watched_s for one in healthy) / 86400.0
    alarms = sum(len(one.said[name].wrong) for one in healthy)
    right = [one for one in leaks if math.isfinite(one.said[name].right_s)]
    beside = sum(len(one.said[name].wrong) for one in leaks)
    return {
        "recall": recall(leaks, name),
        "recall_by_band": {
            band: recall([one for one in leaks if one.truth.band == band], name) for band in BANDS
        },
        "recall_by_kind": _grouped(leaks, name, "kind"),
        "recall_by_history": _grouped(leaks, name, "history"),
        "leaks": len(leaks),
        "healthy_days": days,
        "false_alarms": alarms,
        "false_alarms_per_day": alarms / days if days else None,
        "false_alarms_per_day_upper95": poisson_upper(alarms) / days if days else None,
        "false_alarms_by_kind": dict(
            Counter(one.truth.kind for one in healthy for _ in one.said[name].wrong)
        ),
        "false_beside_leaks": beside,
        "precision": _ratio(len(right), len(right) + beside + alarms),
        "line_credit": _mean(one.said[name].credit for one in right),
        "rate_error": _median(
            abs(one.said[name].rate / one.truth.rate - 1)  # type: ignore[operator]
            for one in right
            if one.said[name].rate is not None
        ),
        "forecast": _forecast(leaks, name),
        "brier": _brier(results, name),
        "confusion": _confusion(results, name),
    }


def recall(leaks: Sequence[Result], name: str) -> dict[str, float] | None:
    """The share of leaks accused by each share of the time to death."""
    if not leaks:
        return None
    shares = np.array([one.share(one.said[name].right_s) for one in leaks])
    return {f"{share:.0%}": float(np.mean(shares <= share)) for share in SHARES}


def _grouped(leaks: Sequence[Result], name: str, by: str) -> dict[str, Any]:
    keys = dict.fromkeys(getattr(one.truth, by) for one in leaks)
    return {
        key: recall([one for one in leaks if getattr(one.truth, by) == key], name) for key in keys
    }


def _forecast(leaks: Sequence[Result], name: str) -> dict[str, float] | None:
    """Coverage and width of the interval: each episode counts once, with the mean of its looks."""
    covered, widths, errors = [], [], []
    for one in leaks:
        told = counted_forecasts(one, one.said[name])
        if told:
            covered.append(np.mean([low <= truth <= high for truth, low, _, high in told]))
            widths.append(np.median([(high - low) / truth for truth, low, _, high in told]))
            errors.append(np.median([abs(mid / truth - 1) for truth, _, mid, _ in told]))
    if not covered:
        return None
    return {
        "episodes": len(covered),
        "coverage": float(np.mean(covered)),
        "median_width": float(np.median(widths)),
        "median_error": float(np.median(errors)),
    }


def _brier(results: Sequence[Result], name: str) -> dict[str, Any] | None:
    """Mean squared error of the probabilities told, each episode counting once; and by tenths."""
    scores, tenths = [], [[0.0, 0.0, 0.0] for _ in range(10)]
    for one in results:
        trials = one.said[name].trials
        if trials:
            scores.append(np.mean([(told - true) ** 2 for told, true in trials]))
        for told, true in trials:
            bin_ = tenths[min(9, int(told * 10))]
            bin_[0] += 1 / len(trials)
            bin_[1] += told / len(trials)
            bin_[2] += true / len(trials)
    if not scores:
        return None
    reliability = [
        {"episodes": weight, "told": told / weight, "true": true / weight}
        for weight, told, true in tenths
        if weight > 0
    ]
    return {"score": float(np.mean(scores)), "reliability": reliability}


def _confusion(results: Sequence[Result], name: str) -> dict[str, Any]:
    """For each kind of truth, what it was called last, and the share called rightly."""
    table: dict[str, Any] = {}
    for kind in dict.fromkeys((one.truth.leaks, one.truth.kind) for one in results):
        of_kind = [one for one in results if (one.truth.leaks, one.truth.kind) == kind]
        said = Counter(one.said[name].kind for one in of_kind)
        fine = sum(
            one.said[name].kind in one.truth.classes
            or (not one.truth.leaks and one.said[name].kind == "nothing")
            for one in of_kind
        )
        label = f"{'leak' if kind[0] else 'healthy'}: {kind[1]}"
        table[label] = {"called": dict(said), "right": fine / len(of_kind)}
    return table


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return float(np.mean(known)) if known else None


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return float(np.median(known)) if known else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None

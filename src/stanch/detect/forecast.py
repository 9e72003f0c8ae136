"""When a process will reach its limit, if it goes on as it does.

Assumption: memory goes on in a straight line. The slope is taken over the newer half of the
growth and over the whole of it, by least squares; its spread is that between both and two standard
errors, widened for the correlation of neighbouring residuals (the usual AR(1) factor).

The interval is conformal: the spread, and a floor for lines that are straight until they bend, is
multiplied by a factor such that in episodes of known truth the interval held the time of death in
nine of ten (`python -m eval.calibrate`; normalised split conformal prediction, as in Lei, G'Sell,
Rinaldo, Tibshirani and Wasserman, "Distribution-free predictive inference for regression", JASA 113
(2018)). It holds as far as a service is like those; docs/evaluation.md has the coverage elsewhere.
"""

import math
from dataclasses import dataclass

from stanch.store.series import Floats

FACTOR = 2.76
"""By how much the spread is multiplied, on the logarithm of the time left."""

_FLOOR = 0.03
"""Relative spread of a slope that looks perfectly straight."""


@dataclass(frozen=True, slots=True)
class Slope:
    """Bytes per second: a low, a likely and a high estimate."""

    low: float
    mid: float
    high: float


def memory_slope(time_s: Floats, memory: Floats, since_s: float) -> Slope | None:
    """The slope of memory since a time; None with fewer than four known looks."""
    known = (memory == memory) & (time_s >= since_s)  # NaN is not equal to itself
    times, values = time_s[known], memory[known]
    if times.size < 4:
        return None
    half = times >= times[0] + (times[-1] - times[0]) / 2
    whole, whole_error = _fit(times, values)
    mid, error = _fit(times[half], values[half]) if half.sum() >= 4 else (whole, whole_error)
    return Slope(min(mid, whole) - 2 * error, mid, max(mid, whole) + 2 * error)


def time_to_limit(
    slope: Slope, memory_bytes: float, limit_bytes: float, horizon_s: float
) -> tuple[float, float, float] | None:
    """Seconds until memory is at the limit: soonest, likely, latest (cut at the horizon).

    None when memory does not grow or would not be there within the horizon.
    """
    room = max(limit_bytes - memory_bytes, 0.0)
    if slope.mid <= 0 or room > slope.mid * horizon_s:
        return None
    spread = FACTOR * (_FLOOR + (slope.high - slope.low) / (2 * slope.mid))
    likely, most = room / slope.mid, math.exp(min(spread, 5.0))
    return likely / most, likely, min(likely * most, horizon_s)


def _fit(times: Floats, values: Floats) -> tuple[float, float]:
    """Slope and its standard error by least squares."""
    centred = times - times.mean()
    spread = float((centred**2).sum())
    if spread <= 0:
        return 0.0, 0.0
    slope = float((centred * (values - values.mean())).sum()) / spread
    residuals = values - values.mean() - slope * centred
    power = float((residuals**2).sum())
    if power <= 0 or times.size < 4:
        return slope, 0.0
    follow = float((residuals[1:] * residuals[:-1]).sum()) / power
    follow = min(max(follow, 0.0), 0.9)
    error = math.sqrt(power / (times.size - 2) / spread * (1 + follow) / (1 - follow))
    return slope, error

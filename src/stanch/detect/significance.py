"""How large a sampled growth must be before noise does not explain it, however often one looks.

Assumption: without growth, births and deaths of sampled blocks balance, so their difference is a
martingale whose variance is the sum of the squared weights of all births and deaths.
Source: Robbins' normal mixture, a bound that holds at all times at once, as in Howard, Ramdas,
McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of
Statistics 49 (2021), section 3.2: P(exists t: |S_t| >= bound(V_t)) <= alpha.
"""

import math

import numpy as np

from stanch.store.series import Floats

_TUNED_FOR_SAMPLES = 30.0
"""The bound is tightest when about so many samples have come and gone."""


def weight_variance(object_bytes: Floats, period_bytes: float) -> Floats:
    """Variance of the estimate per byte of truth, in bytes, for objects of this mean size.

    A block of s bytes is sampled with p = 1 - exp(-s / period) and counts s / p, so its variance
    is s^2 (1 - p) / p: per byte nearly the period for small blocks, nothing for large ones.
    Unknown sizes (NaN) count as small.
    """
    size = np.where(np.isfinite(object_bytes) & (object_bytes > 0), object_bytes, 1.0)
    missed = np.exp(-size / period_bytes)
    return np.asarray(size * missed / -np.expm1(-size / period_bytes), dtype=np.float64)


def noise_bound(variance: float, period_bytes: float, alpha: float) -> float:
    """The sum of noise that is not passed at any time, but with probability alpha; in bytes."""
    rho = _TUNED_FOR_SAMPLES * period_bytes**2
    total = max(variance, 0.0) + rho  # a target that tells less than nothing has no noise
    return math.sqrt(total * math.log(total / (rho * alpha**2)))

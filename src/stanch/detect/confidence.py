"""The probability that what looks like a leak is one, as it came out in episodes of known truth.

A logistic regression on what the evidence says. Its weights were fitted by `python -m
eval.calibrate` on the simulated services of `stanch evaluate` with the tuning seed;
docs/evaluation.md tells how well it holds on other seeds. Assumption: leaks and look-alikes are
mixed as there, leaks in about half of the services; where leaks are rarer it says too much.
"""

import math

from stanch.detect.cause import Cause

_WEIGHTS: tuple[tuple[str, float], ...] = (
    ("always", -0.12),
    ("share", 1.21),
    ("beyond noise", 1.07),
    ("pace", 0.35),
    ("kept", -0.08),
    ("unbounded", 0.62),
    ("held for good", 1.64),
    ("may let go", -0.55),
    ("bounded", -2.51),
    ("known", -3.10),
    ("changed", 0.75),
    ("repeats", 1.64),
    ("no line", 0.61),
)


def features(cause: Cause) -> tuple[float, ...]:
    """What the evidence says, as numbers of the order of one; the order is that of the weights."""
    growth = cause.growth
    beyond = growth.grown / cause.bound if cause.bound > 0 else math.inf
    pace = growth.rates[2] / growth.rates[1] if growth.rates[1] > 0 else 1.0
    held = cause.holder.behaviour if cause.holder is not None else "unknown"
    return (
        1.0,
        _between(math.log(max(cause.share, 1e-3) / 0.37), -4.0, 1.0),
        _between(math.log(max(beyond, 1e-3)), 0.0, 3.0),
        _between(pace, 0.0, 1.5),
        _between(growth.kept, 0.0, 1.0),
        float(held in ("unbounded", "never emptied", "not emptied", "uncollected")),
        float(held in ("endless", "lost")),
        float(held in ("emptied", "maybe bounded", "passing")),
        float(held == "bounded"),
        float(cause.earlier.relation == "known"),
        float(cause.earlier.relation in ("new", "steeper")),
        float(cause.repeats),
        float(cause.is_count or not cause.stack),
    )


def probability(cause: Cause) -> float:
    """The calibrated probability that the cause is a leak, 0.01 to 0.99; 0 when it has no look
    of one."""
    if not cause.leaks:
        return 0.0
    pairs = zip(_WEIGHTS, features(cause), strict=True)
    score = sum(weight * value for (_, weight), value in pairs)
    return round(_between(1.0 / (1.0 + math.exp(-_between(score, -30.0, 30.0))), 0.01, 0.99), 2)


def _between(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)

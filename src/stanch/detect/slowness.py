"""Why requests got slow: what held the process up, against how long requests took. Pure.

Takes the counters of an instance over one life. Latency is the mean over the requests of an
interval; each cause is the share of the time in which it held the process up.

What a cause adds to a request follows from how pauses meet arrivals that know nothing of them: who
arrives amid a pause, with the probability of its share s, waits for the rest of it, half a pause on
average; and who is being served takes 1 / (1 - s) times as long. So a pause of p seconds adds
s * p / 2 + latency * s / (1 - s) (the residual life of renewal theory; Kleinrock, Queueing Systems
I, section 5.2). Assumptions: pauses of about equal length, which makes it a lower bound; no queue
that builds up behind them, which makes it one again; PSI's `some` counts a wait of any thread,
which makes it an upper bound for one of several. Of waits for memory no length is known, so only
the second term counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from stanch.detect.wording import size_text

Cause: TypeAlias = Literal["collector", "pressure", "throttling"]
Array: TypeAlias = npt.NDArray[np.float64]

LEAST_INTERVALS = 12
LEAST_REQUESTS = 60
SLOWER = 1.5
LEAST_ADDED_S = 0.005
EXPLAINED = 0.5
"""A cause that accounts for this share of the slowing explains it."""

CORRELATED = 0.5
"""And goes along with it, by ranks, at least so well."""

QUOTA_PERIOD_S = 0.1
"""The kernel hands out CPU quota each so often (cpu.max, Kubernetes' default)."""


@dataclass(frozen=True, slots=True)
class Strain:
    """Counters of an instance at one time; None where they are unknown.

    requests, request_s: served, and their durations together. gc_s, gc_pauses, gc_watched_s: of the
    collector while it was watched. pressure_s, throttled_s: as the kernel counts them.
    """

    time_s: float
    requests: float
    request_s: float
    gc_s: float | None = None
    gc_pauses: float | None = None
    gc_watched_s: float | None = None
    pressure_s: float | None = None
    throttled_s: float | None = None
    swap_bytes: float | None = None
    memory_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Slowness:
    """Requests got slow. before_s, after_s: mean latency then and now. cause: what explains it,
    None when nothing does. added_s: of the slowing, what it accounts for. share: of the time."""

    before_s: float
    after_s: float
    cause: Cause | None = None
    added_s: float = 0.0
    share: float = 0.0
    text: str = ""


def explain(series: Sequence[Strain]) -> Slowness | None:
    """Return how much slower requests have got, and why; None when they have not.

    The first third of the intervals with requests is compared with the last.
    """
    pairs = [
        (one, two)
        for one, two in pairwise(series)
        if two.requests > one.requests and two.time_s > one.time_s
    ]
    if len(pairs) < LEAST_INTERVALS or series[-1].requests - series[0].requests < LEAST_REQUESTS:
        return None
    latency = np.array(
        [(two.request_s - one.request_s) / (two.requests - one.requests) for one, two in pairs]
    )
    third = len(pairs) // 3
    before_s, after_s = float(np.median(latency[:third])), float(np.median(latency[-third:]))
    if after_s < SLOWER * before_s or after_s - before_s < LEAST_ADDED_S:
        return None
    best = Slowness(before_s, after_s)
    for cause in ("collector", "pressure", "throttling"):
        found = _accounts_for(cause, pairs, latency, third, best)
        if found is not None and found.added_s > best.added_s:
            best = found
    return best


def _accounts_for(
    cause: Cause,
    pairs: Sequence[tuple[Strain, Strain]],
    latency: Array,
    third: int,
    found: Slowness,
) -> Slowness | None:
    shares = np.array([_share(cause, one, two) for one, two in pairs])
    known = np.isfinite(shares)
    if known.sum() < LEAST_INTERVALS or not known[:third].any() or not known[-third:].any():
        return None
    then, now = float(np.nanmean(shares[:third])), float(np.nanmean(shares[-third:]))
    if now <= then or _rank_correlation(shares[known], latency[known]) < CORRELATED:
        return None
    pause_s = _pause(cause, pairs[-third:], now)
    added_s = _added(now, pause_s, found.before_s) - _added(
        then, _pause(cause, pairs[:third], then), found.before_s
    )
    if added_s < EXPLAINED * (found.after_s - found.before_s):
        return None
    added_s = min(added_s, found.after_s - found.before_s)
    text = _sentence(cause, found, added_s, now, pause_s, pairs)
    return Slowness(found.before_s, found.after_s, cause, added_s, now, text)


def _added(share: float, pause_s: float, latency_s: float) -> float:
    """Return what pauses add to a request that takes so long without them; see above."""
    share = min(share, 0.95)
    return share * pause_s / 2 + latency_s * share / (1 - share)


def _share(cause: Cause, one: Strain, two: Strain) -> float:
    """The share of an interval in which the cause held the process up; NaN unknown."""
    if cause == "collector":
        return _ratio(one.gc_s, two.gc_s, one.gc_watched_s, two.gc_watched_s)
    name = "pressure_s" if cause == "pressure" else "throttled_s"
    return _ratio(getattr(one, name), getattr(two, name), one.time_s, two.time_s)


def _ratio(
    first: float | None, last: float | None, begin: float | None, end: float | None
) -> float:
    if first is None or last is None or begin is None or end is None or end <= begin:
        return float("nan")
    return min(1.0, max(0.0, (last - first) / (end - begin)))


def _pause(cause: Cause, pairs: Sequence[tuple[Strain, Strain]], share: float) -> float:
    """Return how long a pause is, in seconds; 0 where nobody knows."""
    if cause == "throttling":
        return share * QUOTA_PERIOD_S
    if cause == "pressure":
        return 0.0
    first, last = pairs[0][0], pairs[-1][1]
    count = (last.gc_pauses or 0.0) - (first.gc_pauses or 0.0)
    return ((last.gc_s or 0.0) - (first.gc_s or 0.0)) / count if count > 0 else 0.0


def _rank_correlation(one: Array, two: Array) -> float:
    """Return Spearman's rank correlation; 0 where either does not vary."""
    ranks = [_ranks(each) for each in (one, two)]
    if any(float(np.std(each)) == 0 for each in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Array) -> Array:
    """Ranks, of which equal values share the mean."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[places]


def _sentence(
    cause: Cause,
    found: Slowness,
    added_s: float,
    share: float,
    pause_s: float,
    pairs: Sequence[tuple[Strain, Strain]],
) -> str:
    what = {
        "collector": f"pauses of the garbage collector, {share:.0%} of the time, "
        f"{1000 * pause_s:.0f} ms each",
        "pressure": f"waits for memory (PSI), {share:.0%} of the time",
        "throttling": f"CPU throttling, {share:.0%} of the time",
    }[cause]
    first, last = pairs[0][0], pairs[-1][1]
    grown = ""
    if first.memory_bytes and last.memory_bytes and last.memory_bytes > 1.1 * first.memory_bytes:
        grown = f", while memory grew from {size_text(first.memory_bytes)} to "
        grown += size_text(last.memory_bytes)
    swap = ""
    if last.swap_bytes and last.swap_bytes > (first.swap_bytes or 0.0):
        swap = f"; {size_text(last.swap_bytes)} of it are in swap"
    return (
        f"requests take {1000 * found.after_s:.0f} ms instead of {1000 * found.before_s:.0f} ms: "
        f"{what}, account for {1000 * added_s:.0f} ms of it{grown}{swap}"
    )

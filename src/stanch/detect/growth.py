"""How one thing has grown: since when, how fast in each third of that time, and what was lost.

Two sources give the same answer. Births (Python) tell at one look when the bytes that are alive
now were born; a leak keeps a constant share of what each time bore. Levels (Go, counts, RSS) are
seen over the looks. Pure functions of arrays; times are seconds on the life's clock.
"""

from dataclasses import dataclass

import numpy as np

from stanch.store.series import Births, Floats

_ONSET = 0.05
"""Growth began when this share of it was there: what little was before does not count."""

_START = 0.1
"""What was born in this first share of a life may go, as the rubbish of a start does, without
being held against the growth that came later."""


@dataclass(frozen=True, slots=True)
class Growth:
    """Steady growth of one thing, in its own unit (bytes or a count).

    onset_s, end_s: the time it is measured over; now_s is the last look. rates: per second in the
    first, middle and last third. requests_per_s: likewise, or None when unknown. grown: the
    growth from onset to end that these rates account for, a burst at its beginning cut off.
    level: all of it that is alive now. variance: of the sampling noise in it, 0 without sampling.
    kept: share of what had settled that is still alive (births), or 1 minus the largest fall
    over the growth (levels). watched_s: the time between the looks that were used.
    """

    onset_s: float
    end_s: float
    now_s: float
    rates: tuple[float, float, float]
    requests_per_s: tuple[float, float, float] | None
    grown: float
    level: float
    variance: float
    kept: float
    watched_s: float
    looks: int
    by_birth: bool

    @property
    def rate(self) -> float:
        """Growth per second of the newer two thirds."""
        return (self.rates[1] + self.rates[2]) / 2

    @property
    def duration_s(self) -> float:
        """From the onset to the last look."""
        return self.now_s - self.onset_s

    @property
    def grown_until_now(self) -> float:
        """The growth, reckoned on to the last look at the newest rate; all there is at most."""
        return min(self.grown + self.rates[2] * (self.now_s - self.end_s), self.level)

    @property
    def per_request(self) -> float | None:
        """Growth per request over the newer two thirds, None when there were none."""
        if self.requests_per_s is None:
            return None
        requests = (self.requests_per_s[1] + self.requests_per_s[2]) / 2
        return self.rate / requests if requests > 0 else None


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests served up to each time: time_s and served are (n,), not decreasing."""

    time_s: Floats
    served: Floats


def requests_served(time_s: Floats, requests: Floats, *, from_start: bool) -> Requests | None:
    """The requests of a life as a curve that never falls; None when they are not known.

    from_start: the life's zero is the start of the process, when it had served none.
    """
    known = np.isfinite(requests)
    if known.sum() < 2:
        return None
    times, counts = time_s[known], requests[known]
    if from_start and times[0] > 0:
        times, counts = np.insert(times, 0, 0.0), np.insert(counts, 0, 0.0)
    # A worker that was replaced takes its count with it; that is not a request unserved.
    steps = np.maximum(np.diff(counts), 0.0)
    served = np.concatenate([[0.0], np.cumsum(steps)])
    return Requests(times, served) if served[-1] > 0 else None


def growth_by_birth(
    births: Births,
    rows: list[int],
    variance_per_byte: Floats,
    *,
    look_times_s: Floats,
    requests: Requests | None,
) -> Growth | None:
    """Growth of the stacks `rows` together, from the births of what they hold at the last look.

    Only bands that have been closed for one width count, so that short-lived memory has gone.
    variance_per_byte: (rows,) as weight_variance gives. None when there is nothing to measure.
    """
    edges, now_s = births.edges_s, float(look_times_s[-1])
    width_s = float(edges[1] - edges[0])
    bands = int(np.searchsorted(edges[1:], now_s - width_s, side="right"))
    if bands < 3:
        return None
    per_row = births.live_bytes[rows]
    live = per_row.sum(axis=0)
    curve = np.concatenate([[0.0], np.cumsum(live[:bands])])
    total = float(curve[-1])
    if total <= 0:
        return None
    onset = int(np.searchsorted(curve, _ONSET * total, side="right")) - 1
    if bands - onset < 3:
        return None
    at = np.linspace(edges[onset], edges[bands], 4)
    rates = _rates(at, np.interp(at, edges[: bands + 1], curve))
    settled = births.settled_bytes[rows, :bands]
    lasting = np.isfinite(settled) & (edges[:bands] >= min(_START * now_s, edges[onset]))
    once = float(np.where(lasting, settled, 0.0).sum())
    still = float(np.where(lasting, per_row[:, :bands], 0.0).sum())
    per_row = per_row[:, onset:bands]
    return Growth(
        onset_s=float(at[0]),
        end_s=float(at[3]),
        now_s=now_s,
        rates=rates,
        requests_per_s=_request_rates(at, requests),
        grown=_steady_growth(rates, float(at[3] - at[0])),
        level=float(live.sum()),
        variance=float((per_row.sum(axis=1) * variance_per_byte).sum()),
        kept=min(1.0, still / once) if once > 0 else 1.0,
        watched_s=now_s - max(float(look_times_s[0]), float(at[0])),
        looks=int((look_times_s >= at[0]).sum()),
        by_birth=True,
    )


def growth_by_level(time_s: Floats, level: Floats, *, requests: Requests | None) -> Growth | None:
    """Growth of a level seen at `time_s`; NaN looks are left out.

    It began after the last look at which the level was as low as ever, but for a small share of
    the growth. Levels are taken as exact; who knows better puts the variance in.
    """
    known = np.isfinite(level)
    times, values = time_s[known], level[known]
    if times.size < 4:
        return None
    lowest = float(values.min())
    rise = float(values[-1]) - lowest
    if rise <= 0:
        return None
    onset = int(np.flatnonzero(values <= lowest + _ONSET * rise)[-1])
    if times.size - onset < 4:
        return None
    at = np.linspace(times[onset], times[-1], 4)
    rates = _rates(at, np.interp(at, times, values))
    since = values[onset:]
    fall = float((np.maximum.accumulate(since) - since).max())
    return Growth(
        onset_s=float(at[0]),
        end_s=float(at[3]),
        now_s=float(times[-1]),
        rates=rates,
        requests_per_s=_request_rates(at, requests),
        grown=_steady_growth(rates, float(at[3] - at[0])),
        level=float(values[-1]),
        variance=0.0,
        kept=1.0 - min(1.0, fall / rise),
        watched_s=float(times[-1] - times[onset]),
        looks=int(times.size - onset),
        by_birth=False,
    )


def _rates(at: Floats, values: Floats) -> tuple[float, float, float]:
    (a, b, c, d), (u, v, w, x) = at.tolist(), values.tolist()
    return (v - u) / (b - a), (w - v) / (c - b), (x - w) / (d - c)


def _request_rates(at: Floats, requests: Requests | None) -> tuple[float, float, float] | None:
    if requests is None or requests.time_s[0] > at[1]:
        return None
    return _rates(at, np.interp(at, requests.time_s, requests.served))


def _steady_growth(rates: tuple[float, float, float], duration_s: float) -> float:
    """The growth of the three thirds, the first cut to what the later two make believable."""
    first, middle, last = rates
    newer = max((middle + last) / 2, 0.0)
    return (min(first, 1.25 * newer) + middle + last) * duration_s / 3

"""Other people's rules, as published, on the same series. Each states what it had to assume.

All but one look at the memory of the process alone, so they cannot say where. Their windows are
theirs: an hour or four, whatever the leak.
"""

import math

import numpy as np

from stanch.detect.blame import blamed
from stanch.evaluate.detectors import PROCESS, Accusation, Inspect, Opinion
from stanch.store import OTHER
from stanch.store.series import Floats, LifeSeries, ServiceSeries

_HOUR_S = 3600.0


def _memory(life: LifeSeries, window_s: float = math.inf) -> tuple[Floats, Floats]:
    known = np.isfinite(life.memory_bytes)
    times, values = life.time_s[known], life.memory_bytes[known]
    if times.size:
        recent = times >= times[-1] - window_s
        times, values = times[recent], values[recent]
    return times, values


def _line(times: Floats, values: Floats) -> tuple[float, float, float]:
    """Least squares: the slope, its standard error, and the value at the last time."""
    centred = times - times.mean()
    spread = float((centred**2).sum())
    if times.size < 3 or spread <= 0:
        return 0.0, math.inf, float(values[-1]) if values.size else 0.0
    slope = float((centred * values).sum()) / spread
    residuals = values - values.mean() - slope * centred
    error = math.sqrt(float((residuals**2).sum()) / (times.size - 2) / spread)
    return slope, error, float(values.mean() + slope * centred[-1])


class _PerLife:
    """A rule that is asked of each running life; the service is accused when one fires."""

    name = ""

    def judge(self, series: ServiceSeries, inspect: Inspect) -> Opinion:
        """Accuse the process when the rule fires for any instance."""
        found = [one for life in series.lives if (one := self.fires(life)) is not None]
        return Opinion(accused=tuple(found[:1]))

    def fires(self, life: LifeSeries) -> Accusation | None:
        raise NotImplementedError


class Coroot(_PerLife):
    """Coroot's memory-leak inspection: the line through RSS has risen by 10 % in the last hour.

    Source: coroot, `MemoryLeakPercent` in its calculation of deployment metrics (a line by least
    squares over the memory of the application, its value now against that an hour before) and the
    inspection's default threshold of 10 %. Here the line goes through the last 24 hours at most.
    """

    name = "coroot"

    def fires(self, life: LifeSeries) -> Accusation | None:
        times, values = _memory(life, 24 * _HOUR_S)
        if times.size < 3:
            return None
        slope, _, now = _line(times, values)
        before = now - slope * _HOUR_S
        # Of a process younger than an hour the line has no value yet; Coroot then says nothing.
        if before <= 0 or now <= 0 or times[-1] - times[0] < _HOUR_S:
            return None
        return Accusation(PROCESS, slope) if (now - before) / before > 0.10 else None


class PredictLinear(_PerLife):
    """The usual Prometheus alert: predict_linear(memory[1h], 4 * 3600) > limit."""

    name = "predict_linear"

    def fires(self, life: LifeSeries) -> Accusation | None:
        times, values = _memory(life, _HOUR_S)
        if times.size < 3 or life.limit_bytes is None:
            return None
        slope, _, now = _line(times, values)
        if now + slope * 4 * _HOUR_S <= life.limit_bytes:
            return None
        left_s = max(life.limit_bytes - now, 0.0) / slope if slope > 0 else 0.0
        return Accusation(PROCESS, slope, (left_s, left_s, left_s))


class LeastSquares(_PerLife):
    """A slope test on RSS: t > 3.29 (two-sided 0.1 %), and the line reaches the limit in a week."""

    name = "ols"

    def fires(self, life: LifeSeries) -> Accusation | None:
        times, values = _memory(life)
        if times.size < 10 or life.limit_bytes is None:
            return None
        slope, error, now = _line(times, values)
        if slope <= 3.29 * error or now + slope * 7 * 24 * _HOUR_S < life.limit_bytes:
            return None
        left_s = max(life.limit_bytes - now, 0.0) / slope
        spread = 1.645 * error / slope
        return Accusation(
            PROCESS, slope, (left_s / (1 + spread), left_s, left_s / max(1 - spread, 1e-3))
        )


class MannKendall(_PerLife):
    """The trend test of Mann and Kendall on RSS at 0.1 %, with Sen's slope above 0.

    The statistic is that without ties, S / sqrt(n (n - 1) (2 n + 5) / 18).
    """

    name = "mann-kendall"

    def fires(self, life: LifeSeries) -> Accusation | None:
        times, values = _memory(life)
        n = times.size
        if n < 10:
            return None
        later, earlier = np.triu_indices(n, 1)[1], np.triu_indices(n, 1)[0]
        rises = values[later] - values[earlier]
        score = float(np.sign(rises).sum()) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
        if score <= 3.29:
            return None
        slope = float(np.median(rises / (times[later] - times[earlier])))
        return Accusation(PROCESS, slope) if slope > 0 else None


class Scalene:
    """Scalene's leak score of a line: 1 - (frees + 1) / (allocs - frees + 2) of at least 0.95.

    Source: scalene, `compute_leaks` (rule of succession; growth of memory of at least 1 %).
    Scalene follows the allocations that set a new high of memory; here each sample counts as one,
    as it is born and freed.
    """

    name = "scalene"

    def judge(self, series: ServiceSeries, inspect: Inspect) -> Opinion:
        """Accuse each function whose score is high while memory grows."""
        accused: dict[str, Accusation] = {}
        for life in series.lives:
            _, memory = _memory(life)
            if memory.size < 2 or memory[-1] < 1.01 * memory[0]:
                continue
            allocated: dict[str, float] = {}
            alive: dict[str, float] = {}
            for row, stack in enumerate(life.stacks):
                if stack != OTHER:
                    name = blamed(stack).function
                    born = float(life.allocated_bytes[row, -1]) / life.period_bytes
                    allocated[name] = allocated.get(name, 0.0) + born
                    lives = float(life.live_bytes[row, -1]) / life.period_bytes
                    alive[name] = alive.get(name, 0.0) + lives
            for name, born in allocated.items():
                freed = max(born - alive[name], 0.0)
                score = 1.0 - (freed + 1) / (max(born - freed, 0.0) + 2)
                if score >= 0.95:
                    accused.setdefault(name, Accusation(name, probability=score))
        return Opinion(accused=tuple(accused.values()))


class MissionControl(_PerLife):
    """JDK Mission Control's way: the live set rises, then old objects are ranked.

    Its rule on the live set fits a line to the heap after collections; its ranking of old object
    samples puts what was born evenly over the whole recording and still lives above what was born
    in a part of it. Here: the line through the sampled live heap has t > 3.29 and grew by 5 %; the
    accused is the function whose living births fill most tenths of the life, the larger of equals.
    """

    name = "jmc"

    def fires(self, life: LifeSeries) -> Accusation | None:
        known = np.isfinite(life.heap_bytes) & life.heap_fresh
        times, heap = life.time_s[known], life.heap_bytes[known]
        if times.size < 10 or life.births is None:
            return None
        slope, error, now = _line(times, heap)
        if slope <= 3.29 * error or slope * (times[-1] - times[0]) < 0.05 * now:
            return None
        rank: dict[str, tuple[float, float]] = {}
        births = life.births.live_bytes
        tenths = np.array_split(np.arange(births.shape[1]), 10)
        for row, stack in enumerate(life.stacks):
            if stack == OTHER:
                continue
            filled = sum(bool(births[row, part].sum() > 0) for part in tenths)
            name, size = blamed(stack).function, float(births[row].sum())
            rank[name] = max(rank.get(name, (0.0, 0.0)), (float(filled), size))
        if not rank:
            return None
        return Accusation(max(rank, key=lambda name: rank[name]), slope)


RIVALS = (Coroot, PredictLinear, LeastSquares, MannKendall, Scalene, MissionControl)

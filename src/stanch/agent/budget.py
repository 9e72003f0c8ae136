"""Keeps the agent's own CPU time within a share of the process's.

Every LOOK_S seconds a thread compares what the agent cost since the last look with the CPU time of
the whole process. Over the budget, the mean interval between two samples doubles, again and again
until it fits. It halves again, down to where it began, when for CALM_LOOKS looks in a row even the
doubled cost of sampling would have left room. Weights stay right: each sample keeps the interval
that it was drawn with. Where sampling is the lesser part of the cost, such as in an idle process
whose endpoint is read often, a longer interval would not help and the measured share just shows it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from stanch import sampler
from stanch.agent import daemons

LOOK_S = 5.0
LEAST_CPU_NS = 100_000_000
"""A look at less CPU time than this waits for more: a share of nearly nothing says nothing."""

CALM_LOOKS = 12
_CALM_SHARE = 0.7
_JOIN_S = 0.1

PASS_NS = 1.0
"""What an allocation that is not sampled costs: the subtraction and the jumps, untimed. In
benchmarks/README.md's row without samples, object churn pays 1.7 % for 14 million of them a
second."""

DETOUR_NS = 1_000.0
"""What a sample costs beyond the time that the sampler measures: the entry into the slow paths, the
sampled block's detour through the C library, and the caches that the host finds colder. Between 400
and 2,200 ns by the same benchmark at 8 KiB."""


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU time since the start, in ns: of the whole process, of sampling, and of the rest of the
    agent. `passing_ns` is the part of sampling that no interval changes."""

    process_ns: int
    sampling_ns: float
    passing_ns: float
    other_ns: float


@dataclass(frozen=True, slots=True)
class BudgetState:
    """What the budget is (a share of 1), what was measured last, and how often it had to act."""

    budget: float
    measured: float | None
    changes: int


def sampling_ns(stats: sampler.Stats) -> float:
    """Return the CPU time that sampling took since its start: in part measured, in part estimated
    from the numbers of samples and allocations."""
    return stats.overhead_ns + DETOUR_NS * stats.samples + passing_ns(stats)


def passing_ns(stats: sampler.Stats) -> float:
    """Return the part of it that allocations took which were not sampled."""
    return PASS_NS * stats.alloc_objects


def spent_so_far(other_ns: Callable[[], float]) -> Spent:
    """Read the clocks of this process. other_ns: CPU time of the agent apart from sampling."""
    stats = sampler.stats()
    return Spent(time.process_time_ns(), sampling_ns(stats), passing_ns(stats), other_ns())


class Budget:
    """Compares, and changes the interval.

    budget: the share of CPU time, such as 0.02. least_bytes: the interval that it began with and
    does not go below. spent: reads the clocks. change: sets the interval in bytes.
    """

    def __init__(
        self,
        budget: float,
        least_bytes: int,
        spent: Callable[[], Spent],
        change: Callable[[int], None] = sampler.set_interval,
    ) -> None:
        self._least_bytes = self._interval_bytes = least_bytes
        self._spent = spent
        self._change = change
        self._last = spent()
        self._calm = 0
        self.state = BudgetState(budget, None, 0)

    def look(self) -> None:
        """Compare what was spent since the last look, and change the interval if need be."""
        now, last = self._spent(), self._last
        process_ns = now.process_ns - last.process_ns
        if process_ns < LEAST_CPU_NS:
            return
        self._last = now
        sampling = (now.sampling_ns - last.sampling_ns) / process_ns
        tunable = sampling - (now.passing_ns - last.passing_ns) / process_ns
        share = sampling + (now.other_ns - last.other_ns) / process_ns
        budget = self.state.budget
        self.state = BudgetState(budget, share, self.state.changes)
        calm = self._interval_bytes > self._least_bytes and share + tunable < budget * _CALM_SHARE
        self._calm = self._calm + 1 if calm else 0
        if share > budget and tunable > share / 2:
            self._set(min(self._interval_bytes * 2, sampler.LARGEST_INTERVAL_BYTES))
        elif self._calm >= CALM_LOOKS:
            self._set(max(self._interval_bytes // 2, self._least_bytes))

    def _set(self, interval_bytes: int) -> None:
        if interval_bytes == self._interval_bytes:
            return
        self._change(interval_bytes)
        self._interval_bytes = interval_bytes
        self._calm = 0
        self.state = BudgetState(self.state.budget, self.state.measured, self.state.changes + 1)


class BudgetThread:
    """Looks every `every_s` seconds from a thread of its own. For one caller at a time."""

    def __init__(self, budget: Budget, every_s: float = LOOK_S) -> None:
        self._budget = budget
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._cpu_ns = 0

    @property
    def cpu_ns(self) -> int:
        """CPU time of the thread, until its last look."""
        return self._cpu_ns

    def start(self) -> None:
        """Start looking; the first time after one period.

        Does nothing when this process can have no more threads; the start after a fork tries again.
        """
        self._stop = threading.Event()
        self._thread = daemons.daemon("budget", self._run, self._stop)
        try:
            daemons.start(self._thread)
        except RuntimeError:
            self._thread = None

    def pause(self) -> None:
        """Stop before a fork, or for good."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _run(self, stop: threading.Event) -> None:
        counted_ns = 0
        while not stop.wait(self._every_s):
            if sampler.running():
                self._budget.look()
            now_ns = time.thread_time_ns()
            self._cpu_ns += now_ns - counted_ns
            counted_ns = now_ns

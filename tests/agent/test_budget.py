"""The budget: when the interval changes, that it then fits, and that estimates stay right."""

import math

import pytest

from stanch.agent.budget import CALM_LOOKS, Budget, Spent
from stanch.agent.settings import SettingError, from_keywords
from stanch.profile import parse

from .serving import get, host

SECOND_NS = 1_000_000_000


class Clocks:
    """The clocks of a process whose sampling costs a share that falls with the interval."""

    def __init__(self, share_at_1000: float, passing: float = 0.0, other: float = 0.0) -> None:
        self.share_at_1000 = share_at_1000
        self.passing = passing
        self.other = other
        self.now = Spent(0, 0.0, 0.0, 0.0)
        self.intervals = [1000]

    def change(self, interval_bytes: int) -> None:
        self.intervals.append(interval_bytes)

    def run(self, cpu_ns: int = SECOND_NS) -> None:
        share = self.share_at_1000 * 1000 / self.intervals[-1] + self.passing
        self.now = Spent(
            self.now.process_ns + cpu_ns,
            self.now.sampling_ns + share * cpu_ns,
            self.now.passing_ns + self.passing * cpu_ns,
            self.now.other_ns + self.other * cpu_ns,
        )


def looks(clocks: Clocks, budget: Budget, count: int) -> None:
    for _ in range(count):
        clocks.run()
        budget.look()


def test_doubles_until_it_fits_and_stays() -> None:
    """Over the budget the interval doubles, look by look, and stays once it fits."""
    clocks = Clocks(share_at_1000=0.10, passing=0.004)
    budget = Budget(0.02, 1000, lambda: clocks.now, clocks.change)
    looks(clocks, budget, 50)
    assert clocks.intervals == [1000, 2000, 4000, 8000]
    assert budget.state.changes == 3
    assert budget.state.measured == pytest.approx(0.10 / 8 + 0.004)


def test_comes_back_when_it_is_calm() -> None:
    """When the load is gone the interval halves, slowly, and never below where it began."""
    clocks = Clocks(share_at_1000=0.10)
    budget = Budget(0.02, 1000, lambda: clocks.now, clocks.change)
    looks(clocks, budget, 10)
    clocks.share_at_1000 = 0.005
    looks(clocks, budget, CALM_LOOKS - 1)
    assert clocks.intervals == [1000, 2000, 4000, 8000]
    looks(clocks, budget, 5 * CALM_LOOKS)
    assert clocks.intervals == [1000, 2000, 4000, 8000, 4000, 2000, 1000]


@pytest.mark.parametrize(("passing", "other"), [(0.03, 0.0), (0.0, 0.50)])
def test_what_no_interval_changes_is_only_shown(passing: float, other: float) -> None:
    """Where readers or the unsampled allocations are what costs, the interval stays as it is."""
    clocks = Clocks(share_at_1000=0.001, passing=passing, other=other)
    budget = Budget(0.02, 1000, lambda: clocks.now, clocks.change)
    looks(clocks, budget, 10)
    assert clocks.intervals == [1000]
    assert budget.state.measured == pytest.approx(0.001 + passing + other)


def test_an_idle_process_is_not_judged() -> None:
    """Little CPU time is added up until it says something."""
    clocks = Clocks(share_at_1000=0.50)
    budget = Budget(0.02, 1000, lambda: clocks.now, clocks.change)
    for _ in range(9):
        clocks.run(SECOND_NS // 100)
        budget.look()
    assert budget.state.measured is None
    clocks.run(SECOND_NS // 100)
    budget.look()
    assert clocks.intervals == [1000, 2000]


@pytest.mark.parametrize(("text", "percent"), [("2", 2.0), ("0.5%", 0.5), ("off", 0.0), (5, 5.0)])
def test_the_setting(text: object, percent: float) -> None:
    """Percent with or without the sign, or off."""
    assert from_keywords({"budget": text}, {}).budget == percent
    for wrong in ("0", "101", "nan", "two"):
        with pytest.raises(SettingError, match="percent of CPU time"):
            from_keywords({"budget": wrong}, {})


_DRIVEN = """
import stanch
from stanch import sampler
from stanch.agent import control

stanch.start(listen="127.0.0.1:0", interval=64, budget=5, service="driven")
budget = control._agent._budget
kept, rounds = [], []

def site(slots):
    for i in range(len(slots)):
        slots[i] = bytes(100)

def churn():
    for _ in range(500):
        [bytes(100) for _ in range(100)]

for _ in range(2000):
    rounds.append(sampler.stats().interval_bytes)
    kept.append([None] * 1000)
    site(kept[-1])
    churn()
    budget.look()
    state = budget.state
    if state.measured is not None and state.measured <= 0.05:
        break
ready(f"{control._agent._endpoint.address} {state.measured} {' '.join(map(str, rounds))}")
"""


def test_an_absurd_interval_doubles_until_it_fits() -> None:
    """From 64 bytes on, the real sampler comes to fit 5 %, says so, and its estimates hold."""
    with host(_DRIVEN) as (pid, line):
        address, measured, *texts = line.split()
        metrics = get(address, "/metrics").text
        profile = parse(get(address, "/debug/pprof/heap").body)
    rounds = [int(text) for text in texts]
    assert float(measured) <= 0.05
    distinct = sorted(set(rounds))
    assert distinct == [64 << step for step in range(len(distinct))] and len(distinct) > 4
    assert f'stanch_interval_bytes{{pid="{pid}"}} {rounds[-1]}' in metrics
    assert f'stanch_interval_changes_total{{pid="{pid}"}} {len(distinct) - 1}' in metrics
    assert f'stanch_budget_ratio{{pid="{pid}"}} 0.05' in metrics
    assert f'stanch_overhead_ratio{{pid="{pid}"}} ' in metrics
    (intervals,) = (c for c in profile.comments if c.startswith("intervals="))
    noted = [each.partition("@")[0] for each in intervals.partition("=")[2].split(",")]
    assert noted == [str(interval) for interval in distinct]
    count, size = 1000, 133
    truth = variance = 0.0
    for interval in rounds:
        chance = -math.expm1(-size / interval)
        truth += count * size
        variance += count * size**2 * (1 - chance) / chance
    found = sum(
        sample.values[3]
        for sample in profile.samples
        if sample.locations[0].lines[0].function.name == "site"
    )
    assert abs(found - truth) < 5 * math.sqrt(variance), (found, truth, variance, rounds)

"""One life of one target."""

from dataclasses import replace

import numpy as np
import pytest

from stanch.store import OTHER, Bounds, Look
from stanch.store.life import Life, is_same_life
from tests.store.looks import PROCESS, heap, look, stack


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        pytest.param({"pid": 10}, {"pid": 11}, False, id="another pid"),
        pytest.param({"age_s": 90.0}, {"age_s": 95.0}, True, id="older"),
        pytest.param({"age_s": 90.0}, {"age_s": 2.0}, False, id="younger, same pid"),
        pytest.param(
            {"age_s": 90.0, "started": 1000.0},
            {"age_s": 95.0, "started": 4600.0},
            True,
            id="wall clock stepped",
        ),
        pytest.param(
            {"age_s": None, "heap": (heap("a", 1.0, allocated=9e6),)},
            {"age_s": None, "heap": (heap("a", 1.0, allocated=1e6),)},
            False,
            id="allocated less",
        ),
        pytest.param(
            {"age_s": None, "heap": (heap("a", 1.0, allocated=9e6),), "started": 1000.0},
            {"age_s": None, "heap": (heap("a", 1.0, allocated=9e6),), "started": 4600.0},
            True,
            id="wall clock stepped, no age",
        ),
        pytest.param(
            {"age_s": None, "started": 1000.0},
            {"age_s": None, "started": 4600.0},
            False,
            id="nothing but another start",
        ),
        pytest.param({"age_s": None}, {"age_s": None}, True, id="nothing known"),
    ],
)
def test_tells_a_restart_from_a_clock_step(
    before: dict[str, object], now: dict[str, object], same: bool
) -> None:
    """A new life begins with a new process, and never because a wall clock was set."""
    old = look(1.0, replace(PROCESS, **before))  # type: ignore[arg-type]
    new = look(6.0, replace(PROCESS, **now))  # type: ignore[arg-type]
    assert is_same_life(old, new) is same


def life_of(*looks: Look, bounds: Bounds | None = None) -> Life:
    """A life with these looks."""
    life = Life(looks[0], bounds or Bounds())
    for one in looks:
        life.add(one)
    return life


def test_the_clock_begins_at_the_start_of_the_process() -> None:
    """Times are seconds since the process began, whenever it was first looked at."""
    aged = [look(time, replace(PROCESS, age_s=time - 400.0)) for time in (500.0, 505.0)]
    assert life_of(*aged).series().time_s.tolist() == [100.0, 105.0]


def test_a_look_that_is_not_later_is_dropped() -> None:
    """Two looks of one instant are one, and an older one is none."""
    series = life_of(look(5.0), look(5.0), look(4.0), look(6.0)).series()
    assert series.time_s.tolist() == [5.0, 6.0]


def test_memory_is_the_working_set_where_known() -> None:
    """The working set goes before the RSS, and NaN stands for neither."""
    unknown = look(7.0, replace(PROCESS, rss_bytes=None))
    series = life_of(look(5.0), look(6.0, working_set_bytes=70e6), unknown).series()
    np.testing.assert_array_equal(series.memory_bytes, [50e6, 70e6, np.nan])


def test_processes_of_a_target_add_up_with_their_births_on_one_clock() -> None:
    """A worker forked 20 s after its master has its births 20 s later on the life's clock."""
    master = replace(PROCESS, pid=1, age_s=40.0, heap=(heap("a", 10.0, births=(10.0,)),))
    worker = replace(PROCESS, pid=2, age_s=20.0, heap=(heap("a", 7.0, births=(7.0,)),))
    series = life_of(look(100.0, master, worker)).series()
    assert series.rss_bytes.tolist() == [100e6]
    assert series.live_bytes.tolist() == [[17.0]]
    assert series.births is not None
    assert series.births.live_bytes[0, :5].tolist() == [10.0, 0.0, 0.0, 0.0, 7.0]


def test_a_profile_that_was_seen_before_is_marked_stale() -> None:
    """A Go heap profile between two collections repeats the levels and is not fresh."""
    first = look(1.0, replace(PROCESS, heap=(heap("a", 10.0),)))
    again = look(2.0, replace(PROCESS, heap=(heap("a", 10.0),), heap_fresh=False))
    series = life_of(first, again).series()
    assert series.heap_fresh.tolist() == [True, False]
    assert series.live_bytes.tolist() == [[10.0, 10.0]]


def test_a_look_without_counts_repeats_them() -> None:
    """When the goroutine profile fails once, its numbers stay what they were."""
    from stanch.store import StackCount

    counted = look(1.0, counts=(StackCount("goroutine", stack("a"), 5.0),))
    series = life_of(counted, look(2.0)).series()
    assert series.counts.kinds == ("goroutine",)
    assert series.counts.count.tolist() == [[5.0, 5.0]]


def test_stays_within_its_bounds() -> None:
    """Looks, stacks and bands have a maximum; small stacks go on in OTHER."""
    bounds = Bounds(looks=16, stacks=4, counted_stacks=4, bands=8)
    life = Life(look(1.0), bounds)
    for number in range(1, 200):
        heaps = tuple(heap(f"f{one}", 100.0 * one, births=(100.0 * one,)) for one in range(1, 10))
        age = replace(PROCESS, age_s=5.0 * number, heap=heaps)
        life.add(look(5.0 * number, age))
    series = life.series()
    assert series.time_s.size <= 16
    assert len(series.stacks) == 5
    assert series.stacks[-1] == OTHER
    assert series.live_bytes[:, -1].sum() == pytest.approx(4500.0)
    assert series.births is not None
    assert series.births.live_bytes.shape[1] <= 8


@pytest.mark.parametrize(
    ("memory", "near"),
    [((80e6, 89e6), True), ((80e6, 81e6), False), ((95e6, 95e6), True), ((95e6, 60e6), False)],
)
def test_knows_whether_it_stood_at_its_limit(memory: tuple[float, float], near: bool) -> None:
    """A life is near its limit when the next step of its growth would have reached 90 % of it."""
    looks = [
        look(time, replace(PROCESS, age_s=time, rss_bytes=rss))
        for time, rss in enumerate(memory, start=1)
    ]
    life = life_of(*looks)
    assert life.near_limit() is near
    assert life.series(ended=True).ended_near_limit is near
    assert life.series().ended_near_limit is False


def test_a_series_is_not_changed_by_later_looks() -> None:
    """What was given out stays as it was."""
    life = life_of(look(1.0, replace(PROCESS, age_s=1.0, heap=(heap("a", 10.0, births=(10.0,)),))))
    series = life.series()
    life.add(look(30.0, replace(PROCESS, age_s=30.0, heap=(heap("a", 99.0, births=(99.0,)),))))
    assert series.live_bytes.tolist() == [[10.0]]
    assert series.births is not None
    assert series.births.live_bytes.sum() == 10.0

"""Memory that nobody can look into: native, Go, what tasks hold; with what clears or delays it."""

from dataclasses import replace

import numpy as np

from stanch.detect import Holder, Place, Settings, judge_service
from stanch.detect.rest import unexplained_memory
from stanch.store import Counts, LifeSeries, ServiceSeries
from stanch.store.series import Floats
from tests.detect.lives import LEAK, MIB, TIME, frame, life, verdict

LONG = np.arange(2.5, 101.0, 2.5)


def native(taken: float, memory: Floats | None = None) -> LifeSeries:
    """A Python life whose memory grows and whose heap does not; it has taken this much room."""
    grown = MIB * (TIME - TIME[0]) if memory is None else memory
    heap = {LEAK: np.full(TIME.size, 5 * MIB)}
    births = {LEAK: np.array([5 * MIB, *[0.0] * 9])}
    limit = 50 * MIB + float(grown[-1]) / taken
    return life(TIME, 50 * MIB + grown, heap, births=births, limit=limit)


def stages(*lives: LifeSeries, past: tuple[LifeSeries, ...] = ()) -> list[tuple[str, str]]:
    """Kind and stage of each finding that may be a leak."""
    found = verdict(*lives, past=past).findings
    return [(one.kind, one.stage) for one in found if one.kind.endswith("leak")]


def test_native_memory_that_goes_straight_up_needs_a_fifth_of_the_room() -> None:
    """22 % of the room is enough where nothing slows, 19 % is not."""
    assert stages(native(0.24)) == [("native leak", "confirmed")]
    assert stages(native(0.19)) == [("native leak", "suspect")]


def test_native_memory_that_slows_needs_more_than_a_third() -> None:
    """A pool whose newest third bears 85 % of the middle one is not accused before 37 %."""
    paces = np.interp(np.arange(TIME.size - 1), [0, 6, 9, 18], [1.0, 1.0, 0.8, 0.78])
    slowing = np.concatenate([[0.0], np.cumsum(paces)]) * 2.5 * MIB
    assert stages(native(0.30, slowing)) == [("native leak", "probable")]
    assert stages(native(0.45, slowing)) == [("native leak", "confirmed")]


def test_a_life_that_grew_alike_and_lived_takes_the_haste_away() -> None:
    """What an earlier, shorter life did too is no news: it is judged as what may yet end."""
    now = native(0.30)
    before = replace(native(0.30), time_s=TIME[:8], **_first(now, 8))
    assert stages(now, past=(before,)) == [("native leak", "probable")]
    assert stages(now) == [("native leak", "confirmed")]


def _first(whole: LifeSeries, looks: int) -> dict[str, Floats]:
    axes = ("rss_bytes", "memory_bytes", "heap_bytes", "runtime_bytes", "requests", "in_flight")
    part = {name: getattr(whole, name)[:looks] for name in (*axes, "heap_fresh")}
    return part | {
        name: getattr(whole, name)[:, :looks] for name in ("live_bytes", "allocated_bytes")
    }


def test_a_native_plateau_of_an_earlier_life_is_known() -> None:
    """What native memory there is at the start is no part of what is compared."""
    level = np.minimum(LONG, 45.0) * MIB
    before = life(LONG, 500 * MIB + level, {LEAK: np.full(LONG.size, 5 * MIB)})
    assert stages(native(0.5), past=(before,)) == [("native leak", "suspect")]


def test_memory_that_was_given_back_and_is_taken_anew_is_explained() -> None:
    """The second batch takes what the first one gave back: nothing of it is native."""
    heap = np.array([0, 20, 40, 60, 5, 5, 5, 20, 40, 60], dtype=np.float64) * MIB
    rss = np.array([50, 72, 95, 120, 110, 90, 60, 70, 95, 120], dtype=np.float64) * MIB
    times = np.arange(10.0)
    batch = life(times, rss, {LEAK: heap})
    rest = unexplained_memory(batch, Settings())
    assert float(np.ptp(rest[3:])) < 1.0


def test_what_a_bounded_cache_took_is_not_what_tasks_hold() -> None:
    """Tasks that rise beside a cache on its way to its bound hold only the rest of the memory."""
    grown = MIB * TIME
    tasks = Counts(("task",), ((frame("wait_receipt"),),), (10 * TIME).reshape(1, -1))
    now = life(
        TIME,
        50 * MIB + grown,
        {LEAK: grown},
        births={LEAK: np.full(10, 5 * MIB)},
        limit=50 * MIB + 48.5 * MIB / 0.3,
        counts=tasks,
    )
    assert ("task leak", "confirmed") in stages(now)
    bounded = Holder("bounded", "CACHE", "dict", length=500, bound=600, at_bytes=40 * MIB)
    holders = {Place("/srv/app/remember.py", "remember"): bounded}
    found = judge_service(ServiceSeries("shop", (now,), ()), None, holders).findings
    assert [one.stage for one in found if one.kind == "task leak"] == ["suspect"]

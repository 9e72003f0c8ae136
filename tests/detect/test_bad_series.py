"""Series as they should not be: nothing crashes, nothing healthy is accused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.detect import judge_service
from stanch.store import (
    Counts,
    LifeSeries,
    Look,
    MemoryStore,
    ProcessLook,
    ServiceSeries,
    StackCount,
)
from tests.detect.lives import LEAK, MIB, NO_COUNTS, TIME, frame, leaking, life, verdict
from tests.store.looks import PROCESS, heap, look, stack


def confirmed(*lives: LifeSeries) -> bool:
    """Whether anything is confirmed of these lives."""
    return any(finding.is_confirmed_leak for finding in verdict(*lives).findings)


def test_a_service_without_lives_or_looks_has_nothing_to_say() -> None:
    """No life, and a life of one look, give no finding."""
    assert verdict().findings == ()
    single = life(TIME[:1], np.array([50 * MIB]), {LEAK: np.array([1.0])})
    assert verdict(single).findings == ()


def test_unknown_memory_gives_counts_of_nothing() -> None:
    """A target that never tells its memory is not accused, whatever its heap does."""
    unknown = leaking()
    nothing = np.full(TIME.size, np.nan)
    unknown = replace(unknown, rss_bytes=nothing, memory_bytes=nothing)
    assert verdict(unknown).findings == ()
    assert verdict(unknown).instances[0].memory_bytes is None


@pytest.mark.parametrize("missing", [slice(4, 12), slice(0, 12), slice(1, 20, 2)])
def test_gaps_do_not_hide_a_leak_or_make_one(missing: slice) -> None:
    """Looks that are missing leave the verdicts what they are."""
    kept = np.delete(np.arange(TIME.size), missing)
    assert confirmed(only(leaking(), kept))
    flat = life(TIME, np.full(TIME.size, 50 * MIB), {LEAK: np.full(TIME.size, MIB)})
    assert not confirmed(only(flat, kept))


def only(whole: LifeSeries, looks: np.ndarray) -> LifeSeries:
    """A life of which only some looks are left."""
    axes = ("time_s", "rss_bytes", "memory_bytes", "heap_bytes", "runtime_bytes", "requests")
    part = {name: getattr(whole, name)[looks] for name in (*axes, "in_flight", "heap_fresh")}
    part |= {name: getattr(whole, name)[:, looks] for name in ("live_bytes", "allocated_bytes")}
    return replace(whole, **part)


@pytest.mark.parametrize("limit", [None, 0.0, -5.0, 1.0])
def test_a_limit_that_makes_no_sense_is_no_reason_to_accuse(limit: float | None) -> None:
    """Without a limit, or below what is used already, a healthy process stays unaccused."""
    flat = life(TIME, np.full(TIME.size, 50 * MIB), {LEAK: np.full(TIME.size, MIB)}, limit=limit)
    assert not confirmed(flat)


def test_without_a_limit_a_leak_must_grow_further() -> None:
    """Unknown limits are assumed: far enough beyond the start, growth is confirmed, undated."""
    small, large = (leaking(rate=rate * MIB, limit=None) for rate in (1, 4))
    assert not confirmed(small)
    (finding,) = verdict(large).findings
    assert finding.is_confirmed_leak
    assert finding.seconds_to_death is None
    assert "no limit is known" in " ".join(finding.evidence)


def test_a_limit_that_is_raised_is_the_limit() -> None:
    """The same growth under a larger limit has taken less of its room."""
    assert confirmed(leaking(limit=150 * MIB))
    assert not confirmed(leaking(limit=400 * MIB))


def play(looks: list[Look]) -> bool:
    """Whether anything is confirmed at any of these looks."""
    store = MemoryStore()
    accused = False
    for one in looks:
        store.add(one)
        for service in store.services():
            findings = judge_service(store.series(service)).findings
            accused = accused or any(finding.is_confirmed_leak for finding in findings)
    return accused


def test_a_fleet_that_restarts_all_the_time_is_not_accused() -> None:
    """Lives too short to tell anything are not added up to a leak."""
    looks = []
    for number in range(60):
        age = 5.0 * (number % 4)
        process = replace(PROCESS, pid=100 + number // 4, age_s=age, rss_bytes=50e6 + 1e6 * age)
        looks.append(look(5.0 * number + 1, process))
    assert not play(looks)


def test_clocks_that_jump_do_not_make_a_leak() -> None:
    """Wall clocks set back and forth, and a start that follows them, change nothing."""
    rng = np.random.default_rng(3)
    looks = []
    for number in range(40):
        jump = float(rng.normal(0, 86400))
        process = replace(PROCESS, age_s=5.0 * number, started=1.7e9 + jump)
        one = look(5.0 * number + 1, process)
        looks.append(replace(one, unix_s=1.7e9 + jump))
    store = MemoryStore()
    for one in looks:
        store.add(one)
    assert len(store.series("shop").lives) == 1
    assert store.series("shop").past == ()
    assert not play(looks)


def test_an_interval_that_changes_on_the_way_is_no_growth() -> None:
    """The agent may sample more coarsely from some look on: estimates stay, only noise grows."""
    rng = np.random.default_rng(4)
    looks = []
    for number in range(1, 40):
        period = 131072.0 if number < 20 else 524288.0
        live = period * rng.poisson(20e6 / period)
        process = replace(
            PROCESS,
            age_s=5.0 * number,
            period_bytes=period,
            heap=(heap("a", live, births=(live,)),),
        )
        looks.append(look(5.0 * number, process))
    assert not play(looks)


NUMBER = st.one_of(st.none(), st.floats(-1e12, 1e12), st.just(float("nan")), st.just(float("inf")))


@st.composite
def wild_looks(draw: st.DrawFn) -> list[Look]:
    """Looks of which nothing can be relied on but their types."""
    looks = []
    for number in range(draw(st.integers(1, 25))):
        heaps = tuple(
            heap(
                draw(st.sampled_from("abc")),
                draw(st.floats(0, 1e12)),
                allocated=draw(st.floats(0, 1e13)),
                births=tuple(draw(st.lists(st.floats(0, 1e11), max_size=6))),
            )
            for _ in range(draw(st.integers(0, 3)))
        )
        process = ProcessLook(
            pid=draw(st.sampled_from([None, 7])),
            age_s=draw(st.one_of(st.none(), st.floats(0, 1e7))),
            rss_bytes=draw(NUMBER),
            live_heap_bytes=draw(NUMBER),
            requests=draw(NUMBER),
            runtime_bytes=draw(NUMBER),
            heap=heaps,
        )
        count = StackCount("task", stack("a"), draw(st.floats(0, 1e9)))
        time_s = number * draw(st.sampled_from([5.0, 1e-6, 1e6]))
        looks.append(look(time_s, process, limit_bytes=draw(NUMBER), counts=(count,)))
    return looks


@settings(max_examples=60, deadline=None)
@given(wild_looks())
def test_no_series_breaks_detection(looks: list[Look]) -> None:
    """Whatever numbers a target tells, detection gives a verdict and no warning."""
    play(looks)


def test_stacks_without_frames_are_nobody() -> None:
    """A sample without a stack can not be blamed on anyone, and does not break the rest."""
    nameless = life(TIME, 50 * MIB + MIB * TIME, {(): MIB * TIME}, counts=NO_COUNTS)
    assert all(finding.function == "" for finding in verdict(nameless).findings)


def test_one_look_and_numbers_below_nothing_say_nothing() -> None:
    """A single look, and memory, births and counts below zero, are no growth."""
    below = -MIB * TIME
    tasks = Counts(("task",), (LEAK,), -TIME.reshape(1, -1))
    births = {LEAK: np.full(10, -5 * MIB)}
    assert not confirmed(life(TIME, below, {LEAK: below}, births=births, counts=tasks))
    assert not confirmed(life(TIME, np.full(TIME.size, 50 * MIB), {LEAK: below}, births=births))
    for size in range(1, 4):
        assert not confirmed(only(leaking(), np.arange(size)))


@pytest.mark.parametrize("factor", [1e9, -1e9, 0.0])
def test_a_replica_that_lies_spoils_only_its_own_numbers(factor: float) -> None:
    """Healthy replicas are not accused with it, and what leaks in the others is still told."""
    flat = life(TIME, np.full(TIME.size, 50 * MIB), {LEAK: np.full(TIME.size, MIB)})
    liar = replace(leaking("liar"), live_bytes=leaking().live_bytes * factor)
    if liar.births is not None:
        liar = replace(liar, births=replace(liar.births, live_bytes=liar.births.live_bytes * 1e3))
    (finding,) = verdict(leaking("honest"), liar).findings
    assert finding.is_confirmed_leak
    assert "honest" in finding.instances
    # Its memory, which the kernel tells, does not grow: what it says of its heap accuses nobody.
    still = replace(liar, memory_bytes=flat.memory_bytes, rss_bytes=flat.rss_bytes)
    assert not confirmed(flat, still)


def test_a_function_that_a_release_renamed_is_not_new() -> None:
    """What levelled off under its former name, in the same file, is the same plateau."""
    long = np.arange(2.5, 101.0, 2.5)
    plateau = np.minimum(long, 45.0) * MIB
    old = (frame("remember_it", LEAK[0].file), LEAK[1])
    before = replace(life(long, 50 * MIB + plateau, {old: plateau}), release="41")
    now = replace(leaking(), release="42")
    series = ServiceSeries("shop", (now,), (before,))
    (finding,) = judge_service(series).findings
    assert finding.stage == "suspect"
    assert "levelled off" in " ".join(finding.evidence)
    other = (frame("remember_it", "/srv/app/elsewhere.py"), LEAK[1])
    new = replace(before, stacks=(other,))
    assert confirmed_in(ServiceSeries("shop", (now,), (new,)))


def confirmed_in(series: ServiceSeries) -> bool:
    """Whether anything is confirmed of a service with earlier lives."""
    return any(one.is_confirmed_leak for one in judge_service(series).findings)


def test_a_limit_that_changes_on_the_way_counts_as_it_is_now() -> None:
    """Raised, a leak has more room; lowered beneath what is used, nothing healthy is accused."""
    for before, after in ((100e6, 400e6), (400e6, 60e6), (400e6, None)):
        looks = []
        for number in range(1, 40):
            limit = before if number < 20 else after
            heaps = (heap("a", 20e6, births=(20e6,)),)
            process = replace(PROCESS, age_s=5.0 * number, rss_bytes=55e6, heap=heaps)
            looks.append(look(5.0 * number, process, limit_bytes=limit))
        assert not play(looks)

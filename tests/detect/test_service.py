"""What is said of a service: one finding per cause, over replicas and lives."""

from dataclasses import replace

import numpy as np
import pytest

from stanch.detect import finding_to_dict
from stanch.store import Counts, Frame, LifeSeries, Stack
from tests.detect.lives import LEAK, MIB, TIME, frame, leaking, life, verdict


def test_an_even_leak_is_confirmed_with_its_line_rate_and_death() -> None:
    """The finding names file, line and function, bytes per second and request, and the death."""
    (finding,) = verdict(leaking(requests=20 * TIME)).findings
    assert (finding.kind, finding.stage) == ("leak", "confirmed")
    assert (finding.file, finding.line, finding.function) == ("app/remember.py", 10, "remember")
    assert finding.stack == ("app/remember.py:10 remember", "app/handle.py:10 handle")
    assert finding.rate_bytes_per_second == pytest.approx(1.0 * MIB)
    assert finding.rate_bytes_per_request == pytest.approx(1.0 * MIB / 20)
    assert finding.seconds_to_death is not None
    soonest, likely, latest = finding.seconds_to_death
    assert 30.0 < soonest < likely < latest < 80.0
    assert likely == pytest.approx(50.0)
    assert finding.first_to_die == "shop-1"
    assert finding.grown_bytes == pytest.approx(50 * MIB, rel=0.05)
    assert 0.8 < finding.confidence < 1.0
    assert finding_to_dict(finding)["function"] == "remember"


def test_the_evidence_is_in_plain_sentences_with_numbers() -> None:
    """Growth, pace, survival, room and noise are told, each in a sentence."""
    (finding,) = verdict(leaking()).findings
    text = " ".join(finding.evidence)
    assert "What remember allocated has grown by 50.0 MiB for 50 s, 1.00 MiB per s" in text
    assert "It does not slow down: 1.00, 1.00 and 1.00 MiB per s" in text
    assert "100% of what had settled is still alive" in text
    assert "49% of the room that was left below the limit of 150 MiB" in text
    assert "times what noise could amount to" in text
    assert all(sentence.endswith(".") for sentence in finding.evidence)


def test_replicas_are_one_finding_with_the_spread_of_their_rates() -> None:
    """Three instances that leak at different rates: lowest, median, highest, and who dies first."""
    lives = [
        leaking(f"shop-{number}", rate * MIB) for number, rate in ((1, 0.9), (2, 1.2), (3, 1.0))
    ]
    (finding,) = verdict(*lives).findings
    assert finding.instances == ("shop-1", "shop-2", "shop-3")
    assert finding.rates == pytest.approx((0.9 * MIB, 1.0 * MIB, 1.2 * MIB))
    assert finding.first_to_die == "shop-2"
    assert "3 instances show it" in " ".join(finding.evidence)


HEALTHY_BIRTHS = {
    "at its bound": ("filling cache", [0, 0, 0, 0, 3, 3, 3, 3, 3, 3], [3.0] * 10),
    "slowing": ("filling cache", [8, 7, 6, 5, 4, 3, 2.5, 2, 1.5, 1.5], None),
    "warm-up": ("warm-up", [20, 20, 5, 1, 0.5, 0.2, 0, 0, 0, 0], None),
    "in flight": ("load", [0, 0, 0, 0, 0.5, 1, 2, 4, 8, 20], [3.0] * 10),
}


@pytest.mark.parametrize("name", HEALTHY_BIRTHS)
def test_growth_that_is_none_of_a_leak_is_called_what_it_is(name: str) -> None:
    """Births that slow down, end, are replaced or stay young are no leak at any stage."""
    kind, live, settled = HEALTHY_BIRTHS[name]
    births = {LEAK: np.array(live, dtype=float) * MIB}
    once = None if settled is None else {LEAK: np.array(settled) * MIB}
    total = float(births[LEAK].sum())
    level = total * TIME / TIME[-1]
    watched = life(TIME, 50 * MIB + level, {LEAK: level}, births=births, settled=once)
    found = verdict(watched)
    assert [finding.kind for finding in found.findings] == [kind]
    assert not any(finding.is_confirmed_leak for finding in found.findings)


def test_a_leak_is_confirmed_at_once_when_an_earlier_life_died_of_it() -> None:
    """A tenth of the room is enough when the last life ended at its limit of the same growth."""
    young = leaking(limit=600 * MIB)
    died = leaking(ended_near_limit=True)
    assert [finding.stage for finding in verdict(young).findings] == ["suspect"]
    (finding,) = verdict(young, past=(died,)).findings
    assert finding.stage == "confirmed"
    assert "died at the limit while this grew" in " ".join(finding.evidence)


def test_a_life_that_ended_far_from_its_limit_proves_nothing() -> None:
    """A restart, as of a deployment, is no death."""
    (finding,) = verdict(leaking(limit=600 * MIB), past=(leaking(),)).findings
    assert finding.stage == "suspect"


def test_what_the_last_life_died_of_is_said_while_the_next_is_too_young() -> None:
    """Right after the death the finding is still there, of the life that died."""
    reborn = life(np.array([1.0]), np.array([50 * MIB]))
    (finding,) = verdict(reborn, past=(leaking(ended_near_limit=True),)).findings
    assert finding.is_confirmed_leak
    assert finding.function == "remember"


def two_places(inner: Stack, inner_part: float, outer: Stack) -> LifeSeries:
    """A leak of 1 MiB per second in two places."""
    parts = {inner: inner_part, outer: 1 - inner_part}
    return life(
        TIME,
        50 * MIB + MIB * TIME,
        {stack: part * MIB * TIME for stack, part in parts.items()},
        births={stack: np.full(10, 5 * part * MIB) for stack, part in parts.items()},
        limit=150 * MIB,
    )


@pytest.mark.parametrize(("inner_part", "named"), [(0.7, "create"), (0.95, "Session.__init__")])
def test_a_leak_that_flows_through_another_one_is_one_finding(
    inner_part: float, named: str
) -> None:
    """It is named by the caller when that allocates a good part itself, else by who does."""
    caller = (frame("create"), frame("handle"))
    both = two_places((frame("Session.__init__"), *caller), inner_part, caller)
    (finding,) = verdict(both).findings
    assert finding.function == named
    assert finding.rate_bytes_per_second == pytest.approx(MIB, rel=0.01)
    assert "flows through the same calls" in " ".join(finding.evidence)


def test_two_places_of_one_request_are_two_findings_that_count_together() -> None:
    """Neither has taken enough of the room alone; they are confirmed as kin."""
    handler = frame("handle")
    both = two_places((frame("parse"), handler), 0.5, (frame("store"), handler))
    findings = verdict(both).findings
    assert sorted(finding.function for finding in findings) == ["parse", "store"]
    assert all(finding.is_confirmed_leak for finding in findings)
    assert "With what the same requests keep elsewhere" in " ".join(findings[0].evidence)
    apart = two_places((frame("parse"), frame("consume")), 0.5, (frame("store"), frame("produce")))
    assert not any(finding.is_confirmed_leak for finding in verdict(apart).findings)


def test_a_trifle_is_not_accused_because_death_is_near() -> None:
    """A twentieth of the growth is no cause, though it fills the little room that is left."""
    small, large = (frame("index"), frame("consume")), (frame("remember"), frame("produce"))
    watched = replace(two_places(small, 0.05, large), limit_bytes=102 * MIB)
    confirmed = [one.function for one in verdict(watched).findings if one.is_confirmed_leak]
    assert confirmed == ["remember"]


def test_the_line_that_grows_most_is_named() -> None:
    """Of two lines of a function the heavier one is given, with its own stack."""
    light, heavy = frame("remember", line=10), frame("remember", line=11)
    both = two_places((light, frame("handle")), 0.3, (heavy, frame("handle")))
    (finding,) = verdict(both).findings
    assert finding.line == 11
    assert finding.stack[0] == "app/remember.py:11 remember"


def test_native_memory_that_grows_evenly_is_a_native_leak() -> None:
    """RSS that the heap does not explain is told as such, without a line."""
    still = {LEAK: np.full(TIME.size, 10 * MIB)}
    births = {LEAK: np.array([10 * MIB] + [0.0] * 9)}
    watched = life(TIME, 50 * MIB + MIB * TIME, still, births=births, limit=150 * MIB)
    leaks = [finding for finding in verdict(watched).findings if finding.kind == "native leak"]
    (finding,) = leaks
    assert finding.stage == "confirmed"
    assert (finding.file, finding.line, finding.function) == ("", 0, "")
    assert "Memory the heap does not explain has grown" in finding.evidence[0]


NATIVE = (
    Frame("_Znwm", "/usr/lib/libstdc++.so.6", 0),
    Frame("parse", "/srv/libxml2.so.2", 0),
    Frame("_ctypes_callproc", "/usr/lib/python3.11/lib-dynload/_ctypes.so", 0),
)


def test_native_memory_with_samples_has_its_line_and_its_function() -> None:
    """What a library took is a native leak at the line that called it, taken by its function."""
    stack = (*NATIVE, *LEAK)
    births = {stack: np.full(10, 5 * MIB)}
    watched = life(TIME, 50 * MIB + MIB * TIME, {stack: MIB * TIME}, births=births, limit=150 * MIB)
    (finding,) = verdict(watched).findings
    assert (finding.kind, finding.stage) == ("native leak", "confirmed")
    assert (finding.file, finding.line, finding.function) == ("app/remember.py", 10, "remember")
    assert finding.taken_by == "parse in libxml2.so.2"
    assert finding.stack[1] == "srv/libxml2.so.2 parse"
    assert finding.evidence[0].startswith("The native memory that parse in libxml2.so.2 took for")


@pytest.mark.parametrize(("native_part", "kind"), [(0.3, "leak"), (0.7, "native leak")])
def test_the_larger_part_says_whether_a_leak_is_native(native_part: float, kind: str) -> None:
    """A line that keeps both objects and native memory is one finding, of the heavier kind."""
    (finding,) = verdict(two_places((*NATIVE, *LEAK), native_part, LEAK)).findings
    assert finding.kind == kind
    assert bool(finding.taken_by) == (kind == "native leak")


def test_what_allocators_add_to_a_growing_heap_is_not_native() -> None:
    """RSS that grows by 1.3 bytes for each byte of the heap leaves nothing unexplained."""
    watched = leaking()
    watched = replace(watched, rss_bytes=50 * MIB + 1.3 * MIB * TIME)
    assert [finding.kind for finding in verdict(watched).findings] == ["leak"]


def test_memory_kept_by_the_allocator_after_a_burst_is_not_native() -> None:
    """A heap that falls while the RSS stays high does not make that a native leak."""
    heap = np.where(TIME < 25, 4 * MIB * TIME, 10 * MIB)
    rss = 50 * MIB + 1.2 * np.maximum.accumulate(heap)
    births = {LEAK: np.array([10 * MIB] + [0.0] * 9)}
    watched = life(TIME, rss, {LEAK: heap}, births=births, limit=250 * MIB)
    assert not [one for one in verdict(watched).findings if one.kind == "native leak"]


def counted(kind: str, place: Stack, count: np.ndarray) -> Counts:
    """Counts of one stack."""
    return Counts((kind,), (place,), count[None, :])


@pytest.mark.parametrize("kind", ["goroutine", "thread", "task"])
def test_ever_more_goroutines_threads_or_tasks_are_their_leak(kind: str) -> None:
    """A count that rises evenly while memory does is named by where they stand."""
    waiting = (frame("wait_receipt"), frame("run"))
    counts = counted(kind, waiting, np.round(20 * TIME))
    findings = verdict(leaking(counts=counts)).findings
    leak = next(finding for finding in findings if finding.kind == f"{kind} leak")
    assert leak.is_confirmed_leak
    assert leak.function == "wait_receipt"
    assert leak.rate_count_per_second == pytest.approx(20.0, rel=0.02)
    assert f"{kind}s stand in wait_receipt" in leak.evidence[0]


def test_a_count_and_a_heap_leak_of_the_same_function_are_one_finding() -> None:
    """Where tasks and their memory come from one function, the task leak says it all."""
    counts = counted("task", LEAK, np.round(20 * TIME))
    findings = verdict(leaking(counts=counts)).findings
    assert [finding.kind for finding in findings] == ["task leak"]


def test_a_count_that_rose_and_stays_is_no_leak() -> None:
    """More workers than at the start, and then no more, are load."""
    count = 5 + 40 * np.minimum(TIME, 20.0)
    findings = verdict(leaking(counts=counted("thread", (frame("work"),), count))).findings
    assert "thread leak" not in [finding.kind for finding in findings]


def test_threads_whose_stacks_explain_the_growth_make_no_native_leak() -> None:
    """RSS that grows by a thread's stack for each new thread is told as the thread leak alone."""
    counts = counted("thread", (frame("serve"),), np.round(20 * TIME))
    flat = {LEAK: np.full(TIME.size, 5 * MIB)}
    births = {LEAK: np.array([5 * MIB] + [0.0] * 9)}
    watched = life(TIME, 50 * MIB + MIB * TIME, flat, births=births, limit=150 * MIB, counts=counts)
    assert [finding.kind for finding in verdict(watched).findings] == ["thread leak"]


def test_a_container_that_grows_by_reallocation_is_found_by_its_level() -> None:
    """One large block that is always young grows by an eighth at a time: a leak all the same."""
    size = 1.125 ** np.floor(np.log(1 + TIME * MIB) / np.log(1.125))
    births = {LEAK: np.array([0.0] * 9 + [size[-1]])}
    watched = life(
        TIME, 50 * MIB + size, {LEAK: size}, births=births, limit=150 * MIB, object_bytes=40 * MIB
    )
    (finding,) = [one for one in verdict(watched).findings if one.kind == "leak"]
    assert finding.stage == "confirmed"


def test_growth_with_the_load_is_judged_per_request() -> None:
    """A leak under a falling load slows down per second but not per request: still a leak."""
    served = 40 * TIME - 0.3 * TIME**2
    edges = np.arange(11) * 5.0
    births = {LEAK: np.diff(40 * edges - 0.3 * edges**2) * MIB / 20}
    memory = 50 * MIB + served * MIB / 20
    watched = life(TIME, memory, {LEAK: memory}, births=births, limit=150 * MIB, requests=served)
    (finding,) = verdict(watched).findings
    assert finding.kind == "leak"
    assert "Per request that is" in " ".join(finding.evidence)


def test_births_that_only_rise_with_the_load_are_not_steady() -> None:
    """Per second the same while requests double: per request it slows, so nothing is confirmed."""
    served = TIME**2
    watched = leaking(requests=served)
    assert not any(finding.is_confirmed_leak for finding in verdict(watched).findings)


def test_each_instance_gets_a_verdict() -> None:
    """The instance's memory, limit, growth, forecast and verdict are told."""
    flat = life(TIME, np.full(TIME.size, 50 * MIB), instance="shop-2")
    new = life(np.array([1.0]), np.array([50 * MIB]), instance="shop-3", limit=None)
    leaks, steady, starting = verdict(leaking(), flat, new).instances
    assert (leaks.verdict, leaks.memory_bytes, leaks.limit_bytes) == ("leak", 100 * MIB, 150 * MIB)
    assert leaks.growth_bytes_per_second == pytest.approx(MIB)
    assert leaks.seconds_to_death is not None
    assert leaks.seconds_to_death[1] == pytest.approx(50.0)
    assert (steady.verdict, steady.seconds_to_death) == ("steady", None)
    assert (starting.verdict, starting.limit_bytes) == ("starting", None)

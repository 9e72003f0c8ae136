"""Which replicas are taken out, in which order, and what holds them back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.recycle import Past, RecyclePolicy, Replica, plan
from stanch.recycle.plan import why_due

NOW = 1.7e9
POLICY = RecyclePolicy("shop", lead_s=100.0, at=0.8, spacing_s=0.0, most_at_once=2, quorum=0.5)


def replica(number: int, **known: object) -> Replica:
    """A healthy replica that leaks and dies in 50 s."""
    usual: dict[str, object] = {"healthy": True, "leaks": True, "death_s": 50.0}
    return Replica("shop", f"shop-{number}", **(usual | known))  # type: ignore[arg-type]


def taken(replicas: list[Replica], past: Past | None = None, **changes: object) -> list[str]:
    """The numbers of the replicas that are taken out."""
    policy = replace(POLICY, **changes)  # type: ignore[arg-type]
    found = plan(replicas, past or Past(), policy, NOW)
    return [each.instance.removeprefix("shop-") for each, _ in found.take]


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({}, "at its limit in 50 s: "),
        ({"death_s": 100.0}, "at its limit in 2 min: "),
        ({"death_s": 101.0}, ""),
        ({"death_s": None}, ""),
        ({"death_s": None, "memory_share": 0.8}, "at 80% of its limit: "),
        ({"death_s": 500.0, "memory_share": 0.79}, ""),
        ({"leaks": False}, ""),
        ({"leaks": False, "memory_share": 0.99}, ""),
        ({"healthy": False}, ""),
    ],
)
def test_who_is_due(known: dict[str, object], reason: str) -> None:
    """Only a healthy replica with a confirmed leak, near its death or its limit."""
    found = why_due(replica(1, **known), POLICY)
    assert found.startswith(reason) if reason else not found


def test_the_one_that_dies_first_goes_first() -> None:
    """By the time of death, then by memory."""
    replicas = [replica(n, death_s=s) for n, s in ((1, 90.0), (2, 20.0), (3, 60.0), (4, 70.0))]
    assert taken(replicas, most_at_once=3, quorum=0.0) == ["2", "3", "4"]
    full = [replica(n, death_s=None, memory_share=s) for n, s in ((1, 0.85), (2, 0.95), (3, 0.9))]
    assert taken(full, most_at_once=2, quorum=0.0) == ["2", "3"]


def test_never_more_than_so_many_at_a_time() -> None:
    """Those that are out count."""
    replicas = [replica(n) for n in range(6)]
    assert len(taken(replicas)) == 2
    assert len(taken(replicas, Past(ongoing=frozenset({"shop-0"})))) == 1
    assert taken(replicas, Past(ongoing=frozenset({"shop-0", "shop-1"}))) == []


def test_never_below_the_quorum() -> None:
    """Unhealthy ones and those that are out do not count as healthy."""
    replicas = [replica(n, healthy=n >= 2) for n in range(6)]
    assert len(taken(replicas, most_at_once=4)) == 1
    assert taken(replicas, Past(ongoing=frozenset({"shop-5"})), most_at_once=4) == []
    held = plan(replicas[:4], Past(), replace(POLICY, most_at_once=4), NOW).held
    assert held == "2 of 4 are healthy, and 2 must stay so"
    assert taken([replica(1)], quorum=0.0) == []  # the only one always stays
    assert plan([replica(1)], Past(), POLICY, NOW, whole=False).take  # but not its only worker


def test_spaced_out_one_at_a_time() -> None:
    """With a spacing one begins at a time, and the next one after it."""
    replicas = [replica(n) for n in range(6)]
    assert len(taken(replicas, spacing_s=30.0)) == 1
    past = Past(begun_unix=(NOW - 29.0,))
    assert taken(replicas, past, spacing_s=30.0) == []
    assert plan(replicas, past, replace(POLICY, spacing_s=30.0), NOW).held == (
        "the next one may begin in 1 s"
    )
    assert len(taken(replicas, Past(begun_unix=(NOW - 30.0,)), spacing_s=30.0)) == 1


def test_the_budget_of_an_hour() -> None:
    """When it is used up recycling stops and says so; an hour later it goes on."""
    replicas = [replica(n) for n in range(6)]
    begun = tuple(NOW - 600.0 * n for n in range(6))
    assert len(taken(replicas, Past(begun_unix=begun[1:]), per_hour=6)) == 1
    found = plan(replicas, Past(begun_unix=begun), replace(POLICY, per_hour=6), NOW)
    assert found.take == ()
    assert found.stopped == "6 replicas were recycled within the hour, which is the budget"
    later = plan(replicas, Past(begun_unix=begun), replace(POLICY, per_hour=6), NOW + 3000.0)
    assert len(later.take) == 2


def test_a_budget_that_is_used_up_is_no_alarm_while_nothing_is_due() -> None:
    """It stops nothing that nobody wants."""
    begun = tuple(NOW - n for n in range(20))
    calm = [replica(n, death_s=None) for n in range(6)]
    assert plan(calm, Past(begun_unix=begun), POLICY, NOW).stopped == ""


def test_a_failure_stops_it() -> None:
    """Until somebody has looked at it nothing more is taken out."""
    found = plan([replica(1), replica(2)], Past(failed="status 1"), POLICY, NOW)
    assert (found.take, found.stopped) == ((), "the last one failed: status 1")


def test_a_back_end_may_ask_to_wait() -> None:
    """As an API server does for a disruption budget."""
    past = Past(held_until_unix=NOW + 10.0)
    found = plan([replica(1), replica(2)], past, POLICY, NOW)
    assert (found.take, found.held) == ((), "asked to wait 10 s more")
    assert taken([replica(1), replica(2)], Past(held_until_unix=NOW)) == ["1"]


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 1e3)), max_size=12),
    st.integers(0, 12),
    st.integers(1, 5),
    st.floats(0, 1),
    st.integers(1, 20),
    st.lists(st.floats(0, 7200), max_size=10),
)
def test_the_bounds_hold_whatever_comes(
    shapes: list[tuple[bool, bool, float]],
    out: int,
    most: int,
    quorum: float,
    per_hour: int,
    ago: list[float],
) -> None:
    """For any fleet and any past: never too many, never too few healthy, never over budget."""
    replicas = [
        replica(number, healthy=healthy, leaks=leaks, death_s=death_s)
        for number, (healthy, leaks, death_s) in enumerate(shapes)
    ]
    ongoing = frozenset(each.instance for each in replicas[:out])
    policy = replace(POLICY, most_at_once=most, quorum=quorum, per_hour=per_hour)
    past = Past(ongoing, tuple(NOW - each for each in ago))
    take = {each.instance for each, _ in plan(replicas, past, policy, NOW).take}
    assert not take & ongoing
    if take:
        assert len(take | ongoing) <= most
        left = [e for e in replicas if e.healthy and e.instance not in take | ongoing]
        assert len(left) >= policy.must_stay(len(replicas)) >= 1
        assert len(take) + sum(each < 3600 for each in ago) <= per_hour

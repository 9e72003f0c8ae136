"""The store in memory."""

from dataclasses import replace

from stanch.store import MemoryStore, StoreBounds
from tests.store.looks import PROCESS, heap, look


def test_keeps_the_lives_of_a_service_apart() -> None:
    """Two instances are two lives, in the order of their names."""
    store = MemoryStore()
    store.add(look(1.0, instance="shop-2"))
    store.add(look(1.0, instance="shop-1"))
    store.add(look(1.0, service="cart", instance="cart-1"))
    assert store.services() == ("cart", "shop")
    assert [life.instance for life in store.series("shop").lives] == ["shop-1", "shop-2"]
    assert store.series("unknown").lives == ()


def test_a_restart_begins_a_new_life_and_keeps_the_old() -> None:
    """Another pid ends the life, which is kept with whether it died at its limit."""
    store = MemoryStore()
    store.add(look(1.0, replace(PROCESS, age_s=80.0, rss_bytes=97e6, heap=(heap("a", 9e6),))))
    store.add(look(6.0, replace(PROCESS, pid=11, age_s=1.0)))
    series = store.series("shop")
    assert [life.time_s.size for life in series.lives] == [1]
    assert [life.ended_near_limit for life in series.past] == [True]
    assert series.past[0].live_bytes.tolist() == [[9e6]]


def test_one_of_several_processes_killed_at_the_limit_ends_the_life() -> None:
    """A worker that vanishes from a target at its limit was killed; one that retires was not."""
    master, worker = replace(PROCESS, pid=1, age_s=90.0), replace(PROCESS, pid=2, age_s=80.0)
    for memory, lives in ((95e6, 1), (50e6, 0)):
        store = MemoryStore()
        store.add(look(1.0, master, worker, working_set_bytes=memory))
        store.add(look(6.0, replace(master, age_s=95.0), working_set_bytes=40e6))
        assert len(store.series("shop").past) == lives


def test_is_bounded_in_instances_past_lives_and_their_stacks() -> None:
    """Instances beyond the bound are refused and counted; ended lives are few and small."""
    store = MemoryStore(StoreBounds(instances=2, past_lives=3, past_stacks=2))
    for number in range(5):
        store.add(look(1.0, instance=f"shop-{number}"))
    assert len(store.series("shop").lives) == 2
    assert store.refused_instances == 3
    heaps = tuple(heap(f"f{one}", 1e6 * one) for one in range(1, 6))
    for number in range(10):
        process = replace(PROCESS, pid=100 + number, age_s=5.0, heap=heaps)
        store.add(look(10.0 * number + 2, process, instance="shop-1"))
    past = store.series("shop").past
    assert len(past) == 3
    assert past[-1].live_bytes.tolist() == [[4e6], [5e6]]


def test_a_target_that_is_gone_can_be_forgotten() -> None:
    """The running life of a former target is dropped."""
    store = MemoryStore()
    store.add(look(1.0))
    store.forget("shop", "shop-1")
    assert store.services() == ()

"""What every store must give for the same looks: the Store protocol, by comparing with memory."""

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np

from stanch.store import (
    FILES,
    OTHER,
    LifeSeries,
    Look,
    MemoryStore,
    ProcessLook,
    ServiceSeries,
    Stack,
    StackCount,
    Store,
)
from tests.store.looks import PROCESS, heap, look, stack

NOW = 1_800_000_000.0
STEP_S = 5.0


def growing_looks(service: str = "shop") -> list[Look]:
    """Two lives of shop-1, the first killed at its limit, and one of shop-2 with two processes."""
    looks = []
    for number in range(30):
        births = tuple(2e5 if band % 3 else 4e4 for band in range(number + 1))
        churn = tuple(1e6 if band == number else 0.0 for band in range(number + 1))
        heaps = (
            heap("leak", sum(births), births=births),
            heap("churn", 1e6, allocated=1e6 * (number + 1), births=churn),
            heap("start", 3e6, births=(3e6,)),
        )
        process = replace(
            PROCESS,
            age_s=STEP_S * number + 1,
            rss_bytes=40e6 + 2e6 * number,
            requests=100.0 * number,
            heap=heaps,
        )
        counts = (
            StackCount("thread", stack("pool"), 4.0),
            StackCount("task", stack("t"), number),
            StackCount("fd", FILES, 12.0 + number),
        )
        container = {
            "slack_bytes": 5e6 + 1e5 * number,
            "page_cache_bytes": 9e6 if number % 7 else None,
            "max_fds": 1024.0,
            "release": "v1",
        }
        # Once the profile of counts does not come.
        told = counts if number != 9 else ()
        looks.append(_at(number, process, service=service, counts=told, **container))
        # The second process of shop-2 began two steps before the first one's first look.
        child = replace(process, pid=20, age_s=STEP_S * number + 9, heap=heaps[:1])
        looks.append(_at(number, process, child, service=service, instance="shop-2"))
    for number in range(30, 36):
        process = replace(PROCESS, pid=11, age_s=STEP_S * (number - 30) + 1, heap=(heap("a", 1e6),))
        looks.append(_at(number, process, service=service, release="v2"))
    return looks


def _at(number: int, *processes: ProcessLook, **changes: object) -> Look:
    """A look so many steps after the first one; the last one is 10 s before NOW."""
    time_s = STEP_S * number + 1
    return look(time_s, *processes, unix_s=NOW - 190 + time_s, **changes)


def go_looks() -> list[Look]:
    """A target that tells neither age nor pid, whose heap is stale at every second look."""
    looks = []
    for number in range(12):
        process = ProcessLook(
            rss_bytes=30e6 + number * 1e6,
            runtime_bytes=28e6,
            heap=(heap("go", 1e6 * (1 + number // 2), allocated=1e6 * (1 + number)),),
            heap_fresh=number % 2 == 0,
        )
        looks.append(_at(number, process, service="ledger", instance="ledger-1", language="go"))
    return looks


def check_store(store: Store, looks: list[Look], flush: Callable[[], None]) -> None:
    """The store gives for these looks what the one in memory gives."""
    memory = MemoryStore()
    for one in looks:
        store.add(one)
        memory.add(one)
    flush()
    assert set(memory.services()) <= set(store.services())
    for service in memory.services():
        _check_service(store.series(service), memory.series(service))
    assert store.series("unknown") == ServiceSeries("unknown", (), ())


def _check_service(given: ServiceSeries, wanted: ServiceSeries) -> None:
    assert [life.instance for life in given.lives] == [life.instance for life in wanted.lives]
    assert len(given.past) == len(wanted.past)
    for one, other in zip((*given.lives, *given.past), (*wanted.lives, *wanted.past), strict=True):
        _check_life(one, other)


def _check_life(given: LifeSeries, wanted: LifeSeries) -> None:
    same = ("service", "instance", "language", "limit_bytes", "period_bytes", "ended_near_limit")
    same += ("release", "max_fds")
    for name in same:
        assert getattr(given, name) == getattr(wanted, name), name
    by_row = {"live_bytes", "allocated_bytes", "object_bytes"}
    assert set(_kept(given)) == set(_kept(wanted))
    rows = [given.stacks.index(stack) for stack in _kept(wanted)]
    others = [wanted.stacks.index(stack) for stack in _kept(wanted)]
    for field in fields(LifeSeries):
        one, other = getattr(given, field.name), getattr(wanted, field.name)
        if isinstance(one, np.ndarray):
            if field.name in by_row:
                one, other = one[rows], other[others]
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=2e-3, err_msg=field.name)
    assert (given.births is None) == (wanted.births is None)
    if given.births is not None and wanted.births is not None:
        np.testing.assert_allclose(given.births.edges_s, wanted.births.edges_s)
        for name in ("live_bytes", "settled_bytes"):
            one, other = getattr(given.births, name)[rows], getattr(wanted.births, name)[others]
            np.testing.assert_allclose(one, other, err_msg=name)
    assert _counted(given) == _counted(wanted)


def _kept(life: LifeSeries) -> list[Stack]:
    return [stack for stack in life.stacks if stack != OTHER]


def _counted(life: LifeSeries) -> dict[tuple[str, Stack], list[float]]:
    counts = life.counts
    rows = zip(counts.kinds, counts.stacks, counts.count.tolist(), strict=True)
    return {(kind, stack): row for kind, stack, row in rows}

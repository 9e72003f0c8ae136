"""Services that are healthy in themselves, seen through bad input: no crash, no accusation."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from stanch.detect import judge_service
from stanch.evaluate.process import Process
from stanch.evaluate.sites import KIB, MIB, Cache, Churn, Leak, Site
from stanch.store import Frame, Look, MemoryStore, StackHeap

Bend = Callable[[int, Look], Look | None]


def process(seed: int, *more: Site, rate: float = 20.0) -> Process:
    """A process of 256 MiB with garbage, work in flight, and a cache that is full in 5 minutes."""
    rng = np.random.default_rng([11, seed])
    sites: list[Site] = [
        Churn("render_response", per_request=20 * KIB, lives_s=0.3),
        Churn("await_backend", per_request=20 * KIB, lives_s=20.0),
        Cache("render_page", capacity=300, entry_bytes=60 * KIB, share=0.05),
        *more,
    ]
    return Process(rng, sites, lambda _: rate, limit_bytes=256 * MIB, base_bytes=60 * MIB)


def bent(source: Process, bend: Bend) -> Iterator[Look]:
    """The looks of half an hour, bent."""
    for number, look in enumerate(source.looks(1800.0, 15.0)):
        if (found := bend(number, look)) is not None:
            yield found


def accused(looks: Iterator[Look]) -> set[str]:
    """What was ever confirmed."""
    store, found = MemoryStore(), set()
    for number, look in enumerate(looks):
        store.add(look)
        if number % 3 == 0:
            for finding in judge_service(store.series("shop")).findings:
                if finding.is_confirmed_leak:
                    found.add(finding.function)
    return found


def _process(look: Look, **changes: object) -> Look:
    (one,) = look.processes
    return replace(look, processes=(replace(one, **changes),))  # type: ignore[arg-type]


def _scaled(look: Look, factor: float) -> Look:
    heap = tuple(
        StackHeap(
            one.stack,
            one.allocated_bytes,
            one.live_bytes * factor,
            one.live_objects * factor,
            tuple((second, size * factor) for second, size in one.births),
        )
        for one in look.processes[0].heap
    )
    return _process(look, heap=heap)


def _renamed(look: Look) -> Look:
    heap = tuple(
        replace(
            one,
            stack=tuple(
                Frame(f"{frame.function}_v2", frame.file, frame.line + 7) for frame in one.stack
            ),
        )
        for one in look.processes[0].heap
    )
    return _process(look, heap=heap)


BENT: dict[str, Bend] = {
    "gaps": lambda number, look: look if number % 11 < 4 else None,
    "one long gap": lambda number, look: None if 20 < number < 80 else look,
    "the wall clock steps": lambda number, look: replace(
        look, unix_s=look.unix_s + (7200.0 if number % 20 > 9 else -86400.0)
    ),
    "looks come twice and out of order": lambda number, look: replace(
        look, time_s=look.time_s - (40.0 if number % 7 == 6 else 0.0)
    ),
    "the limit changes": lambda number, look: replace(
        look, limit_bytes=(256 if number < 60 else 160) * MIB
    ),
    "the limit comes and goes": lambda number, look: replace(
        look, limit_bytes=None if number % 5 else 256 * MIB
    ),
    "the interval changes": lambda number, look: _process(
        look, period_bytes=(128 if number < 50 else 1024) * KIB
    ),
    "negative values": lambda number, look: (
        _process(look, rss_bytes=-5.0, requests=-7.0) if number % 6 == 0 else look
    ),
    "no memory told": lambda number, look: _process(look, rss_bytes=None),
    "not numbers": lambda number, look: (
        _process(look, rss_bytes=float("nan"), requests=float("inf")) if number % 4 == 0 else look
    ),
    "functions renamed on the way": lambda number, look: look if number < 60 else _renamed(look),
    "one look lies tenfold": lambda number, look: _scaled(look, 10.0) if number == 70 else look,
    "no requests told": lambda number, look: _process(look, requests=None),
    "the age is not told": lambda number, look: _process(look, age_s=None),
}


@pytest.mark.parametrize("name", BENT)
def test_a_healthy_service_is_not_accused_through_bad_input(name: str) -> None:
    """Whatever is done to its looks, nothing is confirmed."""
    assert accused(bent(process(1), BENT[name])) == set()


@pytest.mark.parametrize(
    "name", ["gaps", "the wall clock steps", "the interval changes", "no requests told"]
)
def test_a_leak_is_found_through_bad_input(name: str) -> None:
    """And what leaks is still found: the bad input does not merely silence."""
    leaking = process(2, Leak("remember", per_request=5 * KIB))
    assert accused(bent(leaking, BENT[name])) == {"remember"}


def test_restarts_on_the_way_are_lives_of_their_own() -> None:
    """A healthy service that restarts every five minutes, its cache filling each time."""

    def looks() -> Iterator[Look]:
        for life in range(6):
            one = process(life)
            one.pid, one.born_s = 100 + life, 400.0 * life
            yield from one.looks(300.0, 15.0)

    assert accused(looks()) == set()


def test_one_look_says_nothing() -> None:
    """A single look, and a service without any, give a verdict without findings."""
    store = MemoryStore()
    look = next(process(3).looks(10.0, 5.0))
    store.add(look)
    verdict = judge_service(store.series("shop"))
    assert verdict.findings == ()
    assert [one.verdict for one in verdict.instances] == ["starting"]
    assert judge_service(store.series("nobody")).findings == ()


def test_a_replica_that_lies_does_not_accuse_the_others() -> None:
    """One replica claims absurd sizes; what is confirmed is never of the honest ones."""
    store = MemoryStore()
    honest, liar = process(4), process(5)
    liar.instance = "shop-2"
    rng = np.random.default_rng(9)
    for one, other in zip(honest.looks(1200.0, 15.0), liar.looks(1200.0, 15.0), strict=True):
        store.add(one)
        lie = _scaled(other, float(rng.uniform(0, 1e6)))
        store.add(_process(lie, rss_bytes=float(rng.uniform(0, 1e15))))
        for finding in judge_service(store.series("shop")).findings:
            assert not (finding.is_confirmed_leak and "shop-1" in finding.instances)

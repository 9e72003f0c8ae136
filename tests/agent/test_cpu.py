"""The CPU profile: who burns is named, who waits is not, and threads may come and go."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stanch.agent import cpu
from stanch.agent.cpu import PERIOD_NS, SUPPORTED, cpu_profile, thread_cpu_ns
from stanch.profile import Profile

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="CPU clocks of threads are Linux's")


def burn_here(stop: threading.Event) -> None:
    """Use CPU until told to stop."""
    while not stop.is_set():
        sum(range(1000))


def wait_here(stop: threading.Event) -> None:
    """Use none."""
    stop.wait()


@contextmanager
def running(*works: Callable[[threading.Event], None], name: str = "host") -> Iterator[None]:
    """Have threads at work."""
    stop = threading.Event()
    threads = [threading.Thread(target=work, args=(stop,), name=name) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def cpu_ns(profile: Profile, function: str) -> int:
    """CPU time of stacks with a function."""
    return sum(
        sample.values[1]
        for sample in profile.samples
        if any(line.function.name == function for at in sample.locations for line in at.lines)
    )


def test_the_burning_thread_is_named() -> None:
    """CPU time goes to the stack that uses it, in Go's types."""
    with running(burn_here, wait_here):
        profile = cpu_profile(0.3)
    total = sum(sample.values[1] for sample in profile.samples)
    assert total > 0 and cpu_ns(profile, "burn_here") > 0.5 * total
    assert cpu_ns(profile, "wait_here") < 0.1 * total
    assert [(each.type, each.unit) for each in profile.sample_types] == [
        ("samples", "count"),
        ("cpu", "nanoseconds"),
    ]
    assert profile.period == PERIOD_NS and profile.duration_nanos >= 300_000_000
    assert all(count >= 1 for count, _ in (sample.values for sample in profile.samples))


def test_own_threads_are_left_out() -> None:
    """What the agent's threads use is in no sample."""
    with running(burn_here, name="stanch-burns"):
        profile = cpu_profile(0.2)
    assert cpu_ns(profile, "burn_here") == 0
    assert cpu_ns(profile, cpu.UNSEEN) <= 50_000_000


def test_threads_may_come_and_go() -> None:
    """Threads that end while they are watched neither crash nor stop the profile."""

    def restless(stop: threading.Event) -> None:
        while not stop.is_set():
            short = threading.Thread(target=sum, args=(range(20_000),))
            short.start()
            short.join()

    with running(restless, restless):
        profile = cpu_profile(0.3)
    assert sum(sample.values[1] for sample in profile.samples) > 0


def test_the_clock_of_a_dead_thread_is_none() -> None:
    """A thread's clock is readable while it lives, and None afterwards; another process's never."""
    ids: list[int] = []
    thread = threading.Thread(target=lambda: ids.append(threading.get_native_id()))
    thread.start()
    thread.join()
    own = thread_cpu_ns(threading.get_native_id())
    assert own is not None and own > 0
    while Path(f"/proc/self/task/{ids[0]}").exists():
        os.sched_yield()
    assert thread_cpu_ns(ids[0]) is None
    assert thread_cpu_ns(1) is None


def test_it_ends_when_nobody_wants_it() -> None:
    """A profile of minutes ends at the first check when the client is gone."""
    asked: list[bool] = []

    def wanted() -> bool:
        asked.append(True)
        return False

    profile = cpu_profile(300.0, wanted=wanted)
    assert len(asked) == 1 and profile.duration_nanos < 300_000_000_000

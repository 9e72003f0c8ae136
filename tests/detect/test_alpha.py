"""The promise on noise: one process life, all its stacks, all its looks, at most alpha."""

import math

import numpy as np

from stanch.detect import Settings
from stanch.detect.heap import heap_causes
from stanch.detect.significance import noise_bound
from stanch.evaluate.process import Process
from stanch.evaluate.sites import KIB, MIB, Churn, Leak, Site
from stanch.store import MemoryStore

LIVES = 8
STACKS = 40


def flagged(seed: int, *more: Site) -> bool:
    """Whether any stack of a life without growth ever looks grown, at its looks."""
    rng = np.random.default_rng([5, seed])
    sites = [
        Churn(f"work_{number}", per_request=rng.uniform(5, 60) * KIB, lives_s=rng.uniform(2, 60))
        for number in range(STACKS)
    ]
    process = Process(
        rng, [*sites, *more], lambda _: 20.0, limit_bytes=64_000 * MIB, period_bytes=512 * KIB
    )
    store = MemoryStore()
    for look in process.looks(1500.0, 60.0):
        store.add(look)
        (life,) = store.series("shop").lives
        # From 10 minutes on: what is held has long come to its level.
        if process.now_s >= 600.0 and any(
            cause.leaks for cause in heap_causes(life, None, 0.0, Settings())
        ):
            return True
    return False


def test_noise_alone_flags_no_life_and_a_small_leak_is_seen() -> None:
    """None of 8 lives of 40 stacks is flagged at alpha = 0.01; with 64 KiB a second it is."""
    assert [flagged(seed) for seed in range(LIVES)] == [False] * LIVES
    assert flagged(1, Leak("remember", per_request=3.2 * KIB))


def crossings(bound_of: np.ndarray, drift: float = 0.0) -> int:
    """Of 300 process lives of 40 stacks, those in which one crosses at any of 500 looks.

    Each stack bears and loses two samples a look on average; `drift` more are born than lost.
    bound_of: for each number of births and deaths so far, the sum that is too much, in samples.
    """
    rng = np.random.default_rng(6)
    crossed = 0
    for _ in range(300):
        born = rng.poisson(2.0 + drift, (40, 500))
        died = rng.poisson(2.0, (40, 500))
        events = np.minimum((born + died).cumsum(axis=1), bound_of.size - 1)
        crossed += bool((np.abs((born - died).cumsum(axis=1)) >= bound_of[events]).any())
    return crossed


def test_alpha_holds_for_a_process_life_over_all_its_stacks_and_looks() -> None:
    """At alpha = 0.2 at most a fifth of 300 lives is ever flagged, where a test that is made anew
    at each look flags nearly all; and growth of a sample in three looks is seen in every one."""
    alpha, period = 0.2, 512.0 * KIB
    events = range(4000)
    bound = np.array([noise_bound(n * period**2, period, alpha / 40) / period for n in events])
    by_look = np.array([2.81 * math.sqrt(max(n, 1)) for n in events])  # two-sided, 0.2 / 40
    # 60 expected at most; 80 is more than three standard deviations beyond.
    assert crossings(bound) <= 80
    assert crossings(by_look) > 150
    assert crossings(bound, drift=0.33) == 300

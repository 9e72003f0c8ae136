"""The promise on noise: one process life, all its stacks, all its looks, at most alpha."""

import numpy as np

from stanch.detect import Settings
from stanch.detect.heap import heap_causes
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

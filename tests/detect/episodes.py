"""Episodes of the simulated fleet: what is drawn for each class, and what detection made of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stanch.detect import Finding, Settings, judge_service
from stanch.store import MemoryStore
from tests.detect.fleet import (
    KIB,
    MIB,
    Batch,
    Cache,
    Churn,
    Container,
    Leak,
    Process,
    Site,
    WarmUp,
)


@dataclass(frozen=True)
class Outcome:
    """What became of an episode: when the process died, when a leak of it was confirmed.

    confirmed_s: the first confirmation of the site that leaks, or of native memory or a count
    where that leaks. accused: everything that was confirmed although it does not leak.
    """

    died_s: float | None
    confirmed_s: float | None
    accused: tuple[Finding, ...]
    looks: int

    @property
    def share_of_life(self) -> float:
        """When the leak was confirmed, as a share of the life; infinite when it was not."""
        if self.confirmed_s is None or self.died_s is None:
            return math.inf
        return self.confirmed_s / self.died_s


@dataclass(frozen=True)
class Timing:
    """How long an episode may last, and how often it is looked at and stepped."""

    until_s: float
    every_s: float
    dt_s: float


def play(process: Process, timing: Timing, culprits: set[str]) -> Outcome:
    """Run one process to its death or its time, judging it at each look."""
    store, settings = MemoryStore(), Settings()
    confirmed_s: float | None = None
    accused: dict[tuple[str, bool, str, str], Finding] = {}
    looks = 0
    for look in process.looks(timing.until_s, timing.every_s, timing.dt_s):
        looks += 1
        store.add(look)
        for finding in judge_service(store.series(process.service), settings).findings:
            if not finding.is_confirmed_leak:
                continue
            name = finding.function or "native"
            if name in culprits:
                confirmed_s = confirmed_s or process.now_s
            else:
                accused.setdefault(finding.key, finding)
    died_s = process.now_s if process.dead else None
    return Outcome(died_s, confirmed_s, tuple(accused.values()), looks)


def constant(rate: float) -> Callable[[float], float]:
    """A load that stays the same, in requests per second."""
    return lambda _: rate


def ramp(low: float, high: float, over_s: float) -> Callable[[float], float]:
    """A load that rises evenly and then stays."""
    return lambda now_s: low + (high - low) * min(1.0, now_s / over_s)


def diurnal(mean: float, period_s: float, phase: float) -> Callable[[float], float]:
    """A load that swings by 60 % around its mean."""
    return lambda now_s: mean * (1 + 0.6 * math.sin(2 * math.pi * (now_s / period_s + phase)))


def background(rng: np.random.Generator, life_s: float, limit: float) -> list[Site]:
    """What every process does besides: start-up, garbage, work in flight."""
    return [
        WarmUp("load_modules", total=rng.uniform(0.02, 0.06) * limit, over_s=0.01 * life_s),
        Churn("render_response", per_request=rng.uniform(5, 40) * KIB, lives_s=0.2),
        Churn("await_backend", per_request=rng.uniform(5, 30) * KIB, lives_s=0.01 * life_s),
    ]


def ordinary_process(rng: np.random.Generator, life_s: float, load: float) -> tuple[Process, float]:
    """A process of which nothing leaks yet, and the room below its limit in live bytes."""
    limit = rng.choice([160, 256, 1024]) * MIB
    process = Process(
        rng=rng,
        sites=background(rng, life_s, limit),
        load=constant(load),
        limit_bytes=limit,
        base_bytes=rng.uniform(0.18, 0.32) * limit,
        period_bytes=float(np.clip(limit / 4096, 128 * KIB, 512 * KIB)),
        overhead=rng.uniform(1.0, 1.3),
    )
    return process, (limit - process.base_bytes - 0.05 * limit) / process.overhead


def cache_of(
    rng: np.random.Generator, process: Process, size: float, fill_s: float, keys: str
) -> Cache:
    """A cache that holds `size` bytes when full, and takes about fill_s to fill."""
    capacity = int(rng.integers(200, 600))
    rate = process.load(fill_s) or 1.0
    universe = 3 * capacity
    cache = Cache("render_page", capacity=capacity, entry_bytes=size / capacity)
    if keys == "uniform":
        cache.draw = lambda rng, _: int(rng.integers(universe))
        asks = universe * -math.log1p(-capacity / universe)
    elif keys == "zipf":
        cache.draw = lambda rng, _: int(rng.zipf(1.3) % (50 * capacity))
        asks = 4.0 * capacity
    else:
        asks = float(capacity)
    cache.share = asks / (rate * fill_s)
    return cache


LEAKS = ("plain", "with cache", "diurnal", "native", "tasks", "container", "go", "late", "split")
HEALTHY = (
    "lru sequential",
    "cache uniform",
    "cache zipf",
    "warm-up",
    "warm-up and cache",
    "linear loading",
    "load ramp",
    "diurnal",
    "batch",
    "go cache",
    "task ramp",
)


def leaky_episode(kind: str, seed: int, life_s: float = 90.0, looks: int = 35) -> Outcome:
    """Play one leak of a kind out of LEAKS."""
    rng = np.random.default_rng([seed, LEAKS.index(kind), int(life_s)])
    load = rng.uniform(10, 40) * (90.0 / life_s)
    process, room = ordinary_process(rng, life_s, load)
    per_request = room / (load * life_s)
    culprits = {"remember"}
    match kind:
        case "plain":
            process.sites.append(Leak("remember", per_request=per_request))
        case "with cache":
            process.sites.append(Leak("remember", per_request=0.85 * per_request))
            process.sites.append(cache_of(rng, process, 0.15 * room, 0.25 * life_s, "uniform"))
        case "diurnal":
            process.load = diurnal(load, rng.uniform(0.3, 1.5) * life_s, rng.random())
            process.sites.append(Leak("remember", per_request=per_request))
        case "native":
            process.native_per_s = per_request * load * process.overhead
            culprits = {"native"}
        case "tasks":
            process.sites.append(Leak("compose", per_request=per_request))
            process.tasks = lambda now_s: 5 + load * now_s
            culprits = {"compose", "wait_receipt"}
        case "container":
            process.sites.append(Container("remember", per_request=per_request))
        case "go":
            process.go, process.overhead, process.period_bytes = True, 1.0, 512.0 * KIB
            process.stale_after_s = life_s / 9
            process.sites.append(Leak("remember", per_request=per_request * 0.7))
        case "late":
            process.sites.append(
                Leak("remember", per_request=per_request, start_s=rng.uniform(0.3, 1) * life_s)
            )
        case "split":
            process.sites.append(Leak("remember", per_request=0.6 * per_request))
            process.sites.append(Leak("compose", per_request=0.4 * per_request))
            culprits = {"remember", "compose"}
    timing = Timing(3 * life_s, rng.uniform(0.8, 1.2) * life_s / looks, life_s / 180)
    return play(process, timing, culprits)


def healthy_episode(kind: str, seed: int, life_s: float = 90.0, looks: int = 35) -> Outcome:
    """Play one healthy process of a kind out of HEALTHY, for two such lives."""
    rng = np.random.default_rng([seed, 100 + HEALTHY.index(kind), int(life_s)])
    load = rng.uniform(10, 40) * (90.0 / life_s)
    process, room = ordinary_process(rng, life_s, load)
    fill_s = rng.uniform(0.15, 0.5) * life_s
    match kind:
        case "lru sequential":
            size = rng.uniform(0.05, 0.33) * room
            process.sites.append(cache_of(rng, process, size, fill_s, "sequential"))
        case "cache uniform" | "cache zipf":
            size = rng.uniform(0.05, 0.35) * room
            process.sites.append(cache_of(rng, process, size, fill_s, kind.split()[1]))
        case "warm-up":
            total = rng.uniform(0.1, 0.4) * room
            over_s = rng.uniform(0.1, 0.6) * life_s
            process.sites.append(WarmUp("load_index", total=total, over_s=over_s))
        case "warm-up and cache":
            total = rng.uniform(0.05, 0.2) * room
            process.sites.append(WarmUp("load_index", total=total, over_s=0.4 * life_s))
            process.sites.append(cache_of(rng, process, 0.2 * room, fill_s, "uniform"))
        case "linear loading":
            total = rng.uniform(0.05, 0.2) * room
            process.sites.append(WarmUp("load_index", total=total, over_s=fill_s, saturating=False))
            process.sites.append(cache_of(rng, process, 0.2 * room, fill_s, "sequential"))
        case "load ramp":
            process.load = ramp(0.2 * load, load, rng.uniform(0.3, 1.0) * life_s)
            size = rng.uniform(0.05, 0.35) * room
            lives_s = rng.uniform(0.02, 0.2) * life_s
            process.sites.append(
                Churn("hold_upload", per_request=size / load / lives_s, lives_s=lives_s)
            )
        case "diurnal":
            process.load = diurnal(load, rng.uniform(0.3, 1.5) * life_s, rng.random())
            size = rng.uniform(0.05, 0.25) * room
            lives_s = rng.uniform(0.02, 0.2) * life_s
            process.sites.append(
                Churn("hold_upload", per_request=size / load / lives_s, lives_s=lives_s)
            )
            process.sites.append(cache_of(rng, process, 0.18 * room, fill_s, "uniform"))
        case "batch":
            every_s = rng.uniform(0.1, 0.6) * life_s
            total = rng.uniform(0.05, 0.33) * room
            busy_s = every_s * rng.uniform(0.4, 0.95)
            process.sites.append(Batch("run_job", total=total, busy_s=busy_s, every_s=every_s))
        case "go cache":
            process.go, process.overhead, process.period_bytes = True, 1.0, 512.0 * KIB
            process.stale_after_s = life_s / 9
            size = rng.uniform(0.05, 0.2) * room
            process.sites.append(cache_of(rng, process, size, fill_s, "uniform"))
        case "task ramp":
            over_s = rng.uniform(0.3, 0.8) * life_s
            process.tasks = lambda now_s: 5 + 800 * min(1.0, now_s / over_s)
            process.sites.append(cache_of(rng, process, 0.2 * room, fill_s, "uniform"))
    timing = Timing(2 * life_s, rng.uniform(0.8, 1.2) * life_s / looks, life_s / 180)
    return play(process, timing, set())

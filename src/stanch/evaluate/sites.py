"""Memory of known nature, and the samples that a Poisson sampler would hold of it.

A Site is the memory of one function: a leak, a cache, what requests hold. It steps through time in
steps of any length. All randomness comes from the generator it is given, so a seed is an episode.
Sizes are bytes, times seconds of the process's age.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from stanch.store.series import Floats

MIB = 1024 * 1024
KIB = 1024

Kept: TypeAlias = Literal["", "table", "lru_cache", "lost", "local"]
Keys: TypeAlias = Literal["sequential", "uniform", "zipf"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a process: its end, its length, the requests served, the sampler's interval."""

    rng: np.random.Generator
    now_s: float
    dt_s: float
    requests: float
    period_bytes: float


@dataclass(slots=True)
class Samples:
    """The live samples of one site: parallel arrays of birth, weight (bytes) and owner."""

    birth_s: Floats = field(default_factory=lambda: np.zeros(0))
    weight: Floats = field(default_factory=lambda: np.zeros(0))
    owner: Floats = field(default_factory=lambda: np.zeros(0))

    def add(self, births: Floats, weight: float, owner: float | Floats) -> None:
        """Take in the samples of new memory."""
        if births.size:
            self.birth_s = np.concatenate([self.birth_s, births])
            self.weight = np.concatenate([self.weight, np.full(births.size, weight)])
            owners = np.broadcast_to(np.asarray(owner, dtype=np.float64), births.shape)
            self.owner = np.concatenate([self.owner, owners])

    def keep(self, which: np.ndarray) -> None:
        """Drop the samples of memory that was freed."""
        self.birth_s, self.weight = self.birth_s[which], self.weight[which]
        self.owner = self.owner[which]

    def clear(self) -> None:
        """Drop all."""
        self.birth_s = self.weight = self.owner = np.zeros(0)


@dataclass(slots=True)
class Site:
    """Memory of one function. Subclasses say how it comes and goes in `step`.

    object_bytes: size of one object. kept: how a retention search finds it held, "" when the
    search finds nothing that tells. emptied: whether the search says that some code takes entries
    out of what holds it, None when it cannot tell. removal_runs_s: the age at which such code first
    runs. sized: whether some code compares the length of what holds it. in_requests: whether
    requests allocate it.
    """

    name: str
    object_bytes: float = 200.0
    samples: Samples = field(default_factory=Samples)
    allocated: float = 0.0
    true_bytes: float = 0.0
    kept: Kept = ""
    emptied: bool | None = None
    removal_runs_s: float = 0.0
    sized: bool = False
    in_requests: bool = True

    def step(self, step: Step) -> None:
        """Advance by one step."""
        raise NotImplementedError

    @property
    def length(self) -> int | None:
        """Entries of the container that holds this memory; None when none does."""
        return None

    @property
    def bound(self) -> int | None:
        """Entries the container takes at most; None without a bound."""
        return None

    def growing(self, now_s: float, load: float) -> float:
        """How many entries the container gains per second."""
        return 0.0

    def weigh(self, step: Step) -> float:
        """What one sample of this site stands for, in bytes."""
        return self.object_bytes / -math.expm1(-self.object_bytes / step.period_bytes)

    def allocate(self, step: Step, size: float) -> None:
        """Allocate so many bytes in small objects, evenly over the step."""
        if size <= 0:
            return
        weight = self.weigh(step)
        count = int(step.rng.poisson(size / weight))
        self.samples.add(step.now_s - step.dt_s * step.rng.random(count), weight, 0.0)
        self.allocated += count * weight
        self.true_bytes += size


@dataclass(slots=True)
class Leak(Site):
    """Keeps bytes for ever: per request, and per second whatever the load; from `start_s` on."""

    per_request: float = 0.0
    per_s: float = 0.0
    start_s: float = 0.0
    held: int = 0
    kept: Kept = "table"

    def growing(self, now_s: float, load: float) -> float:
        return load if now_s > self.start_s else 0.0

    def step(self, step: Step) -> None:
        if step.now_s > self.start_s:
            self.held += int(step.requests)
            self.allocate(step, self.per_request * step.requests + self.per_s * step.dt_s)

    @property
    def length(self) -> int | None:
        return self.held


@dataclass(slots=True)
class Churn(Site):
    """Memory of requests that lives an exponential time: garbage, in-flight work, short TTLs."""

    per_request: float = 20 * KIB
    lives_s: float = 0.5

    def step(self, step: Step) -> None:
        stays = math.exp(-step.dt_s / self.lives_s)
        self.samples.keep(step.rng.random(self.samples.birth_s.size) < stays)
        size = self.per_request * step.requests
        # Of what this step bears, that much is alive at its end; the youngest for the most part.
        alive = size * self.lives_s / step.dt_s * (1.0 - stays)
        weight = self.weigh(step)
        count = int(step.rng.poisson(alive / weight))
        ages = -self.lives_s * np.log1p(-step.rng.random(count) * (1.0 - stays))
        self.samples.add(step.now_s - ages, weight, 0.0)
        self.allocated += size
        self.true_bytes = self.true_bytes * stays + alive


@dataclass(slots=True)
class WarmUp(Site):
    """Memory that is taken once: evenly over `over_s`, or ever slower with that time constant."""

    total: float = 10 * MIB
    over_s: float = 30.0
    saturating: bool = True
    start_s: float = 0.0
    kept: Kept = "table"

    def growing(self, now_s: float, load: float) -> float:
        return (self._level(now_s) - self._level(now_s - 1.0)) / 1000.0

    def step(self, step: Step) -> None:
        self.allocate(step, self._level(step.now_s) - self._level(step.now_s - step.dt_s))

    def _level(self, now_s: float) -> float:
        part = max(0.0, now_s - self.start_s) / self.over_s
        return self.total * (-math.expm1(-part) if self.saturating else min(1.0, part))


@dataclass(slots=True)
class Cache(Site):
    """An LRU cache of `capacity` entries, asked for keys by `share` of the requests.

    keys: each asked once (sequential), evenly out of three times the capacity, or Zipf's.
    """

    capacity: int = 300
    entry_bytes: float = 60 * KIB
    share: float = 1.0
    keys: Keys = "sequential"
    entries: OrderedDict[int, int] = field(default_factory=OrderedDict)
    asked: float = 0.0
    serial: int = 0
    kept: Kept = "table"

    def growing(self, now_s: float, load: float) -> float:
        return load * self.share if len(self.entries) < self.capacity else 0.0

    @property
    def length(self) -> int | None:
        return len(self.entries)

    @property
    def bound(self) -> int | None:
        return self.capacity

    def step(self, step: Step) -> None:
        before = int(self.asked)
        self.asked += step.requests * self.share
        gone: set[int] = set()
        born: list[int] = []
        for key in self._draw(step.rng, before, int(self.asked) - before):
            if key in self.entries:
                self.entries.move_to_end(key)
                continue
            self.serial += 1
            self.entries[key] = self.serial
            born.append(self.serial)
            if len(self.entries) > self.capacity:
                gone.add(self.entries.popitem(last=False)[1])
        if gone:
            self.samples.keep(~np.isin(self.samples.owner, list(gone)))
            self.true_bytes -= self.entry_bytes * len(gone - set(born))
        stay = np.array([owner for owner in born if owner not in gone], dtype=np.float64)
        self.allocated += self.entry_bytes * len(born)
        self.true_bytes += self.entry_bytes * stay.size
        weight = self.weigh(step)
        counts = step.rng.poisson(self.entry_bytes / weight, size=stay.size)
        births = step.now_s - step.dt_s * step.rng.random(int(counts.sum()))
        self.samples.add(births, weight, np.repeat(stay, counts))

    def _draw(self, rng: np.random.Generator, first: int, count: int) -> list[int]:
        match self.keys:
            case "uniform":
                return [int(key) for key in rng.integers(3 * self.capacity, size=count)]
            case "zipf":
                return [int(key) for key in rng.zipf(1.3, size=count) % (50 * self.capacity)]
        return list(range(first, first + count))


@dataclass(slots=True)
class Expiring(Site):
    """A table whose entries go when they are so old: even growth until the first one goes.

    Nothing in the table tells its bound.
    """

    per_request: float = 1 * KIB
    lives_s: float = 600.0
    kept: Kept = "table"

    def growing(self, now_s: float, load: float) -> float:
        return load if now_s < self.lives_s else 0.0

    @property
    def length(self) -> int | None:
        return int(self.true_bytes / max(self.per_request, 1.0))

    def step(self, step: Step) -> None:
        self.allocate(step, self.per_request * step.requests)
        young = self.samples.birth_s > step.now_s - self.lives_s
        if not young.all():
            self.samples.keep(young)
        self.true_bytes = min(
            self.true_bytes, self.per_request * step.requests / step.dt_s * self.lives_s
        )


@dataclass(slots=True)
class Batch(Site):
    """A job that takes `total` evenly over `busy_s` and gives it back, every `every_s`."""

    total: float = 20 * MIB
    busy_s: float = 20.0
    every_s: float = 40.0
    kept: Kept = "local"

    def growing(self, now_s: float, load: float) -> float:
        return 1.0 if now_s % self.every_s <= self.busy_s else 0.0

    def step(self, step: Step) -> None:
        phase = step.now_s % self.every_s
        if phase < step.dt_s or phase > self.busy_s:
            self.samples.clear()
            self.true_bytes = 0.0
        if phase <= self.busy_s:
            self.allocate(step, self.total * min(step.dt_s, phase) / self.busy_s)


@dataclass(slots=True)
class Container(Site):
    """One list that grows by reallocation: always a single young block, an eighth larger."""

    per_request: float = 8.0
    items_bytes: float = 4096.0
    size: float = 0.0
    kept: Kept = "table"

    def growing(self, now_s: float, load: float) -> float:
        return self.per_request * load / 8

    @property
    def length(self) -> int | None:
        return int(self.items_bytes / 8)

    def step(self, step: Step) -> None:
        self.items_bytes += self.per_request * step.requests
        while self.items_bytes > self.size:
            self.size = max(64.0, self.size * 1.125)
            self.object_bytes = self.size
            self.samples.clear()
            weight = self.weigh(step)
            if step.rng.random() < self.size / weight:
                self.samples.add(np.array([step.now_s]), weight, 0.0)
                self.allocated += weight
        self.true_bytes = self.size


LOADS: TypeAlias = Callable[[float], float]
"""Requests per second at an age of the process."""

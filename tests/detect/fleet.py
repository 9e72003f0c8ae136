"""A simulated fleet: processes with memory of known nature, seen through the sampler's noise.

A Process is a set of sites (a leak, a cache, churn, ...), a load and a limit. Each site keeps the
samples that a Poisson sampler would hold of its memory, with their births. `look` gives what a
scrape of the process would give. All randomness comes from one generator, so a seed is an episode.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from stanch.store import BIRTH_BAND_S, Frame, Look, ProcessLook, Stack, StackCount, StackHeap

MIB = 1024 * 1024
KIB = 1024


def stack_of(site: str) -> Stack:
    """The stack of a site: a library leaf, the site's own function, a handler above."""
    return (
        Frame("JSONDecoder.raw_decode", "/usr/lib/python3.11/json/decoder.py", 353),
        Frame(site, f"/srv/app/{site}.py", 41),
        Frame("handle", "/srv/app/handlers.py", 12),
        Frame("Flask.dispatch_request", "/venv/lib/python3.11/site-packages/flask/app.py", 902),
    )


@dataclass
class Samples:
    """The live samples of one site: parallel lists of birth, weight (bytes) and owner."""

    birth_s: np.ndarray = field(default_factory=lambda: np.zeros(0))
    weight: np.ndarray = field(default_factory=lambda: np.zeros(0))
    owner: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def add(self, births: np.ndarray, weight: float, owner: float) -> None:
        """Take in the samples of new memory."""
        self.birth_s = np.concatenate([self.birth_s, births])
        self.weight = np.concatenate([self.weight, np.full(births.size, weight)])
        self.owner = np.concatenate([self.owner, np.full(births.size, owner)])

    def keep(self, which: np.ndarray) -> None:
        """Drop the samples of memory that was freed."""
        self.birth_s, self.weight = self.birth_s[which], self.weight[which]
        self.owner = self.owner[which]


@dataclass
class Site:
    """Memory of one function. Subclasses say how it comes and goes in `step`."""

    name: str
    object_bytes: float = 200.0
    samples: Samples = field(default_factory=Samples)
    allocated: float = 0.0
    true_bytes: float = 0.0

    def step(self, world: "Process", now_s: float, dt_s: float, requests: float) -> None:
        """Advance by dt_s, in which so many requests were served."""
        raise NotImplementedError

    def allocate(
        self, world: "Process", now_s: float, dt_s: float, size: float, owner: float = 0.0
    ) -> None:
        """Allocate so many bytes in small objects over the last dt_s."""
        if size <= 0:
            return
        # Small objects: the number of samples is Poisson and each weighs about one period.
        weight = self.object_bytes / -math.expm1(-self.object_bytes / world.period_bytes)
        count = world.rng.poisson(size / weight)
        births = now_s - dt_s * world.rng.random(count)
        self.samples.add(births, weight, owner)
        self.allocated += count * weight
        self.true_bytes += size


@dataclass
class Leak(Site):
    """Keeps bytes for ever: per request, and per second whatever the load; from `start_s` on."""

    per_request: float = 0.0
    per_s: float = 0.0
    start_s: float = 0.0

    def step(self, world: "Process", now_s: float, dt_s: float, requests: float) -> None:
        if now_s > self.start_s:
            self.allocate(world, now_s, dt_s, self.per_request * requests + self.per_s * dt_s)


@dataclass
class Churn(Site):
    """Memory of requests that lives an exponential time: garbage, in-flight work, short TTLs."""

    per_request: float = 20 * KIB
    lives_s: float = 0.5

    def step(self, world: "Process", now_s: float, dt_s: float, requests: float) -> None:
        dies = world.rng.random(self.samples.birth_s.size) < -math.expm1(-dt_s / self.lives_s)
        self.samples.keep(~dies)
        self.true_bytes *= math.exp(-dt_s / self.lives_s)
        self.allocate(world, now_s, dt_s, self.per_request * requests)


@dataclass
class WarmUp(Site):
    """Memory that is taken once: evenly over `over_s`, or ever slower with that time constant."""

    total: float = 10 * MIB
    over_s: float = 30.0
    saturating: bool = True
    start_s: float = 0.0

    def _level(self, now_s: float) -> float:
        part = max(0.0, now_s - self.start_s) / self.over_s
        return self.total * (-math.expm1(-part) if self.saturating else min(1.0, part))

    def step(self, world: "Process", now_s: float, dt_s: float, requests: float) -> None:
        self.allocate(world, now_s, dt_s, self._level(now_s) - self._level(now_s - dt_s))


@dataclass
class Cache(Site):
    """An LRU cache of `capacity` entries of so many bytes, asked for keys by `draw`.

    draw: the generator and the number of the request to a key.
    """

    capacity: int = 300
    entry_bytes: float = 60 * KIB
    share: float = 1.0
    draw: Callable[[np.random.Generator, int], int] = lambda _, number: number
    entries: OrderedDict[int, int] = field(default_factory=OrderedDict)
    asked: float = 0.0
    serial: int = 0

    def step(self, world: "Process", now_s: float, dt_s: float, requests: float) -> None:
        before = int(self.asked)
        self.asked += requests * self.share
        gone = set()
        for number in range(before, int(self.asked)):
            key = self.draw(world.rng, number)
            if key in self.entries:
                self.entries.move_to_end(key)
                continue
            self.serial += 1
            self.entries[key] = self.serial
            self.allocate(world, now_s, dt_s, self.entry_bytes, owner=self.serial)
            if len(self.entries) > self.capacity:
                gone.add(self.entries.popitem(last=False)[1])
                self.true_bytes -= self.entry_bytes
        if gone:
            self.samples.keep(~np.isin(self.samples.owner, list(gone)))


@dataclass
class Batch(Site):
    """A job that takes `total` evenly over `busy_s` and gives it back, every `every_s`."""

    total: float = 20 * MIB
    busy_s: float = 20.0
    every_s: float = 40.0

    def step(self, world: "Process", now_s: float, dt_s: float, requests: float) -> None:
        phase = now_s % self.every_s
        if phase < dt_s or phase > self.busy_s:
            self.samples.keep(np.zeros(self.samples.birth_s.size, dtype=bool))
            self.true_bytes = 0.0
        if phase <= self.busy_s:
            self.allocate(world, now_s, dt_s, self.total * dt_s / self.busy_s)


@dataclass
class Container(Site):
    """One list that grows by reallocation: always a single young block, an eighth larger."""

    per_request: float = 8.0
    items_bytes: float = 4096.0
    size: float = 0.0

    def step(self, world: "Process", now_s: float, dt_s: float, requests: float) -> None:
        self.items_bytes += self.per_request * requests
        while self.items_bytes > self.size:
            self.size = max(64.0, self.size * 1.125)
            self.object_bytes = self.size
            self.samples = Samples()
            kept = -math.expm1(-self.size / world.period_bytes)
            if world.rng.random() < kept:
                self.samples.add(np.array([now_s]), self.size / kept, 0.0)
                self.allocated += self.size / kept
        self.true_bytes = self.size


@dataclass
class Process:
    """One process with its sites, load and limit.

    load: requests per second at a time. native_per_s: C memory leaked per second. overhead: RSS
    per live byte. tasks: number of tasks waiting at a time, or None. go: no births, and the heap
    profile only changes when a collection ran, of itself or `stale_after_s` after the last.
    """

    rng: np.random.Generator
    sites: list[Site]
    load: Callable[[float], float]
    limit_bytes: float = 160 * MIB
    base_bytes: float = 50 * MIB
    period_bytes: float = 128 * KIB
    overhead: float = 1.15
    native_per_s: float = 0.0
    tasks: Callable[[float], float] | None = None
    go: bool = False
    shows_requests: bool = True
    service: str = "shop"
    instance: str = "shop-1"
    pid: int = 4711
    now_s: float = 0.0
    requests: float = 0.0
    rss_bytes: float = 0.0
    collected_bytes: float = 0.0
    collected_s: float = 0.0
    stale_after_s: float = 10.0
    stale: tuple[StackHeap, ...] = ()

    def advance(self, until_s: float, dt_s: float) -> None:
        """Let time pass up to `until_s` in steps of at most dt_s; stops when the process dies."""
        while self.now_s < until_s - 1e-9 and not self.dead:
            dt = min(dt_s, until_s - self.now_s)
            self.now_s += dt
            served = float(self.rng.poisson(max(0.0, self.load(self.now_s)) * dt))
            self.requests += served
            for site in self.sites:
                site.step(self, self.now_s, dt, served)
            live = sum(site.true_bytes for site in self.sites)
            garbage = 1.6 if self.go else 1.0
            used = self.base_bytes + live * self.overhead * garbage
            used += self.native_per_s * self.now_s
            # Allocators rarely give back: memory follows the highest level, and a little is dust.
            self.rss_bytes = max(self.rss_bytes, used)
            self.rss_bytes -= 0.1 * max(0.0, self.rss_bytes - used) * dt / 10.0
            if self.go and live > 1.3 * self.collected_bytes:
                self.collect()

    def collect(self) -> None:
        """Run Go's garbage collector: only now does the heap profile change."""
        self.collected_bytes = sum(site.true_bytes for site in self.sites)
        self.collected_s = self.now_s
        self.stale = self._heap()

    @property
    def dead(self) -> bool:
        """Whether the kernel would have killed it."""
        return self.rss_bytes >= self.limit_bytes

    def look(self) -> Look:
        """What a scrape of this moment gives; a Go heap that is too old is collected for it."""
        if self.go and self.now_s - self.collected_s >= self.stale_after_s:
            self.collect()
        jitter = self.rng.normal(0.0, 64 * KIB)
        heap = self.stale if self.go else self._heap()
        process = ProcessLook(
            pid=self.pid,
            age_s=None if self.go else self.now_s,
            rss_bytes=self.rss_bytes + jitter,
            requests=self.requests if self.shows_requests and not self.go else None,
            period_bytes=self.period_bytes,
            heap=heap,
            runtime_bytes=self.rss_bytes - self.native_per_s * self.now_s if self.go else None,
        )
        counts = ()
        if self.tasks is not None:
            kind = "goroutine" if self.go else "task"
            level = float(self.rng.poisson(0) + round(self.tasks(self.now_s)))
            counts = (StackCount(kind, stack_of("wait_receipt"), level),)
        return Look(
            service=self.service,
            instance=self.instance,
            time_s=1000.0 + self.now_s,
            unix_s=1.7e9 + self.now_s,
            language="go" if self.go else "python",
            processes=(process,),
            limit_bytes=self.limit_bytes,
            counts=counts,
        )

    def looks(self, until_s: float, every_s: float, dt_s: float) -> Iterator[Look]:
        """Looks every so often, until the process dies."""
        next_s = 1.0
        while next_s <= until_s:
            self.advance(next_s, dt_s)
            if self.dead:
                return
            yield self.look()
            next_s += every_s

    def _heap(self) -> tuple[StackHeap, ...]:
        return tuple(self._stack_heap(site) for site in self.sites)

    def _stack_heap(self, site: Site) -> StackHeap:
        live = float(site.samples.weight.sum())
        births: tuple[tuple[float, float], ...] = ()
        if not self.go and live:
            band = np.floor(site.samples.birth_s / BIRTH_BAND_S) * BIRTH_BAND_S
            seconds, position = np.unique(np.maximum(band, 0.0), return_inverse=True)
            sums = np.bincount(position, weights=site.samples.weight)
            births = tuple(zip(seconds.tolist(), sums.tolist(), strict=True))
        return StackHeap(
            stack=stack_of(site.name),
            allocated_bytes=site.allocated,
            live_bytes=live,
            live_objects=live / site.object_bytes,
            births=births,
        )

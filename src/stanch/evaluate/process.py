"""A simulated process: its sites, its load, its limit, and what a scrape of it would see.

The sampler's noise is that of the real one: what a site holds is known through Poisson samples of
one per `period_bytes`. RSS is exact but for 64 KiB of jitter, as allocators give back slowly.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stanch.evaluate.sites import KIB, LOADS, MIB, Site, Step
from stanch.store import BIRTH_BAND_S, Frame, Look, ProcessLook, Stack, StackCount, StackHeap

_BANDS = 768
"""Births are told in bands of 5 s times a power of two, at most so many. The store's own bands are
at most 96 of such widths, so it sees what it would see of bands of 5 s."""


_LOST = "not reachable from any Python object: native reference"


_PACKAGES = "/venv/lib/python3.11/site-packages"


def stack_of(site: str, *, in_requests: bool = True) -> Stack:
    """The stack of a site: a library leaf, the site's own function, and who called it."""
    own = (
        Frame("JSONDecoder.raw_decode", "/usr/lib/python3.11/json/decoder.py", 353),
        Frame(site, f"/srv/app/{site}.py", 41),
    )
    if not in_requests:
        return (*own, Frame("work", "/srv/app/background.py", 30))
    return (
        *own,
        Frame("handle", "/srv/app/handlers.py", 12),
        Frame("Flask.dispatch_request", f"{_PACKAGES}/flask/app.py", 902),
        Frame("StanchWSGI.__call__", f"{_PACKAGES}/stanch/agent/middleware.py", 89),
    )


@dataclass(slots=True)
class Process:
    """One process from its start to its death.

    load: requests per second at an age. native: bytes of C memory at an age, which no stack
    explains. overhead: RSS per live byte. tasks: how many tasks (Go: goroutines) wait at an age.
    go: no births, and the heap profile only changes when a collection ran, of itself or
    `stale_after_s` after the last.
    """

    rng: np.random.Generator
    sites: list[Site]
    load: LOADS
    limit_bytes: float = 160 * MIB
    base_bytes: float = 50 * MIB
    period_bytes: float = 128 * KIB
    overhead: float = 1.15
    native: Callable[[float], float] | None = None
    tasks: Callable[[float], float] | None = None
    go: bool = False
    shows_requests: bool = True
    service: str = "shop"
    instance: str = "shop-1"
    pid: int = 4711
    release: str = ""
    stale_after_s: float = 10.0
    born_s: float = 0.0
    now_s: float = 0.0
    requests: float = 0.0
    rss_bytes: float = 0.0
    collected_bytes: float = 0.0
    collected_s: float = 0.0
    stale: tuple[StackHeap, ...] = ()

    @property
    def dead(self) -> bool:
        """Whether the kernel would have killed it."""
        return self.rss_bytes >= self.limit_bytes

    def advance(self, until_s: float, dt_s: float) -> None:
        """Let time pass up to an age in steps of at most dt_s; stops when the process dies."""
        while self.now_s < until_s - 1e-9 and not self.dead:
            dt = min(dt_s, until_s - self.now_s)
            self.now_s += dt
            served = float(self.rng.poisson(max(0.0, self.load(self.now_s)) * dt))
            self.requests += served
            step = Step(self.rng, self.now_s, dt, served, self.period_bytes)
            for site in self.sites:
                site.step(step)
            live = sum(site.true_bytes for site in self.sites)
            used = self.base_bytes + live * self.overhead * (1.6 if self.go else 1.0)
            used += self.native(self.now_s) if self.native else 0.0
            # Allocators rarely give back: memory follows the highest level, and sinks slowly.
            given_back = -math.expm1(-0.01 * dt) * max(0.0, self.rss_bytes - used)
            self.rss_bytes = max(self.rss_bytes - given_back, used)
            if self.go and live > 1.3 * self.collected_bytes:
                self._collect()

    def look(self) -> Look:
        """What a scrape of this moment gives; a Go heap that is too old is collected for it."""
        if self.go and self.now_s - self.collected_s >= self.stale_after_s:
            self._collect()
        rss = self.rss_bytes + self.rng.normal(0.0, 64 * KIB)
        native = self.native(self.now_s) if self.native else 0.0
        process = ProcessLook(
            pid=self.pid,
            age_s=None if self.go else self.now_s,
            rss_bytes=rss,
            requests=self.requests if self.shows_requests and not self.go else None,
            period_bytes=self.period_bytes,
            heap=self.stale if self.go else self._heap(),
            runtime_bytes=self.rss_bytes - native if self.go else None,
        )
        counts: tuple[StackCount, ...] = ()
        if self.tasks is not None:
            kind = "goroutine" if self.go else "task"
            counts = (StackCount(kind, stack_of("wait_receipt"), round(self.tasks(self.now_s))),)
        return Look(
            service=self.service,
            instance=self.instance,
            time_s=self.born_s + self.now_s,
            unix_s=1.7e9 + self.born_s + self.now_s,
            language="go" if self.go else "python",
            processes=(process,),
            limit_bytes=self.limit_bytes,
            counts=counts,
            release=self.release,
        )

    def looks(self, until_s: float, every_s: float) -> Iterator[Look]:
        """Looks every so often up to an age, until the process dies."""
        next_s = min(1.0, every_s / 10)
        while next_s <= until_s:
            self.advance(next_s, every_s / 2)
            if self.dead:
                return
            yield self.look()
            next_s += every_s

    def inspect(self, function: str, *, opaque: bool) -> Mapping[str, Any] | None:
        """What the agent's retention search would answer about the memory of a function.

        None without an agent (Go), or for memory of no site. opaque: bounds cannot be read.
        """
        site = next((one for one in self.sites if one.name == function), None)
        if site is None or self.go:
            return None
        answer: dict[str, Any] = {"bytes": site.true_bytes, "holders": [], "paths": []}
        held: dict[str, Any] = {"bytes": site.true_bytes, "length": site.length, "bound": None}
        match site.kept:
            case "lost":
                path = {"bytes": site.true_bytes, "reference": f"{_LOST}, or a missing decref"}
                answer["paths"] = [path]
            case "local":
                name = f"local rows of running {site.name} (app/{site.name}.py:41)"
                answer["holders"] = [held | {"name": name, "type": "list"}]
            case "lru_cache":
                held |= {"name": f"{site.name}.cache", "type": "functools.lru_cache"}
                answer["holders"] = [held]
            case _:
                kind = "OrderedDict" if opaque and site.true_bytes > 0 else "dict"
                bound = None if opaque else site.bound
                name = f"app/{site.name}.py module global TABLE"
                ran = self.now_s >= site.removal_runs_s if site.emptied else None
                seen = {"bound": bound, "removed_from": site.emptied}
                seen |= {"removal_ran": ran, "length_compared": site.sized}
                answer["holders"] = [held | {"name": name, "type": kind} | seen]
        for one in answer["holders"]:
            one["growth_per_second"] = site.growing(self.now_s, self.load(self.now_s))
        return answer if site.kept else None

    def _collect(self) -> None:
        """Run Go's garbage collector: only now does the heap profile change."""
        self.collected_bytes = sum(site.true_bytes for site in self.sites)
        self.collected_s = self.now_s
        self.stale = self._heap()

    def _heap(self) -> tuple[StackHeap, ...]:
        width_s = BIRTH_BAND_S
        while self.now_s >= width_s * _BANDS:
            width_s *= 2
        return tuple(self._stack_heap(site, width_s) for site in self.sites)

    def _stack_heap(self, site: Site, width_s: float) -> StackHeap:
        live = float(site.samples.weight.sum())
        births: tuple[tuple[float, float], ...] = ()
        if not self.go and live:
            bands = np.maximum(site.samples.birth_s / width_s, 0.0).astype(np.int64)
            sums = np.bincount(bands, weights=site.samples.weight)
            filled = np.flatnonzero(sums)
            births = tuple(zip((filled * width_s).tolist(), sums[filled].tolist(), strict=True))
        return StackHeap(
            stack=stack_of(site.name, in_requests=site.in_requests),
            allocated_bytes=site.allocated,
            live_bytes=live,
            live_objects=live / site.object_bytes,
            births=births,
        )

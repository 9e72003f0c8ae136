"""Simulated services: what is drawn for each kind of leak and of look-alike.

Whatever a service is made of is drawn once; each of its lives is then built anew from that, with
noise of its own. Sizes are shares of the room, which is what is left below the limit at the start.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stanch.evaluate.process import Process
from stanch.evaluate.sites import (
    KIB,
    LOADS,
    MIB,
    Batch,
    Cache,
    Churn,
    Container,
    Expiring,
    Kept,
    Keys,
    Leak,
    Site,
    WarmUp,
)
from stanch.evaluate.spec import HealthyKind, History, LeakKind, Spec

NATIVE = ""
"""The name of memory that no line of the program's own language allocates."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of a service.

    causes: the functions whose memory leaks, "" for native memory. allocating: functions that
    allocate what leaks but do not keep it. classes: the kinds of finding that say what it is.
    onset_s: age at which the leak begins. rate: bytes per second of memory. opaque: whether a
    retention search cannot read the bound of the containers.
    """

    kind: str
    band: str = ""
    history: History = "none"
    causes: frozenset[str] = frozenset()
    allocating: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    onset_s: float = 0.0
    rate: float = 0.0
    opaque: bool = False

    @property
    def leaks(self) -> bool:
        """Whether anything leaks."""
        return bool(self.causes)


Build = Callable[[np.random.Generator, bool], Process]
"""Makes a life of the service; the flag says whether it has the code of the watched lives."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service to be played: how its lives are made and when they begin.

    history: lengths of the earlier lives, infinite for one that ends in death. deploy_s: when the
    watched life is replaced by another of the same code. until_s, every_s: how long the watched
    life is played at most, and how often it is looked at.
    """

    truth: Truth
    build: Build
    history: tuple[float, ...]
    until_s: float
    every_s: float
    deploy_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Frame:
    """What every service has besides: limit, base, overhead, load and its background."""

    limit: float
    base: float
    overhead: float
    load: float
    period: float
    modules: float
    work: tuple[tuple[str, float, float], ...]

    @property
    def room(self) -> float:
        """Live bytes below the limit once it has started."""
        held = self.modules + sum(level for _, level, _ in self.work)
        return (self.limit - self.base) / self.overhead - held

    def process(self, rng: np.random.Generator, sites: list[Site], load: LOADS | None) -> Process:
        rate = self.load
        churn = [
            Churn(name, per_request=level / rate / lives_s, lives_s=lives_s)
            for name, level, lives_s in self.work
        ]
        return Process(
            rng=rng,
            sites=[
                WarmUp("load_modules", total=self.modules, over_s=20.0, in_requests=False),
                *churn,
                *sites,
            ],
            load=load or constant(rate),
            limit_bytes=self.limit,
            base_bytes=self.base,
            period_bytes=self.period,
            overhead=self.overhead,
        )


def _frame(rng: np.random.Generator, spec: Spec) -> _Frame:
    limit = float(rng.choice([256, 512, 1024, 2048])) * MIB
    return _Frame(
        limit=limit,
        base=rng.uniform(0.18, 0.32) * limit,
        overhead=rng.uniform(1.0, 1.3),
        load=rng.uniform(20, 200),
        period=spec.period_bytes,
        modules=rng.uniform(0.02, 0.06) * limit,
        work=(
            ("render_response", rng.uniform(0.001, 0.01) * limit, 0.2),
            ("await_backend", rng.uniform(0.002, 0.02) * limit, rng.uniform(1, 60)),
        ),
    )


def constant(rate: float) -> LOADS:
    """A load that stays the same, in requests per second."""
    return lambda _: rate


def ramp(low: float, high: float, over_s: float) -> LOADS:
    """A load that rises evenly and then stays."""
    return lambda now_s: low + (high - low) * min(1.0, now_s / over_s)


def diurnal(mean: float, period_s: float, phase: float) -> LOADS:
    """A load that swings by 60 % around its mean."""
    return lambda now_s: mean * (1 + 0.6 * math.sin(2 * math.pi * (now_s / period_s + phase)))


def _cache(rng: np.random.Generator, load: float, size: float, fill_s: float, keys: Keys) -> "Make":
    """A cache that holds `size` bytes when full and takes about fill_s to fill."""
    capacity = int(rng.integers(200, 600))
    asks = {
        "sequential": float(capacity),
        "uniform": 3 * capacity * -math.log1p(-1 / 3),
        "zipf": 4.0 * capacity,
    }[keys]
    share = asks / (load * fill_s)
    return lambda: Cache(
        "render_page",
        capacity=capacity,
        entry_bytes=size / capacity,
        share=share,
        keys=keys,
        emptied=True,
    )


Make = Callable[[], Site]


def leaking_service(
    kind: LeakKind, band: str, rates: tuple[float, float], rng: np.random.Generator, spec: Spec
) -> Service:
    """Draw a service of which a memory of this kind leaks, at a rate out of the band."""
    frame = _frame(rng, spec)
    share_per_s = float(np.exp(rng.uniform(*np.log(rates)))) / 60.0
    rate = share_per_s * frame.limit / frame.overhead  # live bytes per second
    life_s = frame.room / rate
    per_request = rate / frame.load
    history: History = ("none", "clean", "died")[int(rng.integers(3))]
    kept: Kept = ("table", "table", "table", "lru_cache", "lost")[int(rng.integers(5))]
    emptied = _emptied(rng, spec.leaks_emptied)
    code = _code_around(rng, spec)
    load, makes, onset_s = constant(frame.load), list[Make](), 0.0
    causes, allocating = {"remember"}, set[str]()
    classes = {"leak"}
    options: dict[str, object] = {}
    match kind:
        case "plain":
            makes = [lambda: Leak("remember", per_request=per_request, kept=kept, emptied=emptied)]
        case "with cache":
            makes = [lambda: Leak("remember", per_request=per_request, kept=kept, emptied=emptied)]
            options["beside"] = _cache(
                rng, frame.load, 0.15 * frame.room, rng.uniform(0.1, 0.4) * life_s, "uniform"
            )
        case "diurnal":
            load = diurnal(frame.load, rng.uniform(0.3, 1.5) * life_s, rng.random())
            makes = [lambda: Leak("remember", per_request=per_request, kept=kept, emptied=emptied)]
        case "native":
            causes, classes = {NATIVE}, {"native leak"}
            options["native"] = lambda now_s: rate * frame.overhead * now_s
        case "tasks":
            causes, allocating, classes = {"wait_receipt"}, {"compose"}, {"task leak"}
            makes = [lambda: Leak("compose", per_request=per_request, kept=kept, emptied=emptied)]
            each = float(np.exp(rng.uniform(np.log(2), np.log(50)))) * KIB
            options["tasks"] = lambda now_s: 5 + rate * now_s / each
        case "container":
            makes = [lambda: Container("remember", per_request=per_request, emptied=emptied)]
        case "go":
            per_request /= 1.6
            makes = [lambda: Leak("remember", per_request=per_request, kept=kept, emptied=emptied)]
            options["go"] = True
        case "late":
            onset_s = rng.uniform(0.3, 1.0) * life_s
            makes = [
                lambda: Leak(
                    "remember", per_request=per_request, start_s=onset_s, kept=kept, emptied=emptied
                )
            ]
        case "split":
            part = rng.uniform(0.55, 0.75)
            causes, allocating = {"remember"}, {"compose"}
            makes = [
                lambda: Leak(
                    "remember", per_request=part * per_request, kept=kept, emptied=emptied
                ),
                lambda: Leak(
                    "compose", per_request=(1 - part) * per_request, kept=kept, emptied=emptied
                ),
            ]

    def build(life_rng: np.random.Generator, leaks: bool) -> Process:
        sites = [make() for make in makes] if leaks else []
        for site in sites:
            site.removal_runs_s, site.sized, site.in_requests = code
        beside = options.get("beside")
        if callable(beside):
            sites.append(beside())
        process = frame.process(life_rng, sites, load)
        if leaks:
            process.native = options.get("native")  # type: ignore[assignment]
            process.tasks = options.get("tasks")  # type: ignore[assignment]
        if kind == "go":
            process.go, process.overhead = True, 1.0
            process.base_bytes = frame.limit - (frame.limit - frame.base) / frame.overhead
            process.stale_after_s = max(10.0, life_s / 60)
        return process

    past = {"none": (), "clean": (1.5 * life_s,), "died": (math.inf,)}[history]
    truth = Truth(
        kind=kind,
        band=band,
        history=history,
        causes=frozenset(causes),
        allocating=frozenset(allocating),
        classes=frozenset(classes),
        onset_s=onset_s,
        rate=share_per_s * frame.limit,
    )
    every_s = max(spec.least_every_s, life_s / spec.looks_per_life)
    return Service(truth, build, past, 4 * life_s, every_s)


def _code_around(rng: np.random.Generator, spec: Spec) -> tuple[float, bool, bool]:
    """Of a table that leaks: when its removal first runs, whether it is sized, and in requests."""
    # Drawn beside the other draws, which stay what they were before there was this one.
    facts = rng.spawn(1)[0]
    never = facts.random() < spec.leaks_never_emptied
    sized = facts.random() < spec.leaks_sized
    return math.inf if never else 0.0, sized, facts.random() < spec.leaks_in_requests


def _emptied(rng: np.random.Generator, odds: tuple[float, float]) -> bool | None:
    """What a search says of the code around a table: the odds of True and of None."""
    drawn = rng.random()
    return True if drawn < odds[0] else None if drawn < sum(odds) else False


def healthy_service(kind: HealthyKind, rng: np.random.Generator, spec: Spec) -> Service:
    """Draw a healthy service of this kind, to be watched for a day."""
    frame = _frame(rng, spec)
    day_s, room = spec.day_s, frame.room
    fill_s = float(np.exp(rng.uniform(np.log(600.0), np.log(day_s / 2))))
    load, makes = constant(frame.load), list[Make]()
    native: Callable[[float], float] | None = None
    tasks: Callable[[float], float] | None = None
    classes: set[str] = {"filling cache", "warm-up"}
    new: Make | None = None
    facts = rng.spawn(1)[0]
    match kind:
        case "new cache":
            new = _cache(rng, frame.load, rng.uniform(0.05, 0.33) * room, fill_s, "sequential")
        case "lru sequential":
            makes = [_cache(rng, frame.load, rng.uniform(0.05, 0.33) * room, fill_s, "sequential")]
        case "cache uniform" | "cache zipf":
            keys: Keys = "uniform" if kind == "cache uniform" else "zipf"
            makes = [_cache(rng, frame.load, rng.uniform(0.05, 0.35) * room, fill_s, keys)]
        case "expiring":
            size = rng.uniform(0.05, 0.33) * room
            each = size / frame.load / fill_s
            emptied = _emptied(rng, spec.tables_emptied)
            swept_s = fill_s * facts.uniform(0.1, 1.0) if facts.random() < spec.swept_late else 0.0
            makes = [
                lambda: Expiring(
                    "remember_token",
                    per_request=each,
                    lives_s=fill_s,
                    emptied=emptied,
                    removal_runs_s=swept_s,
                )
            ]
        case "memo":
            total = rng.uniform(0.05, 0.4) * room
            makes = [lambda: WarmUp("look_up", total=total, over_s=fill_s, emptied=False)]
        case "warm-up":
            total, classes = rng.uniform(0.1, 0.4) * room, {"warm-up"}
            makes = [lambda: WarmUp("load_index", total=total, over_s=fill_s)]
        case "warm-up and cache":
            total = rng.uniform(0.05, 0.2) * room
            makes = [lambda: WarmUp("load_index", total=total, over_s=fill_s)]
            makes.append(_cache(rng, frame.load, 0.2 * room, fill_s, "uniform"))
        case "linear loading":
            total = rng.uniform(0.05, 0.2) * room
            asks = bool(facts.random() < spec.loads_in_requests)
            makes = [
                lambda: WarmUp(
                    "load_index",
                    total=total,
                    over_s=fill_s,
                    saturating=False,
                    emptied=False,
                    in_requests=asks,
                )
            ]
            makes.append(_cache(rng, frame.load, 0.2 * room, fill_s, "sequential"))
        case "load ramp" | "diurnal":
            high, classes = frame.load, {"load"}
            load = (
                ramp(0.2 * high, high, fill_s)
                if kind == "load ramp"
                else diurnal(high, rng.uniform(0.2, 1.0) * day_s, rng.random())
            )
            lives_s = rng.uniform(0.002, 0.05) * day_s
            part = (0.05, 0.35) if kind == "load ramp" else (0.05, 0.25)
            each = rng.uniform(*part) * room / high / lives_s
            makes = [lambda: Churn("hold_upload", per_request=each, lives_s=lives_s)]
            if kind == "diurnal":
                makes.append(_cache(rng, high, 0.18 * room, fill_s, "uniform"))
        case "batch":
            every_s = rng.uniform(0.02, 0.5) * day_s
            total, classes = rng.uniform(0.05, 0.33) * room, {"load"}
            busy_s = every_s * rng.uniform(0.4, 0.95)
            makes = [lambda: Batch("run_job", total=total, busy_s=busy_s, every_s=every_s)]
        case "go cache":
            asked: Keys = "uniform" if rng.random() < 0.5 else "sequential"
            makes = [_cache(rng, frame.load, rng.uniform(0.05, 0.33) * room / 1.6, fill_s, asked)]
        case "native pool":
            size, classes = rng.uniform(0.05, 0.3) * room * frame.overhead, {"warm-up"}
            if rng.random() < 0.5:
                native = lambda now_s: size * -math.expm1(-now_s / fill_s)  # noqa: E731 -- its kin
            else:
                native = lambda now_s: size * min(1.0, now_s / fill_s)  # noqa: E731 -- as its kin
        case "task ramp":
            most = rng.uniform(100, 1000)
            tasks = lambda now_s: 5 + most * min(1.0, now_s / fill_s)  # noqa: E731 -- as its kin
            makes = [_cache(rng, frame.load, 0.2 * room, fill_s, "uniform")]

    def build(life_rng: np.random.Generator, is_last: bool) -> Process:
        # What was deployed last is only in the watched lives.
        made = [*makes, new] if new is not None and is_last else makes
        process = frame.process(life_rng, [make() for make in made], load)
        process.native, process.tasks = native, tasks
        if kind == "go cache":
            process.go, process.overhead = True, 1.0
            process.base_bytes = 0.9 * frame.base
            process.stale_after_s = spec.day_every_s
        return process

    is_new = rng.random() < spec.new_service and new is None
    past = tuple(rng.uniform(0.1, 1.0) * day_s for _ in range(0 if is_new else rng.integers(1, 4)))
    truth = Truth(
        kind=kind,
        history="none" if is_new else "clean",
        classes=frozenset(classes),
        opaque=rng.random() < spec.no_bound_told,
    )
    deploy_s = rng.uniform(0.1, 0.9) * day_s if rng.random() < spec.deploys else None
    return Service(truth, build, past, day_s, spec.day_every_s, deploy_s)

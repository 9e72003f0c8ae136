"""What the benchmark draws: leaks and look-alikes, rates, histories, how often it looks."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

LeakKind: TypeAlias = Literal[
    "plain", "with cache", "diurnal", "native", "tasks", "container", "go", "late", "split"
]
HealthyKind: TypeAlias = Literal[
    "lru sequential",
    "cache uniform",
    "cache zipf",
    "expiring",
    "warm-up",
    "warm-up and cache",
    "linear loading",
    "load ramp",
    "diurnal",
    "batch",
    "go cache",
    "new cache",
    "native pool",
    "task ramp",
    "memo",
]
History: TypeAlias = Literal["none", "clean", "died"]

LEAKS: tuple[LeakKind, ...] = get_args(LeakKind)
HEALTHY: tuple[HealthyKind, ...] = get_args(HealthyKind)
HISTORIES: tuple[History, ...] = get_args(History)

BANDS: dict[str, tuple[float, float]] = {
    "0.01-0.1 %/min": (1e-4, 1e-3),
    "0.1-1 %/min": (1e-3, 1e-2),
    "1-10 %/min": (1e-2, 1e-1),
}
"""Rates of leaks, as a share of the memory limit per minute."""

TUNING_SEED = 1
"""Detection was tuned on this seed; a report is of another one."""

REPORT_SEED = 2026
"""What `stanch evaluate` plays unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What is played. All else follows from the seed.

    leaks: episodes of each kind of leak, in each band of rates. healthy: service-days of each
    healthy kind. looks_per_life: looks in the time a leak takes to kill, never closer than
    least_every_s. day_s, day_every_s: how long a healthy service is watched and how often.
    new_service: share of healthy services without an earlier life; the others have had 1 to 3.
    deploys: share of healthy days in which the service is deployed anew at some time.
    no_bound_told: share of healthy services with a bound that a retention search cannot read.
    leaks_emptied, tables_emptied: odds that the search says some code takes entries out of a table
    that leaks, or of one whose entries expire, and that it cannot tell; else it says none does,
    which of the latter is wrong.
    leaks_never_emptied: odds that, of such code around a table that leaks, none has run.
    swept_late: odds that what empties an expiring table first runs after a tenth to the whole of
    an entry's life.
    leaks_in_requests, loads_in_requests: odds that requests allocate what leaks; or a table that is
    loaded once, and evenly. leaks_sized: that some code compares the length of a table that leaks.
    period_bytes: the sampler's mean interval.
    """

    seed: int = REPORT_SEED
    leaks: int = 12
    healthy: int = 24
    looks_per_life: int = 100
    least_every_s: float = 10.0
    day_s: float = 86400.0
    day_every_s: float = 300.0
    new_service: float = 0.1
    deploys: float = 0.3
    no_bound_told: float = 0.1
    leaks_emptied: tuple[float, float] = (0.35, 0.15)
    tables_emptied: tuple[float, float] = (0.8, 0.17)
    leaks_never_emptied: float = 0.6
    swept_late: float = 0.2
    leaks_in_requests: float = 0.85
    loads_in_requests: float = 0.15
    leaks_sized: float = 0.05
    period_bytes: float = 512 * 1024.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values, with what is fixed."""
        fixed: dict[str, Any] = {"leak_kinds": LEAKS, "healthy_kinds": HEALTHY, "bands": BANDS}
        return asdict(self) | fixed | {"histories": HISTORIES}


QUICK = Spec(leaks=1, healthy=2, looks_per_life=50, day_every_s=1200.0)
"""A first impression in about a minute."""

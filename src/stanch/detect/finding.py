"""What detection has to say: one finding per cause and service, and one verdict per instance."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal[
    "leak",
    "native leak",
    "task leak",
    "thread leak",
    "goroutine leak",
    "fd leak",
    "filling cache",
    "warm-up",
    "load",
    "fragmentation",
    "page cache",
]
Stage: TypeAlias = Literal["suspect", "probable", "confirmed"]

STAGES: tuple[Stage, ...] = ("suspect", "probable", "confirmed")
LEAKS: tuple[Kind, ...] = (
    "leak",
    "native leak",
    "task leak",
    "thread leak",
    "goroutine leak",
    "fd leak",
)
"""The kinds that end in death; the others explain growth that does not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause of growth in one service.

    file: shortened, "" for native memory without samples; line: 0 when unknown. stack: "file:line
    function", for native code "library function", leaf first. taken_by: the native function that
    took the memory and its library, such as "parse in libxml2.so.2", "" for other memory.
    rate_bytes_per_second: of one instance, the median over them; rates: lowest, median, highest.
    rate_count_per_second: of goroutines, threads or tasks, else None. confidence: the
    probability that it is a leak, calibrated on episodes; 0 for what has no look of one.
    seconds_to_death: soonest, likely and latest, of the instance that dies first.
    first_seen_unix: wall clock, 0 until the watcher sets it. holder: what keeps the memory alive,
    as a retention search names it, "" when nobody looked or it was not told. with_it: what else is
    of the same leak, each as (whether it is a count, file, function).
    """

    service: str
    kind: Kind
    stage: Stage
    file: str
    line: int
    function: str
    stack: tuple[str, ...]
    rate_bytes_per_second: float
    rates: tuple[float, float, float]
    rate_bytes_per_request: float | None
    rate_count_per_second: float | None
    grown_bytes: float
    confidence: float
    seconds_to_death: tuple[float, float, float] | None
    first_to_die: str
    instances: tuple[str, ...]
    evidence: tuple[str, ...]
    taken_by: str = ""
    first_seen_unix: float = 0.0
    holder: str = ""
    with_it: tuple[tuple[bool, str, str], ...] = ()

    @property
    def key(self) -> tuple[str, bool, str, str]:
        """The cause: what stays the same while a finding develops."""
        return (self.service, self.rate_count_per_second is None, self.file, self.function)

    @property
    def is_confirmed_leak(self) -> bool:
        """Whether this is an accusation."""
        return self.stage == "confirmed" and self.kind in LEAKS


@dataclass(frozen=True, slots=True)
class InstanceVerdict:
    """How one target is doing. verdict: "starting", "steady", "growing", or a kind and its stage.

    growth_bytes_per_second: of its memory now. seconds_to_death: soonest, likely, latest, None
    when no death is in sight or no limit is known.
    """

    service: str
    instance: str
    verdict: str
    memory_bytes: float | None
    limit_bytes: float | None
    growth_bytes_per_second: float | None
    seconds_to_death: tuple[float, float, float] | None


def finding_to_dict(finding: Finding) -> dict[str, Any]:
    """The finding as JSON-able values, with the names of the fields."""
    return asdict(finding)

"""What the store tells of the past: the values and the one interface that pages and tools read.

Wall-clock times are `unix_s`, seconds since the Unix epoch; arrays are float64 and read-only by
convention; an unknown number is None in a scalar and NaN in an array. Heaps come as pprof profiles
(`stanch.profile.Profile`), so tables, flame graphs, diffs (`stanch.profile.diff`), filters and
downloads are what that package already does.

`History` blocks while it reads: call it from a thread. It may be called from several at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from stanch.profile import Profile
from stanch.store.series import Births, Floats

FindingStatus: TypeAlias = Literal["firing", "resolved"]
End: TypeAlias = Literal["running", "killed", "restarted", "stopped"]
"""How a life ended. killed: it stood at its memory limit, or its agent left no sign of a clean
end. restarted: another process answered in its place. stopped: it is not heard of any more."""

HEAP = "heap"
"""The kind of samples that are memory; other kinds count: "goroutine", "thread", "task"."""


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From `since_unix_s` (included) to `until_unix_s` (excluded)."""

    since_unix_s: float
    until_unix_s: float


@dataclass(frozen=True, slots=True)
class Selection:
    """Which samples a heap is made of.

    at_unix_s: of each process the newest profile taken at or before this time and not more than
    `age_s` earlier; several processes are added up. instances and release: empty takes all.
    labels: only samples that carry all of these, such as {"route": "/cart"}; only what is alive
    is labelled. kind: HEAP or a kind of count. with_labels: False adds up what differs in labels
    alone. Where samples have gone by age, profiles are five minutes apart.
    """

    service: str
    at_unix_s: float
    instances: tuple[str, ...] = ()
    release: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    kind: str = HEAP
    age_s: float = 300.0
    with_labels: bool = True


@dataclass(frozen=True, slots=True)
class ServiceSummary:
    """One service as the overview shows it.

    instances: how many were heard of in the last five minutes. memory_bytes, limit_bytes: of
    the one fullest against its limit. time_unix_s, memory_share: a small chart of the last hour,
    the fullest instance in each of at most 60 steps, as memory over limit (NaN without a limit).
    deaths: processes that the kernel killed, or that crashed, in the last 24 hours. firing:
    findings that fire, of which `confirmed` are accusations. worst: the gravest verdict among the
    instances, "" when unknown. seconds_to_death: soonest, likely, latest, of the finding that kills
    first.
    """

    service: str
    language: str
    instances: int
    memory_bytes: float | None
    limit_bytes: float | None
    time_unix_s: Floats
    memory_share: Floats
    deaths: int
    firing: int
    confirmed: int
    worst: str
    seconds_to_death: tuple[float, float, float] | None
    last_unix_s: float


@dataclass(frozen=True, slots=True)
class LifeRow:
    """One life of one instance: a process from its start to its end.

    life: its name, 16 hex digits. end_unix_s: the last sign of life so far. end: as far as looks
    tell; why it ended, and what it held, is in the records of deaths (`History.deaths`).
    """

    life: str
    service: str
    instance: str
    release: str
    language: str
    pid: int | None
    start_unix_s: float
    end_unix_s: float
    end: End
    limit_bytes: float | None
    last_memory_bytes: float | None


@dataclass(frozen=True, slots=True)
class MemorySeries:
    """The memory of one life over a range, thinned to at most the points asked for.

    All arrays have the length of `unix_s`. memory_bytes counts against the limit (working set
    where known, else RSS). In a thinned step stands the largest value of memory and the last of
    the others. requests: total since the start; requests_per_s: the rate to the point before
    (NaN at the first). latency_s: mean seconds of a request. breakdown: what the memory is made
    of, bytes by name, empty when the target does not tell.
    """

    life: LifeRow
    unix_s: Floats
    memory_bytes: Floats
    rss_bytes: Floats
    heap_bytes: Floats
    limit_bytes: Floats
    requests: Floats
    requests_per_s: Floats
    in_flight: Floats
    latency_s: Floats
    breakdown: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FindingRow:
    """One finding as it last stood.

    finding: its name in links, 16 hex digits, the same for the same cause for ever. document:
    the finding as `stanch.detect.finding_to_dict` gives it. release: the release in which it was
    first seen, "" when unknown. retention: what `stanch why` said, if it was asked.
    """

    finding: str
    service: str
    kind: str
    stage: str
    status: FindingStatus
    file: str
    line: int
    function: str
    first_unix_s: float
    last_unix_s: float
    release: str
    document: Mapping[str, Any]
    retention: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TargetRow:
    """The health of one target at its last scrape or push.

    origin: "scrape" or "push". verdict: as the detector last said. error: one sentence, "" when
    all went well. duration_s: of the scrape, None for a push. server: which of the servers that
    share a store tells it, "" where there is one.
    """

    service: str
    instance: str
    address: str
    origin: str
    verdict: str
    error: str
    duration_s: float | None
    last_unix_s: float
    last_good_unix_s: float | None
    server: str = ""


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One profile that was taken. has_raw: whether its own bytes are still kept."""

    profile: str
    service: str
    instance: str
    life: str
    kind: str
    unix_s: float
    stacks: int
    live_bytes: float
    has_raw: bool


@dataclass(frozen=True, slots=True)
class DeathRow:
    """The end of a process as it is written down, the one record of it.

    death: its name in links, 16 hex digits. cause: as `stanch.deaths.Cause`. document: all that is
    known of it, as `stanch.deaths.death_to_json` gives it.
    """

    death: str
    service: str
    instance: str
    cause: str
    died_unix_s: float
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Storage:
    """How the store itself is. memory_bytes: what the engine holds, None when it is in another
    process. notices: what it had to do, such as dropping old partitions."""

    engine: str
    memory_bytes: int | None
    rows: int
    bytes_on_disk: int
    free_bytes: int | None
    oldest_unix_s: float | None
    waiting_profiles: int
    skipped_profiles: int
    notices: tuple[str, ...]


class History(Protocol):
    """What can be asked of a store. Raises StoreError when the engine fails; see its sentence.

    Unknown names give empty answers, or None where one value is asked for. Rows come newest
    first unless said otherwise; `most` bounds every list.
    """

    def service_summaries(self, now_unix_s: float) -> tuple[ServiceSummary, ...]:
        """All services heard of in the last 24 hours, those that fire first, then by name."""

    def service_names(self, most: int = 1000) -> tuple[str, ...]:
        """Names of all services with any sample, sorted."""

    def memory(
        self, service: str, within: TimeRange, points: int = 300, most: int = 64
    ) -> tuple[MemorySeries, ...]:
        """Memory of the lives of a service that were alive in a range, by instance and start.

        With more than `most` lives, those that came closest to their limit.
        """

    def lives(self, service: str, within: TimeRange, most: int = 500) -> tuple[LifeRow, ...]:
        """The lives of a service that were alive in a range."""

    def deaths(
        self, within: TimeRange, service: str = "", instance: str = "", most: int = 200
    ) -> tuple[DeathRow, ...]:
        """The ends of processes in a range, of one service or instance or of all."""

    def killed_lives(self, most: int = 10_000) -> tuple[LifeRow, ...]:
        """The lives that stood at their limit when another one followed, the newest first."""

    def death(self, death: str) -> DeathRow | None:
        """One death by its name in links."""

    def death_profile(self, death: str) -> bytes | None:
        """What it held at the end, pprof; None when that is not known, or no longer kept."""

    def has_death_profile(self, row: DeathRow) -> bool:
        """Whether `death_profile` has an answer; costs next to nothing, whatever its size."""

    def findings(
        self, service: str = "", status: FindingStatus | None = None, most: int = 200
    ) -> tuple[FindingRow, ...]:
        """Findings of one service or of all; firing ones first."""

    def finding(self, finding: str) -> FindingRow | None:
        """One finding by its name in links."""

    def births(self, life: str, function: str = "", file: str = "") -> Births | None:
        """Bytes alive by time of birth of a life, one row for all stacks through a function.

        Edges are seconds since the life began. None when its runtime does not tell births.
        """

    def growth(
        self, service: str, function: str, file: str, within: TimeRange, points: int = 300
    ) -> tuple[tuple[LifeRow, Floats, Floats], ...]:
        """Of each life alive in a range: unix_s and the live bytes of stacks through a function.

        file: as the finding names it, which may be shortened; it is compared from its end.
        """

    def profile(self, selection: Selection) -> Profile | None:
        """The samples of a selection as one profile, None when there is none.

        A heap has Go's four sample types and the labels of its samples; a count has one type.
        `stanch.profile.diff` of two of these is the growth between them.
        """

    def labels(self, service: str, within: TimeRange, most: int = 200) -> dict[str, list[str]]:
        """The label keys of a service's samples with their values, largest live bytes first."""

    def releases(self, service: str, within: TimeRange) -> tuple[str, ...]:
        """The releases of a service seen in a range, oldest first; "" is left out."""

    def profiles(
        self, service: str, within: TimeRange, instance: str = "", most: int = 500
    ) -> tuple[ProfileRow, ...]:
        """The profiles taken of a service."""

    def first_and_last(self, life: LifeRow, within: TimeRange) -> tuple[Profile, Profile] | None:
        """What a life held in its first and in its last heap of a range, without labels; None
        when it has none."""

    def raw_profile(self, profile: str) -> bytes | None:
        """A profile as it came: gzip, profile.proto; None when no longer kept."""

    def targets(self, most: int = 10_000) -> tuple[TargetRow, ...]:
        """Every target heard of in the last 24 hours, those with errors first."""

    def storage(self) -> Storage:
        """How the store itself is."""

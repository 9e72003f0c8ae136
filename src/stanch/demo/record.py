"""What a run of the incident saw, as plain values: the only thing the verdict judges by.

All times `at_s` are seconds since the load began.
"""

from dataclasses import dataclass

CONFIRMED = "confirmed"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in code. All empty when a finding has none, as native memory does."""

    file: str = ""
    line: int = 0
    function: str = ""

    def __str__(self) -> str:
        if not self.file:
            return self.function or "no line"
        line = f":{self.line}" if self.line else ""  # native code has none
        return f"{short_path(self.file)}{line} {self.function}"


@dataclass(frozen=True, slots=True)
class Sighting:
    """Something that Stanch said for the first time: of which service, what, how sure, where.

    taken_by: the native function that took the memory, and its library; empty for other memory.
    """

    at_s: float
    service: str
    kind: str
    stage: str
    place: Place
    taken_by: str = ""

    @property
    def accuses(self) -> bool:
        """Whether this says, beyond doubt, that something leaks."""
        return self.stage == CONFIRMED and self.kind.endswith("leak")


@dataclass(frozen=True, slots=True)
class Death:
    """A node's end. `at_limit` tells a kill for its memory from an end of its own."""

    at_s: float
    service: str
    node: str
    life: int
    at_limit: bool
    how: str


@dataclass(frozen=True, slots=True)
class Autopsy:
    """What the live table of a killed process showed: its top place and that place's bytes."""

    service: str
    node: str
    pid: int
    place: Place
    place_bytes: int
    live_bytes: int


@dataclass(frozen=True, slots=True)
class Holding:
    """The path on which most of a leak's memory is kept, from its root on.

    grows: the first container on it that grows without bound, "" when none was seen to.
    """

    at_s: float
    service: str
    node: str
    path: tuple[str, ...]
    grows: str


@dataclass(frozen=True, slots=True)
class Written:
    """A death as Stanch itself wrote it down: the cause, and the place that held the most."""

    at_s: float
    service: str
    node: str
    cause: str
    place: Place
    taken_by: str = ""
    was_foretold: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """A message that people would have got: of which service and leak, "firing" or "worse"."""

    at_s: float
    service: str
    cause: str
    stage: str
    news: str


@dataclass(frozen=True, slots=True)
class Recycled:
    """What recycling did to a node: "begun", "done", "failed" and so on, as RecycleEvent says."""

    at_s: float
    service: str
    node: str
    what: str
    text: str


@dataclass(frozen=True, slots=True)
class Life:
    """How long a node of a service lives under load, in seconds.

    `measured` when one died; else reckoned from its growth up to the limit.
    """

    seconds: float
    measured: bool


@dataclass(frozen=True, slots=True)
class Record:
    """One whole run: the services that took part, and all that was seen of them.

    `lives` has no entry for a service whose nodes neither died nor grew.
    """

    services: tuple[str, ...]
    sightings: tuple[Sighting, ...]
    lives: dict[str, Life]
    deaths: tuple[Death, ...]
    autopsies: tuple[Autopsy, ...]
    holdings: tuple[Holding, ...] = ()
    written: tuple[Written, ...] = ()
    told: tuple[Told, ...] = ()
    recycled: tuple[Recycled, ...] = ()


def short_path(file: str) -> str:
    """Return the last two parts of a path: the service's directory and the file."""
    return "/".join(file.split("/")[-2:])

"""One thing that grows in one life, and what its growth looks like."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from stanch.detect.finding import Kind, Stage
from stanch.detect.groups import Place
from stanch.detect.growth import Growth
from stanch.detect.holder import Holder
from stanch.detect.settings import Settings
from stanch.store import Frame, Stack

Shape: TypeAlias = Literal["steady", "slowing", "ended", "young", "replaced"]
"""steady: the same rate up to the present, nothing lost. slowing: the rate falls. ended: there
was growth, there is none now. young: only the newest is there. replaced: the old goes as the new
comes."""

NATIVE = Place("", "")
"""Where memory comes from that no stack explains."""


Relation: TypeAlias = Literal["known", "new", "steeper", "untold"]
"""known: earlier lives levelled off no lower. new: they held next to nothing of it. steeper: they
levelled off, or stood at this age, clearly lower. untold: none that lived long enough says."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """The relation of a growth to earlier lives: how many tell, the highest level they came to.

    release: the version of the newest of them, "" when unknown.
    """

    relation: Relation
    lives: int = 0
    level: float = 0.0
    release: str = ""


@dataclass(frozen=True, slots=True)
class Cause:
    """A group of stacks, a count or the native rest, with its growth and its judgement.

    counted: "goroutine", "thread" or "task" when the growth is a number of them, "" for bytes.
    bound: growth that sampling noise alone does not pass, in the unit of the growth. share: of
    the room below the limit, as it was at the onset, that this growth has taken; 0 when unknown.
    joint_share: likewise, together with what the same requests keep elsewhere.
    places: all functions that were joined into this one. repeats: an earlier life died of it.
    taken_by: the native function that took most of it, when most of it is native memory.
    holder: what a retention search found to hold it, None when nobody looked. earlier: how it
    relates to earlier lives. in_requests: whether requests allocate next to all of it.
    """

    kind: Kind
    place: Place
    places: tuple[Place, ...]
    frame: Frame
    stack: Stack
    growth: Growth
    shape: Shape
    bound: float
    counted: str = ""
    share: float = 0.0
    joint_share: float = 0.0
    stage: Stage = "suspect"
    repeats: bool = False
    taken_by: Frame | None = None
    holder: Holder | None = None
    earlier: Earlier = Earlier("untold")
    in_requests: bool = False

    @property
    def is_count(self) -> bool:
        """Whether the growth is a number of goroutines, threads or tasks, not bytes."""
        return bool(self.counted)

    @property
    def leaks(self) -> bool:
        """Whether the growth has the look of a leak, be it large or small."""
        return self.shape == "steady" and self.growth.grown > self.bound


def shape_of(growth: Growth, settings: Settings) -> Shape:
    """Judge the growth by its thirds and by what was lost.

    Where requests are known the thirds are compared per request; per second counts too as long as
    the load does not rise, for a leak may as well hang on a clock.
    """
    if growth.kept < (settings.survival if growth.by_birth else 1 - settings.drop):
        return "young" if _is_young(growth.rates, settings) else "replaced"
    first, _, last = growth.rates
    if last <= 0 or last < 0.1 * first:
        return "ended"
    if _is_steady(growth.rates, settings) and not _load_rises(growth):
        return "steady"
    if growth.requests_per_s is not None and min(growth.requests_per_s) > 0:
        per_request = tuple(
            rate / requests
            for rate, requests in zip(growth.rates, growth.requests_per_s, strict=True)
        )
        if _is_steady(per_request, settings):
            return "steady"
    return "young" if _is_young(growth.rates, settings) else "slowing"


def _is_steady(rates: tuple[float, ...], settings: Settings) -> bool:
    _, middle, last = rates
    return last >= settings.steady * middle and middle >= settings.settled * last > 0


def _is_young(rates: tuple[float, ...], settings: Settings) -> bool:
    _, middle, last = rates
    return middle < settings.settled * last


def _load_rises(growth: Growth) -> bool:
    if growth.requests_per_s is None:
        return False
    _, middle, last = growth.requests_per_s
    return last > 1.2 * middle

"""What a retention search says about the container that holds a suspect's memory.

The search is the agent's (`/debug/stanch/retention`, docs/retention.md); this reads its answer.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from stanch.detect.groups import Place

Behaviour: TypeAlias = Literal[
    "unbounded",
    "never emptied",
    "not emptied",
    "uncollected",
    "endless",
    "emptied",
    "maybe bounded",
    "bounded",
    "lost",
    "passing",
    "unknown",
]
"""unbounded: a container that tells no bound, and grows. never emptied: likewise, and no code of
the program takes anything out. not emptied: some would, but has not run so far. uncollected:
reference cycles, while the collector is switched off. endless: one that by its kind never drops
anything. emptied: one that some code takes entries out of; they may yet
expire. maybe bounded: of a kind that hand-written caches are made of, or one whose length some code
compares with something. bounded: at its bound or on the way to it. lost: no Python object holds it,
a missing decref or a cycle nobody collects. passing: a running function holds it, and may let go
when it returns. unknown: the answer does not say."""

_CYCLE = "reference cycle waiting for the collector"
_LOST = ("not reachable from any Python object", "reference held only from C", "uncollectable")
_HALF = 0.5
_DEEPEST = 32
_RUNNING = re.compile(r"(?:^local \S+ of|^held by running|\bcoroutine) (\S+)")
_ENDLESS = "functools.lru_cache"
_PASSING = ("local ", "held by running ")
_MAYBE_BOUNDED = ("OrderedDict",)
"""Hand-written caches that drop their oldest entry are made of these; their bound may be a
constant somewhere that no search reads."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What holds a suspect's memory, as of one look at one replica.

    name, kind: of the container, "" when there is none. length, bound: entries, None when not
    told. per_second: growth of its entries. at_bytes: the suspect's growth when it was looked at.
    through: the functions of suspended coroutines and running frames that most of it is held by.
    """

    behaviour: Behaviour
    name: str = ""
    kind: str = ""
    length: int | None = None
    bound: int | None = None
    per_second: float | None = None
    at_bytes: float = 0.0
    through: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Inspection:
    """A retention search worth making: which function's memory, in which instance.

    grown_bytes: of the suspect in that instance, to be handed to `holder_of`.
    """

    instance: str
    place: Place
    grown_bytes: float


def holder_of(answer: Mapping[str, Any], grown_bytes: float) -> Holder:
    """Read the answer of the retention endpoint; never raises for what it may hold.

    Of the containers through which at least half of the memory goes, one with a bound counts
    first, wherever on the path it is: what is within a bounded cache is bounded.
    """
    return replace(_container(answer, grown_bytes), through=frozenset(_running(answer)))


def _running(answer: Mapping[str, Any]) -> Iterator[str]:
    """The functions on the branches that hold half of the memory or more."""
    least = _HALF * (_number(answer.get("bytes")) or 0.0)
    branches = answer.get("paths")
    for _ in range(_DEEPEST):
        heavy = next(_heavy(branches, least), None)
        if heavy is None:
            return
        for field in ("reference", "type"):
            if found := _RUNNING.search(str(heavy.get(field, ""))):
                yield found[1]
        branches = heavy.get("holds")


def _container(answer: Mapping[str, Any], grown_bytes: float) -> Holder:
    whole = _number(answer.get("bytes")) or 0.0
    holders = answer.get("holders")
    found = [
        one
        for one in (holders if isinstance(holders, list) else [])
        if isinstance(one, Mapping) and (_number(one.get("bytes")) or 0.0) >= _HALF * whole
    ]
    for one in found:
        if _number(one.get("bound")) is not None:
            return _holder(one, "bounded", grown_bytes)
    passing: Mapping[str, Any] | None = None
    for one in found:
        name, kind = str(one.get("name", "")), str(one.get("type", ""))
        if name.startswith(_PASSING):
            passing = one
            continue
        if (_number(one.get("growth_per_second")) or 0.0) > 0:
            return _holder(one, _unbounded(name, kind, one), grown_bytes)
    for path in _heavy(answer.get("paths"), _HALF * whole):
        reference = str(path.get("reference", ""))
        if any(lost in reference for lost in _LOST):
            return Holder("lost", name=reference, at_bytes=grown_bytes)
        if reference == _CYCLE and answer.get("collector") == "off":
            return Holder("uncollected", name=_CYCLE, at_bytes=grown_bytes)
    if passing is not None:
        return _holder(passing, "passing", grown_bytes)
    return Holder("unknown", name=_last_name(answer, _HALF * whole), at_bytes=grown_bytes)


def _last_name(answer: Mapping[str, Any], least: float) -> str:
    """The last name on the way to most of the memory; "" without one."""
    name, branches = "", answer.get("paths")
    for _ in range(_DEEPEST):
        heavy = next(_heavy(branches, least), None)
        if heavy is None:
            break
        name = str(heavy.get("reference") or "") or name
        branches = heavy.get("holds")
    return name


def _heavy(branches: object, least: float) -> Iterator[Mapping[str, Any]]:
    for branch in branches if isinstance(branches, list) else []:
        if isinstance(branch, Mapping) and (_number(branch.get("bytes")) or 0.0) >= least:
            yield branch


def _unbounded(name: str, kind: str, told: Mapping[str, Any]) -> Behaviour:
    """What a container without a bound is that grows."""
    if _ENDLESS in kind or _ENDLESS in name:
        return "endless"
    if any(each in kind for each in _MAYBE_BOUNDED) or told.get("length_compared") is True:
        return "maybe bounded"
    match told.get("removed_from"), told.get("removal_ran"):
        case (True, False):
            return "not emptied"
        case (True, _):
            return "emptied"
        case (False, _):
            return "never emptied"
    return "unbounded"


def _holder(one: Mapping[str, Any], behaviour: Behaviour, grown_bytes: float) -> Holder:
    length, bound = _number(one.get("length")), _number(one.get("bound"))
    return Holder(
        behaviour,
        name=_name(one),
        kind=str(one.get("type", "")),
        length=None if length is None else int(length),
        bound=None if bound is None else int(bound),
        per_second=_number(one.get("growth_per_second")),
        at_bytes=grown_bytes,
    )


def _name(one: Mapping[str, Any]) -> str:
    name, root = str(one.get("name", "")), one.get("root")
    return f"{name} of {root}" if isinstance(root, str) and root else name


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

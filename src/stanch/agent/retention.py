"""What keeps the memory of a stack alive, as the endpoint tells it: two looks, and what grew.

Takes which memory is meant, gives JSON-able values. Names of attributes and variables are told,
values never. One search runs at a time; the sizes of containers at the last look are remembered,
at most MAX_REMEMBERED of them, so that the next look can tell their growth.
"""

import gc
import os
import site
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stanch import sampler
from stanch.agent.removers import uses_of
from stanch.agent.tasks import passing_queues
from stanch.sampler import TableImage
from stanch.sampler.holders import Reference, merge_paths
from stanch.sampler.retention import Limit, Search, search

MAX_REMEMBERED = 4096
MAX_FILES = 64
MAX_BRANCHES = 8
ALWAYS_SHOWN = 3
SMALLEST_SHARE = 0.01
HOLDER_SHARE = 0.02
MAX_CODE_LOOKS = 4
"""Containers of an answer for which all code is looked through, some 10 ms each."""
_STALE_S = 3600.0
_GLOBAL = " module global "
# Not by sysconfig, which would keep half a megabyte of the variables of CPython's build.
_LIBRARIES = (
    str(Path(threading.__file__).resolve().parent),
    *(os.path.realpath(path) for path in site.getsitepackages()),
)
_OURS = tuple(f"{Path(__file__).parents[1]}/{part}/" for part in ("agent", "sampler", "profile"))
_LIMITS = {
    Limit.TIME: "the search had to stop before its end: its time was over",
    Limit.MEMORY: "the search had to stop before its end: its own memory was at its limit",
    Limit.COLLECTING: "a garbage collection was under way, so cycles were not looked for",
    Limit.ANSWER: "there were too many different paths: not all are told",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which memory is meant; the first two None: the function that has kept most since start-up.

    function: a qualified name or its end. place: "FILE:LINE", the file's end. type: of the sampled
    objects themselves.
    """

    function: str | None = None
    place: tuple[str, int] | None = None
    type: str | None = None
    in_process: bool = False
    values: bool = False


@dataclass(slots=True)
class _Look:
    at_s: float = 0.0
    sizes: dict[tuple[str, int], int] = field(default_factory=dict)


class Retention:
    """Answers what keeps memory alive. Thread-safe; a forked child makes its own."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last = _Look()

    def look(self, wanted: Wanted, resident_bytes: int) -> dict[str, Any]:
        """Search once. Raises LookupError when no live sample is meant, SearchError, SamplerError.

        Containers that an earlier look saw tell their growth since then.
        """
        image = sampler.snapshot()
        stacks, chosen = _stacks(image, wanted)
        result = search(
            stacks,
            files=_files(image, stacks),
            late=passing_queues(),
            resident_bytes=resident_bytes,
            in_process=wanted.in_process,
            values=wanted.values,
        )
        only = wanted.type
        tree = merge_paths(result, lambda name: only is None or name == only)
        if not tree.samples:
            raise LookupError(f"no live sample of {chosen} {f'is a {only}' if only else 'is left'}")
        with self._lock:
            now_s = self._monotonic()
            elapsed_s = now_s - self._last.at_s
            before = self._last.sizes if 0 < elapsed_s < _STALE_S else {}
            sizes = dict(_sizes(tree))
            self._last = _Look(now_s, sizes)
        growth = _Growth(before, elapsed_s)
        return {
            "pid": os.getpid(),
            "chosen": chosen,
            "samples": tree.samples,
            "matched": result.matched,
            "bytes": round(tree.bytes),
            "holders": _holders(tree, growth),
            "paths": _branches(tree, tree.bytes, growth),
            "collector": "on" if gc.isenabled() else "off",
            "notes": _notes(result),
            "search": {
                "in_process": wanted.in_process,
                "pause_ms": round(result.pause_ns / 1e6, 3),
                "walk_ms": round(result.walk_ns / 1e6, 3),
                "objects": result.visited,
                "own_bytes": result.own_bytes,
            },
        }


# ---- which stacks ----


def _stacks(image: TableImage, wanted: Wanted) -> tuple[list[int], str]:
    if wanted.place is not None:
        file, line = wanted.place
        chosen = f"{file}:{line}"
        numbers = [
            number
            for number, stack in enumerate(image.stacks)
            if any(at == line and _ends(place.file, file) for place, at in stack.python_frames)
        ]
    else:
        chosen = wanted.function or _keeper(image)
        numbers = [
            number
            for number, stack in enumerate(image.stacks)
            if any(_names(place.name, chosen) for place, _ in stack.python_frames)
        ]
    alive = {entry.stack for entry in image.entries}
    numbers = [number for number in numbers if number in alive]
    if not numbers:
        raise LookupError(f"no live sample was allocated by {chosen}")
    return numbers, chosen


def _is_own(file: str) -> bool:
    """Whether a file is the application's own code."""
    return bool(file) and not file.startswith(("<", *_OURS, *_LIBRARIES))


def _ends(path: str, end: str) -> bool:
    return path == end or path.endswith("/" + end)


def _names(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith("." + wanted)


def _keeper(image: TableImage) -> str:
    """Return the function that has allocated most of what lives and was born after start-up."""
    kept: Counter[str] = Counter()
    since_ns = image.uptime_ns // 10
    for entry in image.entries:
        own = _own_function(image, entry.stack)
        if entry.birth_ns >= since_ns and own is not None:
            weight = sampler.sample_weight(entry.size_bytes, entry.interval_bytes)
            kept[own] += round(weight * entry.size_bytes)
    if not kept:
        raise LookupError("nothing lives that was allocated after start-up; name a function")
    return kept.most_common(1)[0][0]


def _own_function(image: TableImage, stack: int) -> str | None:
    """Return the innermost function of the application, or of any code; None of the agent's own."""
    names = image.stacks[stack].python_frames
    for place, _ in names:
        if place.file.startswith(_OURS):
            return None
        if not place.file.startswith(("<", *_LIBRARIES)):
            return place.name
    return names[0][0].name if names else None


def _files(image: TableImage, stacks: list[int]) -> tuple[str, ...]:
    files: dict[str, None] = {}
    for number in stacks:
        for place, _ in image.stacks[number].python_frames:
            if len(files) < MAX_FILES and not place.file.startswith(("<", *_LIBRARIES)):
                files[place.file] = None
    return tuple(files)


# ---- containers ----


def _sizes(tree: Reference) -> Iterator[tuple[tuple[str, int], int]]:
    """Yield the length of containers by type and identity, the weightiest paths first."""
    waiting, told = [tree], 0
    while waiting:
        reference = waiting.pop(0)
        for identity, (length, _) in reference.sizes.items():
            told += 1
            if told > MAX_REMEMBERED:
                return
            yield (reference.type, identity), length
        waiting += reference.heaviest_first()


@dataclass(frozen=True, slots=True)
class _Growth:
    """Lengths at the look before, `elapsed_s` ago."""

    before: Mapping[tuple[str, int], int]
    elapsed_s: float

    def describe(self, reference: Reference) -> dict[str, Any]:
        """Return what is known of the container, or containers, that are held so."""
        if not reference.sizes:
            return {}
        lengths = [length for length, _ in reference.sizes.values()]
        bounds = {bound for _, bound in reference.sizes.values()}
        bound = bounds.pop() if len(bounds) == 1 else None
        if len(lengths) > 1:
            return {"containers": len(lengths), "length": max(lengths), "bound": bound}
        ((identity, (length, _)),) = reference.sizes.items()
        earlier = self.before.get((reference.type, identity))
        rate = None if earlier is None else (length - earlier) / self.elapsed_s
        return {
            "length": length,
            "bound": bound,
            "growth_per_second": None if rate is None else round(rate, 3),
            "behaviour": behaviour(length, bound, rate),
        }


def behaviour(length: int, bound: int | None, rate: float | None) -> str | None:
    """Say what a container does; None when one look cannot tell. rate: items per second."""
    if bound is not None and length >= bound:
        return "at its bound"
    if rate is None:
        return None
    if rate <= 0:
        return "stable"
    if bound is not None:
        return f"filling towards its bound ({length:,} of {bound:,})"
    return "grows without bound"


def _holders(tree: Reference, growth: _Growth) -> list[dict[str, Any]]:
    """Return the single containers through which much goes, from the root on; each once.

    root: the name of the module global that leads to it, where it is not one itself.
    """
    found, looked = [], 0
    waiting = [(each, each.text, "") for each in tree.heaviest_first()]
    while waiting:
        reference, named, root = waiting.pop(0)
        if reference.bytes < HOLDER_SHARE * tree.bytes:
            continue
        if len(reference.sizes) == 1:
            facts = growth.describe(reference)
            through = {"samples": reference.samples, "bytes": round(reference.bytes)}
            one = {"name": named, "type": reference.type, **facts, **through}
            if reference.text and facts.get("bound") is None and looked < MAX_CODE_LOOKS:
                uses = uses_of(reference.text, _is_own)
                one["removed_from"], one["removal_ran"] = uses.removed, uses.ran
                one["length_compared"] = uses.sized
                looked += 1
            if root and root != named:
                one["root"] = root
            found.append(one)
        root = reference.text if _GLOBAL in reference.text else root
        waiting += [(each, each.text or named, root) for each in reference.heaviest_first()]
    return found[:20]


def _branches(reference: Reference, total: float, growth: _Growth) -> list[dict[str, Any]]:
    branches = []
    heaviest = reference.heaviest_first()
    shown = [
        each
        for place, each in enumerate(heaviest[:MAX_BRANCHES])
        if place < ALWAYS_SHOWN or each.bytes >= SMALLEST_SHARE * total
    ]
    for each in shown:
        branch: dict[str, Any] = {
            "reference": each.text,
            "type": each.type,
            "samples": each.samples,
            "bytes": round(each.bytes),
            "objects": len(each.identities),
            **growth.describe(each),
        }
        if each.kept:
            branch["sampled"] = each.kept
            branch["average_bytes"] = round(each.bytes / max(each.objects, 1.0))
        below = _branches(each, total, growth)
        if below:
            branch["holds"] = below
        branches.append(branch)
    rest = [each for each in heaviest if each not in shown]
    if rest:
        branches.append(
            {
                "reference": f"{len(rest)} more",
                "type": "",
                "samples": sum(each.samples for each in rest),
                "bytes": round(sum(each.bytes for each in rest)),
            }
        )
    return branches


def _notes(result: Search) -> list[str]:
    notes = [text for limit, text in _LIMITS.items() if result.limits & limit]
    if result.garbage:
        off = "" if gc.isenabled() else ", and the collector is switched off"
        notes.append(
            f"{result.garbage:,} objects are in reference cycles that wait for the collector{off}"
        )
    if len(result.found) < result.matched:
        notes.append(f"{len(result.found):,} of {result.matched:,} samples were looked for")
    return notes

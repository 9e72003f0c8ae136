"""From a live table to a heap profile in Go's sample types.

Each sampled block counts for 1 / (1 - exp(-size / interval)) blocks (core/sampling.h), so the
values are unbiased estimates. What is alive is split by birth: a sample carries the numeric label
`birth`, the start in seconds since the sampler's start of the band of BIRTH_BAND_S seconds in which
its blocks were allocated, and the labels `thread` and `route`, where known: whose memory it is.
What was allocated since the start is one sample per stack without labels.

Stacks of native memory begin with native frames: their locations have an address and a mapping with
build id, their function the linker's name (the library's in brackets where there is none) and the
library's path, and no line. Those of Python have a line and no address.
"""

import math
import os
import socket
from collections import defaultdict

from stanch.profile import Function, Line, Location, Mapping, Profile, Sample, ValueType
from stanch.sampler.symbols import Names, Symbols
from stanch.sampler.tablefile import (
    Frame,
    NativeFrame,
    TableFunction,
    TableImage,
    TableLabel,
    TableMapping,
    TableStack,
)
from stanch.version import __version__

BIRTH_BAND_S = 5
BIRTH_LABEL = "birth"
THREAD_LABEL = "thread"
ROUTE_LABEL = "route"
SAMPLE_TYPES = (
    ValueType("alloc_objects", "count"),
    ValueType("alloc_space", "bytes"),
    ValueType("inuse_objects", "count"),
    ValueType("inuse_space", "bytes"),
)
_NO_PYTHON = TableFunction("[no Python frame]", "", 0)
_symbols = Symbols()


def sample_weight(size_bytes: int, interval_bytes: int) -> float:
    """Return how many blocks of this size one sample stands for, at least 1."""
    return -1.0 / math.expm1(-max(size_bytes, 1) / interval_bytes)


def table_profile(image: TableImage, *, time_ns: int | None = None, instance: str = "") -> Profile:
    """Build the heap profile of a table.

    time_ns: when it was taken, ns since the Unix epoch; the table's last sign of life when None.
    instance: HOST:PID of the process; this host and the table's pid when empty.
    """
    native = (f for stack in image.stacks for f in stack.frames if isinstance(f, NativeFrame))
    names = _symbols.names(native)
    locations = _Locations(f"python{image.python.rpartition('.')[0]}", names)
    alive: dict[tuple[int, int, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    weights: dict[tuple[int, int], float] = {}
    for entry in image.entries:
        kind = (entry.size_bytes, entry.interval_bytes)
        weight = weights.get(kind) or weights.setdefault(kind, sample_weight(*kind))
        band = entry.birth_ns // 1_000_000_000 // BIRTH_BAND_S * BIRTH_BAND_S
        cell = alive[entry.stack, band, entry.label]
        cell[0] += weight
        cell[1] += weight * entry.size_bytes
    stacks = [locations.of(stack) for stack in image.stacks]
    labels = [_pairs(label) for label in image.labels]
    samples = [
        Sample(stacks[number], (round(stack.alloc_objects), round(stack.alloc_bytes), 0, 0))
        for number, stack in enumerate(image.stacks)
        if stack.alloc_objects
    ]
    samples += [
        Sample(
            stacks[number],
            (0, 0, round(objects), round(size)),
            labels=labels[label],
            num_labels=((BIRTH_LABEL, band, "seconds"),),
        )
        for (number, band, label), (objects, size) in sorted(alive.items())
    ]
    if time_ns is None:
        time_ns = image.start_unix_ns + image.uptime_ns
    return Profile(
        sample_types=SAMPLE_TYPES,
        samples=tuple(samples),
        default_sample_type="inuse_space",
        period_type=ValueType("space", "bytes"),
        period=image.interval_bytes,
        time_nanos=time_ns,
        duration_nanos=image.uptime_ns,
        comments=_comments(image, instance or f"{socket.gethostname()}:{image.pid}"),
        mappings=locations.mappings(),
    )


def _pairs(label: TableLabel) -> tuple[tuple[str, str], ...]:
    named = ((THREAD_LABEL, label.thread), (ROUTE_LABEL, label.route))
    return tuple((key, text) for key, text in named if text)


def _comments(image: TableImage, instance: str) -> tuple[str, ...]:
    facts = {
        "stanch": __version__,
        "service": image.service,
        "instance": instance,
        "pid": image.pid,
        "requests": image.requests,
        "start_unix_ns": image.start_unix_ns,
        "interval_bytes": image.interval_bytes,
        **_intervals(image),
        "dropped": image.dropped + image.torn,
    }
    return tuple(f"{name}={value}" for name, value in facts.items())


def _intervals(image: TableImage) -> dict[str, str]:
    """Say which interval applied since when, in seconds since the start, if there were several."""
    if len(image.intervals) < 2:
        return {}
    since = (f"{size}@{uptime_ns / 1e9:.1f}s" for uptime_ns, size in image.intervals)
    return {"intervals": ",".join(since)}


class _Locations:
    """Makes one pprof location for each frame."""

    def __init__(self, binary: str, names: Names) -> None:
        self._names = names
        self._python = Mapping(
            file=os.fspath(binary),
            has_functions=True,
            has_filenames=True,
            has_line_numbers=True,
        )
        self._functions: dict[TableFunction, Function] = {}
        self._mappings: dict[TableMapping, Mapping] = {}
        self._made: dict[Frame, Location] = {}

    def mappings(self) -> tuple[Mapping, ...]:
        """Return the mappings of all locations made; the first one is the program."""
        return (self._python, *self._mappings.values())

    def of(self, stack: TableStack) -> tuple[Location, ...]:
        frames = stack.frames or ((_NO_PYTHON, 0),)
        return tuple(self._made.get(frame) or self._make(frame) for frame in frames)

    def _make(self, frame: Frame) -> Location:
        if isinstance(frame, NativeFrame):
            location = self._make_native(frame)
        else:
            location = self._make_python(*frame)
        self._made[frame] = location
        return location

    def _make_python(self, source: TableFunction, line: int) -> Location:
        function = self._functions.get(source)
        if function is None:
            # No system name: pprof would take it for C++ and strip "<module>" and "<locals>".
            function = Function(source.name, "", source.file, max(source.first_line, 0))
            self._functions[source] = function
        return Location(0, self._python, (Line(function, max(line, 0)),))

    def _make_native(self, frame: NativeFrame) -> Location:
        source = frame.mapping
        mapping = self._mappings.get(source)
        if mapping is None:
            mapping = self._mappings[source] = Mapping(
                start=source.start,
                limit=source.end,
                offset=source.file_start,
                file=source.path,
                build_id=source.build_id,
                has_functions=True,
            )
        name = self._names[frame]
        library = source.path.rpartition("/")[2] or "unknown"
        function = Function(name or f"[{library}]", name or "", source.path)
        return Location(source.start + frame.offset, mapping, (Line(function),))

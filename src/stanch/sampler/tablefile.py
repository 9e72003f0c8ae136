"""Reads a live table: a snapshot of this process, or the file that a dead one left.

The layout is defined in core/table_format.h. A file may come from a process that was killed at
any instant, or from someone hostile: every offset and number is checked before it is used, an
entry that refers to nothing is counted in `torn` and left out, and anything worse is a TableError.
"""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TypeAlias

from stanch.sampler.errors import TableError

MAGIC = b"STANCHT\n"
VERSION = 2
HEADER_BYTES = 4096
MAX_FILE_BYTES = 64 << 20
MAX_ITEMS = 1 << 20  # of a section other than the strings, whose items are single bytes
MAX_TEXTS_BYTES = 64 << 20  # of all names and files of a section together
LATEST_NS = (1 << 63) - 1  # since the Unix epoch, as in pprof
ADDRESS_SPACE_BYTES = 1 << 47
MAX_COUNT = float(1 << 62)
MAX_DEPTH = 128  # FRAMES_MAX_DEPTH in core/frames.h

_FIXED = struct.Struct("<8sII QQQ II QQQ QQ QQ dd II")
_SECTION = struct.Struct("<QIIII")
_SECTIONS = (
    "strings",
    "functions",
    "frames",
    "stack_frames",
    "stacks",
    "entries",
    "mappings",
    "labels",
)
_FUNCTION = struct.Struct("<IIHHi")
_FRAME = struct.Struct("<Ii")
_STACK = struct.Struct("<IIdd")
_ENTRY = struct.Struct("<QQQQIIII")
_MAPPING = struct.Struct("<QQQIIHHI")
_LABEL = struct.Struct("<IIHH")
_INTERVAL = struct.Struct("<QII")
_ITEM_BYTES = {
    "strings": 1,
    "functions": _FUNCTION.size,
    "frames": _FRAME.size,
    "stack_frames": 4,
    "stacks": _STACK.size,
    "entries": _ENTRY.size,
    "mappings": _MAPPING.size,
    "labels": _LABEL.size,
}
_SERVICE_BYTES = 128
_MAX_INTERVALS = 32
FRAME_NATIVE = 0x80000000
_STATE_STOPPED = 2


class Domain(IntEnum):
    """Which allocator a sampled block was asked of (core/table_format.h)."""

    RAW = 0
    MEM = 1
    OBJ = 2
    NATIVE = 3


@dataclass(frozen=True, slots=True)
class TableFunction:
    """A Python function: its qualified name, file and first line."""

    name: str
    file: str
    first_line: int


@dataclass(frozen=True, slots=True)
class TableMapping:
    """An executable segment of a library: its addresses, file offset, path and build id (hex)."""

    start: int
    end: int
    file_start: int
    path: str
    build_id: str


@dataclass(frozen=True, slots=True)
class NativeFrame:
    """A call in native code, at an offset in bytes from the start of a mapping."""

    mapping: TableMapping
    offset: int


Frame: TypeAlias = "tuple[TableFunction, int] | NativeFrame"
"""A Python function with a line of it, or a place in native code."""


@dataclass(frozen=True, slots=True)
class TableStack:
    """A stack, leaf first, and what it allocated since the start."""

    frames: tuple[Frame, ...]
    alloc_objects: float
    alloc_bytes: float

    @property
    def python_frames(self) -> tuple[tuple[TableFunction, int], ...]:
        """The frames of Python functions, leaf first; those of native code are left out."""
        return tuple(frame for frame in self.frames if not isinstance(frame, NativeFrame))


@dataclass(frozen=True, slots=True)
class TableLabel:
    """Whose memory a sample is: the names of the thread and of the route or job, or empty."""

    thread: str
    route: str


@dataclass(frozen=True, slots=True)
class TableEntry:
    """A sampled block that is alive, of a Domain; `interval_bytes` is the mean of its draw."""

    size_bytes: int
    birth_ns: int
    birth_requests: int
    stack: int
    interval_bytes: int
    domain: int
    label: int


@dataclass(frozen=True, slots=True)
class TableImage:
    """A live table at one moment. Times in ns: `uptime_ns` and births count from the start.

    labels_refused: samples that got the label of those for which there was no room.
    intervals: (uptime_ns, interval_bytes) for each mean interval, from the time when it came into
    force, oldest first.
    """

    pid: int
    service: str
    python: str
    start_unix_ns: int
    uptime_ns: int
    stopped: bool
    interval_bytes: int
    limit_bytes: int | None
    requests: int
    samples: int
    dropped: int
    stacks: tuple[TableStack, ...]
    entries: tuple[TableEntry, ...]
    torn: int
    mappings: tuple[TableMapping, ...]
    labels: tuple[TableLabel, ...]
    labels_refused: int
    intervals: tuple[tuple[int, int], ...]


def read_table(source: str | os.PathLike[str] | bytes) -> TableImage:
    """Read a table from a file or from the bytes of a snapshot.

    Raises TableError when it is not a table that this version can read, OSError when the file
    cannot be opened.
    """
    if isinstance(source, bytes):
        return _read(memoryview(source), "the snapshot")
    path = Path(source)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise TableError(f"{path} has {size} bytes, more than any table ({MAX_FILE_BYTES})")
        # Not mapped: whoever shortens the file meanwhile would end us by SIGBUS.
        return _read(memoryview(file.read(MAX_FILE_BYTES)), str(path))


def _read(data: memoryview, where: str) -> TableImage:
    if len(data) < HEADER_BYTES:
        raise TableError(
            f"{where} has {len(data)} bytes, a table has at least {HEADER_BYTES}; "
            "name a .stanch file that an agent left"
        )
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise TableError(f"{where} is not a table of Stanch: it does not begin with STANCHT")
    fixed = _FIXED.unpack_from(data)
    _, version, _header_bytes, pid, start_unix_ns, uptime_ns, state, interval, limit = fixed[:9]
    requests, samples, drop_full, drop_space = fixed[9:13]
    python_version = fixed[17]
    if version != VERSION:
        raise TableError(
            f"{where} has table format {version}, this Stanch reads {VERSION}; "
            "read it with the version of Stanch that wrote it"
        )
    if start_unix_ns + uptime_ns > LATEST_NS:
        raise TableError(f"{where} is damaged: it claims to end {uptime_ns} ns after its start")
    sections = _sections(data, where)
    service_at = _FIXED.size + _SECTION.size * len(_SECTIONS)
    service = bytes(data[service_at : service_at + _SERVICE_BYTES]).split(b"\0")[0]
    mappings = tuple(_mappings(sections))
    stacks = tuple(_stacks(sections, mappings))
    labels = tuple(_labels(sections))
    entries, torn = _entries(sections["entries"], len(stacks), len(labels))
    return TableImage(
        pid=pid,
        service=service.decode("utf-8", "replace"),
        python=f"{python_version >> 24}.{python_version >> 16 & 0xFF}.{python_version >> 8 & 0xFF}",
        start_unix_ns=start_unix_ns,
        uptime_ns=uptime_ns,
        stopped=state == _STATE_STOPPED,
        interval_bytes=interval,
        limit_bytes=limit or None,
        requests=requests,
        samples=samples,
        dropped=drop_full + drop_space,
        stacks=stacks,
        entries=entries,
        torn=torn,
        mappings=mappings,
        labels=labels,
        labels_refused=struct.unpack_from("<Q", data, service_at + _SERVICE_BYTES)[0],
        intervals=_intervals(data, service_at + _SERVICE_BYTES + 8),
    )


def _sections(data: memoryview, where: str) -> dict[str, memoryview]:
    """Cut out the used part of each section."""
    sections = {}
    for number, name in enumerate(_SECTIONS):
        offset, item_bytes, _capacity, used, _reserved = _SECTION.unpack_from(
            data, _FIXED.size + number * _SECTION.size
        )
        end = offset + item_bytes * used
        in_file = offset >= HEADER_BYTES and end <= len(data)
        if not in_file or item_bytes != _ITEM_BYTES[name] or (item_bytes > 1 and used > MAX_ITEMS):
            raise TableError(
                f"{where} is damaged: its section of {name} claims {used} items of {item_bytes} "
                f"bytes at {offset}, in a file of {len(data)} bytes"
            )
        sections[name] = data[offset:end]
    return sections


def _intervals(data: memoryview, offset: int) -> tuple[tuple[int, int], ...]:
    used, _ = struct.unpack_from("<II", data, offset)
    at = offset + 8
    found = data[at : at + _INTERVAL.size * min(used, _MAX_INTERVALS)]
    return tuple((uptime_ns, interval) for uptime_ns, interval, _ in _INTERVAL.iter_unpack(found))


def _texts(sections: dict[str, memoryview]) -> Callable[[int, int], str]:
    """Return a function that reads a text by its offset and length in bytes."""
    strings = bytes(sections["strings"])
    left = MAX_TEXTS_BYTES

    def text(offset: int, length: int) -> str:
        nonlocal left
        left -= length
        if left < 0:
            return "[damaged text]"
        return strings[offset : offset + length].decode("utf-8", "replace")

    return text


def _mappings(sections: dict[str, memoryview]) -> Iterator[TableMapping]:
    text = _texts(sections)
    for (
        start,
        end,
        file_start,
        path,
        build_id,
        path_bytes,
        build_id_bytes,
        _,
    ) in _MAPPING.iter_unpack(sections["mappings"]):
        yield TableMapping(
            start, end, file_start, text(path, path_bytes), text(build_id, build_id_bytes)
        )


def _labels(sections: dict[str, memoryview]) -> Iterator[TableLabel]:
    text = _texts(sections)
    for thread, route, thread_bytes, route_bytes in _LABEL.iter_unpack(sections["labels"]):
        yield TableLabel(text(thread, thread_bytes), text(route, route_bytes))


def _functions(sections: dict[str, memoryview]) -> Iterator[TableFunction]:
    text = _texts(sections)
    for name, file, name_bytes, file_bytes, line in _FUNCTION.iter_unpack(sections["functions"]):
        yield TableFunction(text(name, name_bytes), text(file, file_bytes), line)


def _frames(
    sections: dict[str, memoryview], mappings: tuple[TableMapping, ...], unknown: TableFunction
) -> Iterator[Frame]:
    functions = tuple(_functions(sections))
    for function, line in _FRAME.iter_unpack(sections["frames"]):
        if function < len(functions):
            yield functions[function], line
        elif function & FRAME_NATIVE and function ^ FRAME_NATIVE < len(mappings):
            yield NativeFrame(mappings[function ^ FRAME_NATIVE], line & 0xFFFFFFFF)
        else:
            yield unknown, line


def _stacks(
    sections: dict[str, memoryview], mappings: tuple[TableMapping, ...]
) -> Iterator[TableStack]:
    unknown = TableFunction("[damaged frame]", "", 0)
    frames = tuple(_frames(sections, mappings, unknown))
    numbers = sections["stack_frames"].cast("I")
    left = len(numbers)  # each belongs to one stack
    for first, depth, objects, size in _STACK.iter_unpack(sections["stacks"]):
        wanted = numbers[first : first + min(depth, MAX_DEPTH, left)]
        left -= len(wanted)
        yield TableStack(
            tuple(frames[n] if n < len(frames) else (unknown, 0) for n in wanted),
            objects if 0 <= objects < MAX_COUNT else 0.0,
            size if 0 <= size < MAX_COUNT else 0.0,
        )


def _entries(section: memoryview, stacks: int, labels: int) -> tuple[tuple[TableEntry, ...], int]:
    entries = []
    torn = 0
    left = ADDRESS_SPACE_BYTES
    for address, size, birth, requests, stack, interval, domain, label in _ENTRY.iter_unpack(
        section
    ):
        if not address:
            continue
        if stack >= stacks or label >= labels or not interval or size > left:
            torn += 1
            continue
        left -= size
        entries.append(TableEntry(size, birth, requests, stack, interval, domain, label))
    return tuple(entries), torn

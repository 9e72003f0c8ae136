"""From what the kernel, malloc, CPython and the sampler say to one account that adds up to RSS.

`breakdown` gives rows that are never negative and whose sum is exactly RSS: what no source
explains is the row `other`. Estimates that claim more than there is room for are cut, and what was
cut is `overshoot_bytes`. Pure: no clock, no files.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from stanch.sampler.cgroup import GroupKind
from stanch.sampler.memory import Estimate, HeapMemory, MallocMemory, ProcessMemory

Kind = Literal[
    "python_live", "python_free", "native_live", "malloc_live", "malloc_free",
    "malloc_heap", "stacks", "shared", "file", "other",
]  # fmt: skip
Leak = Literal["yes", "threads", "unclear", "no", "never"]
"""Can it be a leak? threads: only by ever more threads; unclear: the kernel does not tell it apart
from what cannot; no: kept for reuse; never: given up when memory is short."""

_SURE = 2.0
"""Standard errors within which an estimate lies 19 times in 20."""


@dataclass(frozen=True, slots=True)
class Sort:
    """What a kind of memory is, for people."""

    title: str
    what: str
    leak: Leak


SORTS: dict[Kind, Sort] = {
    "python_live": Sort("live Python heap", "held by Python code; stanch top: where", "yes"),
    "python_free": Sort("free in Python's arenas", "kept for reuse: fragmentation", "no"),
    "native_live": Sort("live native blocks", "held by C code, as the profile shows it", "yes"),
    "malloc_live": Sort("other malloc blocks", "held by C code: arrays, libraries, CPython", "yes"),
    "malloc_free": Sort("free in malloc's arenas", "kept for reuse: allocator slack", "no"),
    "malloc_heap": Sort("malloc's heaps", "in use or free: only an agent can tell", "yes"),
    "stacks": Sort("threads' stacks", "grow with the number of threads", "threads"),
    "shared": Sort("shared memory", "/dev/shm, memfd, tmpfs: stays until unlinked", "yes"),
    "file": Sort("mapped files", "code, libraries, data: page cache", "never"),
    "other": Sort("other private memory", "libraries' data, mappings of their own", "yes"),
}  # fmt: skip
"""In the order of the rows."""

GROUP_SORTS: dict[GroupKind, Sort] = {
    "anon": Sort("private memory", "of all processes: heaps, stacks", "yes"),
    "shared": Sort("shared memory, tmpfs", "stays until unlinked", "yes"),
    "kernel": Sort("kernel", "page tables, sockets, open files", "yes"),
    "kernel_all": Sort("kernel and its caches", "not told apart in version 1", "unclear"),
    "reclaimable": Sort("kernel caches", "given up when memory is short", "never"),
    "file": Sort("page cache", "given up when memory is short", "never"),
    "other": Sort("charged ahead", "not told apart by the kernel", "no"),
}
"""The same for a cgroup."""


@dataclass(frozen=True, slots=True)
class Row:
    """One kind's bytes. error_bytes: where sampled, the true number is this near 19 times in 20."""

    kind: Kind
    bytes: int
    error_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The account of one process, or of several.

    The rows add up to rss_bytes. overshoot_bytes: by how much estimates went beyond the memory
    there is. untouched_bytes: asked of malloc and never used, so in no row.
    """

    rss_bytes: int
    rows: tuple[Row, ...]
    swap_bytes: int = 0
    overshoot_bytes: int = 0
    untouched_bytes: int = 0


def breakdown(
    process: ProcessMemory, heap: HeapMemory | None, native_live_bytes: int | None = None
) -> Breakdown:
    """Account for a process. heap: None for one without a running sampler.

    native_live_bytes: live bytes that were sampled from malloc, None where that is not done.
    """
    room = _Room(process.anon_bytes)
    stacks = room.take(process.stack_bytes or 0)
    found: list[Row | None] = []
    untouched = 0
    if heap is None:
        known = process.malloc_heap_bytes is not None
        found.append(
            Row("malloc_heap", room.take(process.malloc_heap_bytes or 0)) if known else None
        )
    else:
        heaps = _MallocHeaps.of(heap.malloc, process.malloc_heap_bytes or 0, room)
        arenas = room.take(heap.arena_bytes)
        mapped = heap.malloc.mapped_bytes if heap.malloc else 0
        # Blocks that are known not to be resident must not take the place of what is.
        absent = heap.large.absent_bytes + (heap.native.absent_bytes if heap.native else 0.0)
        in_malloc = heaps.used + room.take(mapped - round(absent))
        untouched = max(heaps.used + mapped - in_malloc, 0)
        found += _allocated(heap, native_live_bytes, arenas, in_malloc, heaps.free, room)
    other = room.left
    found += [
        Row("stacks", stacks) if process.stack_bytes is not None else None,
        Row("shared", process.shared_bytes),
        Row("file", process.file_bytes),
        Row("other", other),
    ]
    rows = {row.kind: row for row in found if row is not None}
    return Breakdown(
        rss_bytes=process.rss_bytes,
        rows=tuple(rows[kind] for kind in SORTS if kind in rows),
        swap_bytes=process.swap_bytes,
        overshoot_bytes=room.overshoot,
        untouched_bytes=untouched,
    )


class _Room:
    """Private memory that is not yet explained; nothing takes more than there is."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.overshoot = 0

    def take(self, wanted: int) -> int:
        taken = min(max(wanted, 0), self.left)
        self.left -= taken
        return taken

    def claim(self, wanted: int, error: int) -> int:
        """Take what is wanted beyond an error, and count the rest of it."""
        taken = self.take(wanted - error)
        self.overshoot += wanted - taken
        return taken


@dataclass(frozen=True, slots=True)
class _MallocHeaps:
    """Resident bytes of malloc's heaps: blocks in use, and free space; None where unknown."""

    used: int
    free: int | None

    @classmethod
    def of(cls, malloc: MallocMemory | None, resident: int, room: _Room) -> "_MallocHeaps":
        if malloc is None:
            return cls(0, None)
        whole = room.take(resident)
        # Free space that was given back to the system, or never touched, is not resident.
        free = min(max(whole - malloc.used_bytes, 0), malloc.free_bytes)
        return cls(whole - free, free)


def _allocated(
    heap: HeapMemory,
    native_live_bytes: int | None,
    arenas: int,
    in_malloc: int,
    malloc_free: int | None,
    room: _Room,
) -> list[Row | None]:
    """Divide arenas and malloc's blocks among those who hold them.

    Small blocks may lie in arenas of before the sampler, large ones in another malloc than glibc's:
    what an estimate has beyond its place, and beyond its own error, is taken from the unexplained.
    """
    native_sampled = heap.native or Estimate(0.0, 0.0)
    small, small_error = _resident(heap.small)
    large, large_error = _resident(heap.large)
    native = max((native_live_bytes or 0) - round(native_sampled.absent_bytes), 0)
    native_error = _resident(native_sampled)[1]
    small_placed, large_placed = min(small, arenas), min(large, in_malloc)
    native_placed = min(native, in_malloc - large_placed)
    python_live = small_placed + large_placed
    python_live += room.claim(small - small_placed, small_error)
    python_live += room.claim(large - large_placed, large_error)
    rows: list[Row | None] = [
        Row("python_live", python_live, round(math.hypot(small_error, large_error))),
        Row("python_free", arenas - small_placed, small_error),
    ]
    if native_live_bytes is not None:
        native = native_placed + room.claim(native - native_placed, native_error)
        rows.append(Row("native_live", native, native_error))
    if malloc_free is not None:
        rest = in_malloc - large_placed - native_placed
        rows.append(Row("malloc_live", rest, round(math.hypot(large_error, native_error))))
        rows.append(Row("malloc_free", malloc_free))
    return rows


def _resident(estimate: Estimate) -> tuple[int, int]:
    """Return what is resident of an estimate, and its error."""
    size = max(estimate.bytes - estimate.absent_bytes, 0.0)
    return round(size), round(_SURE * estimate.error_bytes)


def total(parts: Iterable[Breakdown]) -> Breakdown:
    """Add up processes. Pages that processes share count in each, as in any sum of RSS."""
    parts = list(parts)
    cells: dict[Kind, list[Row]] = {}
    for part in parts:
        for row in part.rows:
            cells.setdefault(row.kind, []).append(row)
    return Breakdown(
        rss_bytes=sum(part.rss_bytes for part in parts),
        rows=tuple(_sum(cells[kind]) for kind in SORTS if kind in cells),
        swap_bytes=sum(part.swap_bytes for part in parts),
        overshoot_bytes=sum(part.overshoot_bytes for part in parts),
        untouched_bytes=sum(part.untouched_bytes for part in parts),
    )


def _sum(rows: list[Row]) -> Row:
    errors = [row.error_bytes for row in rows if row.error_bytes is not None]
    error = round(math.hypot(*errors)) if errors else None
    return Row(rows[0].kind, sum(row.bytes for row in rows), error)


def to_json(account: Breakdown) -> dict[str, Any]:
    """Return an account as JSON values."""
    return {
        "rss_bytes": account.rss_bytes,
        "rows": [
            {
                "kind": row.kind,
                "bytes": row.bytes,
                "share": round(row.bytes / account.rss_bytes, 4) if account.rss_bytes else 0.0,
                "error_bytes": row.error_bytes,
                "can_leak": SORTS[row.kind].leak,
            }
            for row in account.rows
        ],
        "swap_bytes": account.swap_bytes,
        "overshoot_bytes": account.overshoot_bytes,
        "untouched_bytes": account.untouched_bytes,
    }


def from_json(value: Any) -> Breakdown:
    """Read what `to_json` gave. Raises ValueError for anything else."""
    try:
        rows = tuple(
            Row(kind, int(row["bytes"]), _optional(row["error_bytes"]))
            for row in value["rows"]
            for kind in SORTS
            if kind == row["kind"]
        )
        return Breakdown(
            rss_bytes=int(value["rss_bytes"]),
            rows=rows,
            swap_bytes=int(value["swap_bytes"]),
            overshoot_bytes=int(value["overshoot_bytes"]),
            untouched_bytes=int(value["untouched_bytes"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"this is no account of a process's memory: {error!r}") from error


def _optional(number: Any) -> int | None:
    return None if number is None else int(number)

"""What the memory of a process is made of, as the kernel, malloc, CPython and the sampler tell it.

Sources, and what they cost for 1 GB of memory: /proc/PID/status (one read), /proc/PID/maps with
mincore() on malloc's heaps and the stacks (under 1 ms), glibc's mallinfo2 (20 ms for a million
free blocks), the live table. The C core reads all but the status, without the GIL. /proc/PID/smaps
would tell more, and is not read: it takes 14 ms and holds up the process's mmap meanwhile.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from stanch.sampler.control import _core, stats
from stanch.sampler.errors import SamplerError

_STATUS_KEYS = ("RssAnon", "RssFile", "RssShmem", "VmSwap")


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """The kernel's view, in bytes: anon, file and shared add up to RSS.

    stacks and malloc_heaps are resident and part of anon; None where the mappings cannot be read.
    """

    anon_bytes: int
    file_bytes: int
    shared_bytes: int
    swap_bytes: int
    stack_bytes: int | None = None
    malloc_heap_bytes: int | None = None

    @property
    def rss_bytes(self) -> int:
        """The resident set, as /proc/PID/status counts it."""
        return self.anon_bytes + self.file_bytes + self.shared_bytes


@dataclass(frozen=True, slots=True)
class Estimate:
    """A sampled number of bytes, and its standard error.

    absent_bytes: what of it is not resident: never touched, or swapped out.
    """

    bytes: float
    error_bytes: float
    absent_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class MallocMemory:
    """glibc's own account in bytes: in use and free in its arenas, and mapped one by one."""

    used_bytes: int
    free_bytes: int
    mapped_bytes: int


@dataclass(frozen=True, slots=True)
class HeapMemory:
    """What the allocators of a sampled process hold.

    small: live blocks in CPython's arenas, as large as the arena makes them; large: CPython's other
    live blocks, which malloc holds. native: live blocks sampled from malloc itself, None when that
    is not done. arena_bytes: taken for arenas since the sampler's start. malloc: None where the C
    library does not say.
    """

    small: Estimate
    large: Estimate
    native: Estimate | None
    arena_bytes: int
    malloc: MallocMemory | None


def process_memory(pid: int | None = None, root: Path = Path("/")) -> ProcessMemory | None:
    """Return the kernel's view of a process, None for this one; None when it does not tell.

    root: "/" but for tests of the status; mappings are read of real processes only.
    """
    name = "self" if pid is None else str(pid)
    status = _status(root / "proc" / name / "status")
    if status is None:
        return None
    anon, file, shared, swap = status
    stacks = heaps = None
    if _core is not None:
        try:
            found = _core.mappings(pid or 0)
            stacks, heaps = found["stack_bytes"], found["malloc_bytes"]
        except OSError:
            pass  # Another user's process, or a kernel without page maps.
    return ProcessMemory(anon, file, shared, swap, stacks, heaps)


def heap_memory() -> HeapMemory:
    """Return what the allocators of this process hold. Raises SamplerError when sampling is off."""
    state = stats()
    if _core is None or not state.running:
        raise SamplerError("sampling does not run in this process; call stanch.start() first")
    live = _core.live_figures()
    small, large, native = (_estimate(*live[name]) for name in ("small", "large", "native"))
    if state.mode == "classic":
        # There may be no arenas: PYTHONMALLOC=malloc gives small blocks to malloc, too.
        large = Estimate(
            small.bytes + large.bytes,
            math.hypot(small.error_bytes, large.error_bytes),
            large.absent_bytes,
        )
        small = Estimate(0.0, 0.0)
    figures = _core.malloc_figures()
    return HeapMemory(
        small=small,
        large=large,
        native=native if native.bytes else None,
        arena_bytes=live["arena_bytes"],
        malloc=MallocMemory(*figures) if figures is not None else None,
    )


def _estimate(value: float, variance: float, absent: float) -> Estimate:
    return Estimate(max(value, 0.0), math.sqrt(max(variance, 0.0)), max(absent, 0.0))


def _status(file: Path) -> tuple[int, int, int, int] | None:
    found: dict[str, int] = {}
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, rest = line.partition(":")
        words = rest.split()
        if key in _STATUS_KEYS and words and words[0].isdigit():
            found[key] = int(words[0]) * 1024
    anon, file_bytes, shared, swap = (found.get(key) for key in _STATUS_KEYS)
    if anon is None or file_bytes is None or shared is None:
        return None
    return anon, file_bytes, shared, swap or 0

"""What one look at one target found, as plain values: the input of every store.

A look is taken by the scraper at one instant. Times named `time_s` are seconds of the scraper's
monotonic clock; `age_s` and birth seconds are seconds since the process (for Python: its sampler)
started, by the process's own monotonic clock. Wall-clock times are carried for display only.
Stacks are leaf first, as in pprof.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias


class Frame(NamedTuple):
    """One place in a program; `line` counts from 1, 0 when unknown.

    A named tuple, as stacks are keys: a dataclass takes six times as long to hash, and a look at
    a large service hashes some hundred thousand frames.
    """

    function: str
    file: str
    line: int


Stack: TypeAlias = tuple[Frame, ...]


FILES: Stack = (Frame("(open files)", "", 0),)
"""Where open files are counted: no stack tells who opened them."""


@dataclass(frozen=True, slots=True)
class StackHeap:
    """The sampled heap of one stack in one process.

    Bytes and objects are unbiased estimates, finite and not negative.
    births: (second, live bytes) of each band of birth [second, second + BIRTH_BAND_S) that still
    has bytes alive; empty when the runtime does not tell births (Go).
    """

    stack: Stack
    allocated_bytes: float
    live_bytes: float
    live_objects: float
    births: tuple[tuple[float, float], ...] = ()


BIRTH_BAND_S = 5.0
"""Width of a band of birth in the agent's heap profile, in seconds."""


@dataclass(frozen=True, slots=True)
class StackCount:
    """How many goroutines, threads, tasks or open files ("fd") stood at one stack."""

    kind: str
    stack: Stack
    count: float


@dataclass(frozen=True, slots=True)
class ProcessLook:
    """One process of a target at one instant; None stands for what the target did not tell.

    started: whatever tells one process start from another (a unix time, or clock ticks of
    /proc); compared for equality only. period_bytes: mean distance of heap samples.
    runtime_bytes: what the runtime itself holds from the system (Go: Sys - HeapReleased).
    heap_fresh: False when the heap profile is the one already seen (Go refreshes it at each GC).
    """

    pid: int | None = None
    started: float | None = None
    age_s: float | None = None
    rss_bytes: float | None = None
    live_heap_bytes: float | None = None
    runtime_bytes: float | None = None
    requests: float | None = None
    in_flight: float | None = None
    period_bytes: float = 512 * 1024
    heap: tuple[StackHeap, ...] = ()
    heap_fresh: bool = True


@dataclass(frozen=True, slots=True)
class Look:
    """One target at one instant: its processes, its container and its concurrency.

    service, instance: the names under which findings speak of the target.
    language: "python", "go" or "" when unknown.
    limit_bytes, working_set_bytes: of the memory cgroup, or the limit given by the user.
    processes: the first one is the oldest, whose end is the end of the target's life.
    release: which build of the service runs, "" when it does not tell. slack_bytes: what its
    allocators hold free, for reuse. page_cache_bytes: of its container. max_fds: how many files it
    may open; how many it has is a count of kind "fd" at FILES.
    """

    service: str
    instance: str
    time_s: float
    unix_s: float
    language: str
    processes: tuple[ProcessLook, ...]
    limit_bytes: float | None = None
    working_set_bytes: float | None = None
    counts: tuple[StackCount, ...] = ()
    release: str = ""
    slack_bytes: float | None = None
    page_cache_bytes: float | None = None
    max_fds: float | None = None


def thin(look: Look) -> Look:
    """The look without its stacks: their sums as one stack."""
    return replace(
        look, counts=(), processes=tuple(_thin_process(process) for process in look.processes)
    )


def _thin_process(process: ProcessLook) -> ProcessLook:
    if len(process.heap) <= 1:
        return process
    allocated = sum(heap.allocated_bytes for heap in process.heap)
    return replace(process, heap=(StackHeap((), allocated, 0.0, 0.0),))

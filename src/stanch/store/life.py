"""One life of one target, bounded however long it lasts.

Takes looks, gives a LifeSeries. A life ends when another process answers in the target's place;
`is_same_life` tells which it is, from what only a new process does: another pid, an age that went
back, or cumulative allocations that fell. Wall clocks are asked last, as they can be set.
"""

from dataclasses import dataclass, replace

import numpy as np

from stanch.store.births import BirthTable
from stanch.store.columns import Table
from stanch.store.model import Frame, Look, ProcessLook, Stack, StackHeap
from stanch.store.series import Counts, LifeSeries

OTHER: Stack = (Frame("(other stacks)", "", 0),)
"""The stack under which everything is summed that was too small to be kept apart."""

NEAR_LIMIT = 0.9
"""A life whose memory was at least this share of its limit is taken to have died of it."""

_ABSURD = 1e18

_MOMENT, _RSS, _MEMORY, _HEAP, _RUNTIME, _REQUESTS, _IN_FLIGHT, _SLACK, _PAGES, _FRESH = range(10)
_ADDED_UP = ("rss_bytes", "live_heap_bytes", "runtime_bytes", "requests", "in_flight")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a life is kept: looks, stacks and bands of birth; about 3 MB at these numbers."""

    looks: int = 160
    stacks: int = 512
    counted_stacks: int = 256
    bands: int = 96


def is_same_life(before: Look, now: Look) -> bool:
    """Whether both looks saw the same oldest process."""
    if not before.processes or not now.processes:
        return True
    old, new = before.processes[0], now.processes[0]
    if old.pid is not None and new.pid is not None and old.pid != new.pid:
        return False
    if old.age_s is not None and new.age_s is not None:
        return new.age_s >= old.age_s
    if old.heap and new.heap:
        return _allocated(new) >= _allocated(old)
    return old.started is None or new.started is None or old.started == new.started


def _allocated(process: ProcessLook) -> float:
    return sum(stack.allocated_bytes for stack in process.heap)


def memory_of(look: Look) -> float | None:
    """What counts against the limit: the working set, else the sum of RSS, else None."""
    if is_sound(look.working_set_bytes):
        return look.working_set_bytes
    return _total(look, "rss_bytes")


def _total(look: Look, field: str) -> float | None:
    values = (getattr(process, field) for process in look.processes)
    known = [value for value in values if is_sound(value)]
    return sum(known) if known else None


def is_sound(number: float | None) -> bool:
    """Whether a number that a target told can be: known, finite, not negative, not absurd."""
    return number is not None and 0 <= number < _ABSURD


class Life:
    """The history of one life; `add` its looks in the order of their time."""

    def __init__(self, first: Look, bounds: Bounds) -> None:
        self._bounds = bounds
        age_s = first.processes[0].age_s if first.processes else None
        self._zero_s = first.time_s - (age_s or 0.0)
        self._first_unix_s = first.unix_s
        self._last = first
        self._moments: list[tuple[float, ...]] = []
        self._heap: Table[Stack] = Table(2, bounds.stacks, bounds.looks)
        self._counts: Table[tuple[str, Stack]] = Table(1, bounds.counted_stacks, bounds.looks)
        self._births = BirthTable(bounds.bands)
        self._has_births = False
        self._births_offset_s: dict[int | None, float] = {}
        self._object_bytes: dict[Stack, float] = {}
        self._period_bytes = 0.0
        self._limit_bytes: float | None = None
        self._release = ""

    @property
    def last(self) -> Look:
        """The newest look."""
        return self._last

    def add(self, look: Look) -> None:
        """Take in a look; one that is not later than the one before is dropped."""
        now_s = look.time_s - self._zero_s
        if self._moments and now_s <= self._moments[-1][_MOMENT]:
            return
        fresh = any(process.heap and process.heap_fresh for process in look.processes)
        stacks = _merge(look.processes) if fresh else {}
        kept = (
            self._counts.append(
                {(count.kind, count.stack): (count.count,) for count in look.counts}
            )
            if look.counts
            else self._counts.repeat()
        )
        if fresh:
            self._heap.append(
                {stack: (heap.live_bytes, heap.allocated_bytes) for stack, heap in stacks.items()}
            )
            self._take_births(look, now_s)
            self._take_sizes(stacks, look)
        else:
            self._heap.repeat()
        self._moments = [self._moments[column] for column in kept]
        self._moments.append(self._moment(look, now_s, fresh))
        if look.limit_bytes and is_sound(look.limit_bytes):
            self._limit_bytes = look.limit_bytes
        self._release = look.release or self._release
        self._last = look

    def near_limit(self) -> bool:
        """Whether memory was at its limit in the last look, or would have been by the next one."""
        memory = [moment[_MEMORY] for moment in self._moments[-2:]]
        if self._limit_bytes is None or not memory or np.isnan(memory).any():
            return False
        rise = max(0.0, memory[-1] - memory[0])
        return memory[-1] + 1.5 * rise >= NEAR_LIMIT * self._limit_bytes

    def series(self, *, ended: bool = False) -> LifeSeries:
        """Everything known, as arrays that later looks do not change."""
        moments = np.array(self._moments, dtype=np.float64).reshape(-1, 10).T
        keys = self._heap.keys
        live, allocated = self._heap.layer(0), self._heap.layer(1)
        births = self._births.series(keys) if self._has_births else None
        if self._heap.crowded:
            keys = (*keys, OTHER)
            live = np.vstack([live, self._heap.rest(0)])
            allocated = np.vstack([allocated, self._heap.rest(1)])
            births = self._births.series(keys) if births is not None else None
        counted = self._counts.keys
        return LifeSeries(
            service=self._last.service,
            instance=self._last.instance,
            language=self._last.language,
            first_unix_s=self._first_unix_s,
            time_s=moments[_MOMENT],
            rss_bytes=moments[_RSS],
            memory_bytes=moments[_MEMORY],
            heap_bytes=moments[_HEAP],
            runtime_bytes=moments[_RUNTIME],
            requests=moments[_REQUESTS],
            in_flight=moments[_IN_FLIGHT],
            limit_bytes=self._limit_bytes,
            period_bytes=self._period_bytes or ProcessLook().period_bytes,
            heap_fresh=moments[_FRESH].astype(np.bool_),
            stacks=keys,
            live_bytes=live,
            allocated_bytes=allocated,
            object_bytes=np.array([self._object_bytes.get(key, np.nan) for key in keys]),
            births=births,
            counts=Counts(
                kinds=tuple(kind for kind, _ in counted),
                stacks=tuple(stack for _, stack in counted),
                count=self._counts.layer(0),
            ),
            ended_near_limit=ended and self.near_limit(),
            release=self._release,
            slack_bytes=moments[_SLACK],
            page_cache_bytes=moments[_PAGES],
            max_fds=self._last.max_fds if is_sound(self._last.max_fds) else None,
        )

    def _moment(self, look: Look, now_s: float, fresh: bool) -> tuple[float, ...]:
        rss, heap, runtime, requests, in_flight = (_total(look, name) for name in _ADDED_UP)
        if heap is None and fresh:
            heap = sum(stack.live_bytes for process in look.processes for stack in process.heap)
        if heap is None and self._moments:
            heap = self._moments[-1][_HEAP]
        others = [
            number if is_sound(number) else None
            for number in (look.slack_bytes, look.page_cache_bytes)
        ]
        numbers = (rss, memory_of(look), heap, runtime, requests, in_flight, *others)
        return (now_s, *(np.nan if number is None else number for number in numbers), float(fresh))

    def _take_births(self, look: Look, now_s: float) -> None:
        """Put the births of each process on the life's clock.

        The distance of the two clocks is measured once per process, when it is first seen, so
        that the jitter of later looks does not smear the bands.
        """
        shifted: list[tuple[Stack, list[tuple[float, float]]]] = []
        for process in look.processes:
            if process.age_s is None:
                continue
            offset_s = self._births_offset_s.setdefault(process.pid, now_s - process.age_s)
            for stack in process.heap:
                if stack.births:
                    bands = [(second + offset_s, live) for second, live in stack.births]
                    shifted.append((stack.stack, bands))
        self._has_births = self._has_births or bool(shifted)
        if self._has_births:
            self._births.update(now_s, shifted)
            self._births.forget_all_but(set(self._heap.keys))
        alive = {process.pid for process in look.processes}
        self._births_offset_s = {
            pid: offset for pid, offset in self._births_offset_s.items() if pid in alive
        }

    def _take_sizes(self, stacks: dict[Stack, StackHeap], look: Look) -> None:
        self._period_bytes = max(
            self._period_bytes, *(process.period_bytes for process in look.processes)
        )
        for stack in self._heap.keys:
            heap = stacks.get(stack)
            if heap is not None and heap.live_objects > 0:
                self._object_bytes[stack] = heap.live_bytes / heap.live_objects
        keys = set(self._heap.keys)
        for stack in [stack for stack in self._object_bytes if stack not in keys]:
            del self._object_bytes[stack]


def _merge(processes: tuple[ProcessLook, ...]) -> dict[Stack, StackHeap]:
    """Add up the heaps of the processes of one target, without their births."""
    total: dict[Stack, StackHeap] = {}
    for process in processes:
        for heap in process.heap:
            before = total.get(heap.stack)
            if before is None:
                total[heap.stack] = heap
                continue
            total[heap.stack] = replace(
                before,
                allocated_bytes=before.allocated_bytes + heap.allocated_bytes,
                live_bytes=before.live_bytes + heap.live_bytes,
                live_objects=before.live_objects + heap.live_objects,
            )
    return total

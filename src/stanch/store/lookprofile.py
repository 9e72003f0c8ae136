"""Looks as pprof profiles: how a look's heaps and counts are kept, in the one format there is."""

from collections.abc import Iterable, Iterator

from stanch.profile import Function, Line, Location, Profile, Sample, ValueType, encode
from stanch.store.history import HEAP
from stanch.store.model import FILES, Frame, Look, ProcessLook, StackCount
from stanch.store.rows import COUNTED_TOGETHER

HEAP_TYPES = (
    ValueType("alloc_objects", "count"),
    ValueType("alloc_space", "bytes"),
    ValueType("inuse_objects", "count"),
    ValueType("inuse_space", "bytes"),
)


class Locations:
    """One pprof location for each frame."""

    def __init__(self) -> None:
        self._made: dict[Frame, Location] = {}

    def of(self, stack: Iterable[Frame]) -> tuple[Location, ...]:
        """The locations of a stack, leaf first."""
        return tuple(self._made.get(frame) or self._make(frame) for frame in stack)

    def _make(self, frame: Frame) -> Location:
        function = Function(frame.function, "", frame.file)
        location = self._made[frame] = Location(0, None, (Line(function, frame.line),))
        return location


def look_profiles(look: Look) -> Iterator[tuple[str, bytes, int]]:
    """The profiles of a look: kind, bytes, and the process they are of. Open files, which have no
    stack, are one of its numbers instead."""
    for number, process in enumerate(look.processes):
        if process.heap and process.heap_fresh:
            yield HEAP, encode(_heap(look, process)), number
    counts = [count for count in look.counts if count.stack != FILES]
    if counts:
        yield COUNTED_TOGETHER, encode(_counts(look, counts)), 0


def _heap(look: Look, process: ProcessLook) -> Profile:
    locations = Locations()
    samples = []
    for heap in process.heap:
        stack = locations.of(heap.stack)
        allocated, live = round(heap.allocated_bytes), round(heap.live_bytes)
        objects = round(heap.live_objects)
        born = sum(round(alive) for _, alive in heap.births)
        # What is not told of births is alive without one.
        samples.append(Sample(stack, (0, allocated, objects, live - born)))
        samples += [
            Sample(stack, (0, 0, 0, round(alive)), (), (("birth", round(second), "seconds"),))
            for second, alive in heap.births
        ]
    return Profile(
        HEAP_TYPES,
        tuple(samples),
        "inuse_space",
        ValueType("space", "bytes"),
        round(process.period_bytes),
        time_nanos=round(look.unix_s * 1e9),
        duration_nanos=round((process.age_s or 0.0) * 1e9),
        comments=(f"pid={process.pid}",),
    )


def _counts(look: Look, counts: Iterable[StackCount]) -> Profile:
    locations = Locations()
    samples = tuple(
        Sample(locations.of(count.stack), (round(count.count),), (("kind", count.kind),))
        for count in counts
    )
    return Profile((ValueType("goroutine", "count"),), samples, time_nanos=round(look.unix_s * 1e9))

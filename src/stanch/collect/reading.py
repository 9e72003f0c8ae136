"""Profiles as a watcher reads them: decoded in C, in the words of the store.

The stacks of a service are much the same from look to look. Each is made once and then shared, so
a look costs by its samples, not by their frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stanch.collect.gofacts import Executable
from stanch.store import Frame, Stack, StackCount, StackHeap
from stanch.store.model import BIRTH_BAND_S
from stanch.store.rows import Rows, StackFrame, open_profile, rows_of

HEAP_TYPES = ("alloc_space", "inuse_space")
COUNT_TYPE = "goroutine"

_MAX_FRAMES = 64
"""Frames of a stack that are kept, from the leaf: enough to name and show it."""

_MAX_STACKS = 100_000
"""So many stacks are remembered; beyond it all are forgotten, and made again when seen again."""

_NOTHING = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class ProfileReading:
    """What one profile says.

    types: its sample types. comments: those of the form key=value. build_id: of the program.
    fingerprint: the same for the same samples. heap: for profiles with HEAP_TYPES, the samples of
    each stack whatever their labels; counts: for those with COUNT_TYPE, by kind and stack. Values
    below zero, which no heap has, count as zero.
    """

    types: tuple[str, ...]
    comments: Mapping[str, str]
    executable: Executable
    build_id: str
    duration_s: float
    period: int
    fingerprint: int
    heap: tuple[StackHeap, ...] = ()
    counts: tuple[StackCount, ...] = ()

    @property
    def live_bytes(self) -> float:
        """All that is alive."""
        return sum(heap.live_bytes for heap in self.heap)


class Reader:
    """Reads profiles and remembers their stacks. For one thread."""

    def __init__(self) -> None:
        self._stacks: dict[bytes, Stack] = {}
        self._names: set[bytes] = set()
        self._shared: dict[Stack, Stack] = {}
        self._frames: dict[Frame, Frame] = {}

    def read(self, data: bytes) -> ProfileReading:
        """What a profile says, gzip or plain. Raises ProfileError."""
        decoded = open_profile(data)
        rows = rows_of(decoded, self._names, 0.0, int(BIRTH_BAND_S))
        self._remember(rows)
        types = tuple(type_ for type_, _ in decoded.sample_types)
        pairs = (comment.partition("=") for comment in decoded.comments)
        file, build_id = decoded.program
        return ProfileReading(
            types=types,
            comments={key: value for key, separator, value in pairs if separator},
            executable=Executable(file, decoded.is_go),
            build_id=build_id,
            duration_s=decoded.duration_nanos / 1e9,
            period=decoded.period,
            fingerprint=hash((rows.stacks, rows.alloc_bytes, rows.live_objects, rows.live_bytes)),
            heap=self._heap(rows) if set(HEAP_TYPES) <= set(types) else (),
            counts=self._counts(rows) if COUNT_TYPE in types else (),
        )

    def _remember(self, rows: Rows) -> None:
        if len(self._stacks) + len(rows.new_stacks) > _MAX_STACKS:
            kept = {name: self._stacks[name] for name in _names(rows) if name in self._stacks}
            self._frames, self._shared = {}, {stack: stack for stack in kept.values()}
            self._stacks, self._names = kept, set(kept)
        made: dict[int, Frame] = {}  # by the identity of the decoder's frames, which are shared
        for name, frames in rows.new_stacks.items():
            stack = tuple(
                made.get(id(frame)) or self._frame(made, frame) for frame in frames[:_MAX_FRAMES]
            )
            self._stacks[name] = self._shared.setdefault(stack, stack)
        self._names.update(rows.new_stacks)

    def _frame(self, made: dict[int, Frame], told: StackFrame) -> Frame:
        frame = Frame(*told[:3])
        frame = made[id(told)] = self._frames.setdefault(frame, frame)
        return frame

    def _heap(self, rows: Rows) -> tuple[StackHeap, ...]:
        totals: dict[Stack, tuple[float, float, float]] = {}
        births: dict[Stack, dict[float, float]] = {}
        ends = np.frombuffer(rows.birth_ends, "<u8").tolist()
        seconds = np.frombuffer(rows.birth_s, "<u4").astype(float).tolist()
        alive = np.frombuffer(rows.birth_bytes, "<u8").astype(float).tolist()
        columns = (
            np.frombuffer(column, "<u8").astype(float).tolist()
            for column in (rows.alloc_bytes, rows.live_bytes, rows.live_objects)
        )
        spans = pairwise([0, *ends])
        for name, values, (first, end) in zip(
            _names(rows), zip(*columns, strict=True), spans, strict=True
        ):
            stack = self._stacks[name]
            before = totals.get(stack, _NOTHING)
            totals[stack] = (before[0] + values[0], before[1] + values[1], before[2] + values[2])
            if end > first:
                bands = births.setdefault(stack, {})
                for position in range(first, end):
                    second = seconds[position]
                    bands[second] = bands.get(second, 0.0) + alive[position]
        return tuple(
            StackHeap(stack, *total, tuple(births.get(stack, {}).items()))
            for stack, total in totals.items()
        )

    def _counts(self, rows: Rows) -> tuple[StackCount, ...]:
        kinds = [_kind(labels) for labels in rows.label_sets]
        label_numbers = np.frombuffer(rows.labels, "<u4").tolist()
        counts = np.frombuffer(rows.live_objects, "<u8").astype(float).tolist()
        totals: dict[tuple[str, Stack], float] = {}
        for name, number, count in zip(_names(rows), label_numbers, counts, strict=True):
            key = (kinds[number], self._stacks[name])
            totals[key] = totals.get(key, 0.0) + count
        return tuple(StackCount(kind, stack, count) for (kind, stack), count in totals.items())


def _names(rows: Rows) -> list[bytes]:
    """The name of each row's stack."""
    return [rows.stacks[at : at + 16] for at in range(0, len(rows.stacks), 16)]


def _kind(labels: list[tuple[str, str]]) -> str:
    kind = next((value for key, value in labels if key == "kind"), COUNT_TYPE)
    return kind if kind in ("thread", "task") else COUNT_TYPE

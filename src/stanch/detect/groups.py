"""Stacks put together by the function to blame, so that one leak is one thing to judge."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from stanch.detect.blame import blamed, function_name, is_dispatch, is_library, taken_by
from stanch.store import OTHER, Frame, Stack
from stanch.store.series import Floats


class Place(NamedTuple):
    """A function to blame: what findings of different looks and replicas are compared by.

    A named tuple for the speed of its hash, as Frame is.
    """

    file: str
    function: str


@lru_cache(maxsize=65_536)
def place_of(frame: Frame) -> Place:
    """The function of a frame."""
    return Place(frame.file, function_name(frame))


_LOOP = Place("", "event loop")


@lru_cache(maxsize=65_536)
def _own_place(frame: Frame) -> Place | None:
    """The function of a frame, None when it is other people's code, _LOOP where to stop."""
    if is_dispatch(frame):
        return _LOOP
    return None if is_library(frame) or frame in OTHER else place_of(frame)


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of a life's stacks that blame the same function."""

    place: Place
    rows: list[int]


def group_by_place(stacks: tuple[Stack, ...], of: Sequence[int] | None = None) -> list[Group]:
    """Group the positions of stacks by the function they blame; OTHER belongs to none.

    of: the positions that count, all of them when None.
    """
    rows: dict[Place, list[int]] = {}
    for row in range(len(stacks)) if of is None else of:
        stack = stacks[row]
        # Most of a sweep's time is spent here: one remembered answer a frame, no call a stack.
        place = None
        for frame in stack:
            if (place := _own_place(frame)) is not None:
                break
        if place is _LOOP or (place is None and stack and stack != OTHER):
            place = place_of(blamed(stack))
        if place is not None:
            rows.setdefault(place, []).append(row)
    return [Group(place, found) for place, found in rows.items()]


def main_line(stacks: tuple[Stack, ...], rows: list[int], weight: Floats) -> tuple[Frame, Stack]:
    """The blamed frame that weighs most among `rows`, and its heaviest stack.

    weight: (all rows,), such as bytes of growth.
    """
    by_frame: dict[Frame, float] = {}
    for row in rows:
        frame = blamed(stacks[row])
        by_frame[frame] = by_frame.get(frame, 0.0) + float(weight[row])
    best = max(by_frame, key=lambda frame: by_frame[frame])
    own = [row for row in rows if blamed(stacks[row]) == best]
    return best, stacks[own[int(np.argmax(weight[own]))]]


def main_native(stacks: tuple[Stack, ...], rows: list[int], weight: Floats) -> Frame | None:
    """The native function that took most of what `rows` weigh; None unless most of it is native.

    weight: (all rows,), such as bytes of growth.
    """
    total = native = 0.0
    by_function: dict[tuple[str, str], float] = {}
    for row in rows:
        total += float(weight[row])
        if (frame := taken_by(stacks[row])) is not None:
            native += float(weight[row])
            function = (frame.function, frame.file)
            by_function[function] = by_function.get(function, 0.0) + float(weight[row])
    if native <= 0.5 * total:
        return None
    return Frame(*max(by_function, key=lambda function: by_function[function]), 0)


def flow_beneath(
    stacks: tuple[Stack, ...], rows: list[int], weight: Floats, caller: Place
) -> float:
    """Share of the weight of `rows` whose stacks pass through the function `caller`."""
    total = float(weight[rows].sum())
    if total <= 0:
        return 0.0
    beneath = [row for row in rows if any(place_of(frame) == caller for frame in stacks[row])]
    return float(weight[beneath].sum()) / total

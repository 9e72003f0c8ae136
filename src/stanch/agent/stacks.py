"""Python frames to the stacks of a pprof profile: threads, tasks and CPU share this.

A stack is first a tuple of (code, line) pairs, leaf first, cheap to take and to count; it becomes
pprof locations once, after the counting.
"""

import sys
from collections.abc import Iterable
from types import CodeType, FrameType

from stanch.profile import Function, Line, Location, Mapping

MAX_DEPTH = 128
"""Frames kept of a stack, from the leaf, as many as the heap sampler keeps."""

Place = tuple[CodeType, int]
Stack = tuple[Place, ...]


def frame_stack(frame: FrameType | None) -> Stack:
    """Return the stack that ends in `frame`, leaf first."""
    places: list[Place] = []
    while frame is not None and len(places) < MAX_DEPTH:
        places.append((frame.f_code, frame.f_lineno or 0))
        frame = frame.f_back
    return tuple(places)


class Locations:
    """Makes one pprof location for each (code, line), and for each name of what is not Python."""

    def __init__(self) -> None:
        self.mapping = Mapping(
            file=f"python{sys.version_info.major}.{sys.version_info.minor}",
            has_functions=True,
            has_filenames=True,
            has_line_numbers=True,
        )
        self._functions: dict[CodeType, Function] = {}
        self._made: dict[Place, Location] = {}

    def of(self, stack: Iterable[Place]) -> tuple[Location, ...]:
        """Return the locations of a stack, leaf first."""
        return tuple(self._made.get(place) or self._make(place) for place in stack)

    def named(self, name: str) -> tuple[Location, ...]:
        """Return a stack of one frame that is no Python function."""
        return (Location(0, self.mapping, (Line(Function(name), 0),)),)

    def _make(self, place: Place) -> Location:
        code, line = place
        function = self._functions.get(code)
        if function is None:
            # No system name: pprof would take it for C++ and strip "<module>" and "<locals>".
            function = Function(code.co_qualname, "", code.co_filename, code.co_firstlineno)
            self._functions[code] = function
        location = Location(0, self.mapping, (Line(function, line),))
        self._made[place] = location
        return location

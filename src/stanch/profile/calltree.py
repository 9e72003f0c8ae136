"""The call tree of a profile: what each path from the root allocated, burnt or waits for.

The tree is the one mechanism behind every report: the flame graph draws it, `callgraph` folds it
into flat and cumulative values for each function or line.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from stanch.profile.model import Line, Location, Profile


class Granularity(StrEnum):
    """What counts as one frame, in pprof's words."""

    FUNCTIONS = "functions"
    FILEFUNCTIONS = "filefunctions"
    FILES = "files"
    LINES = "lines"


@dataclass(frozen=True, slots=True)
class Frame:
    """A function, file or line, by granularity; what that leaves out is "" or 0.

    binary: the file of the mapping, only where nothing else is known.
    """

    name: str = ""
    file: str = ""
    line: int = 0
    binary: str = ""


@dataclass(slots=True, eq=False)
class CallNode:
    """A frame reached by one path. Read-only once built.

    flat: values of the samples that end here, one for each sample type asked for; cum: with those
    of all below. inlined: the frame was inlined into its parent in every sample.
    children: by identity of the frame, which is one object for equal frames of a tree.
    """

    frame: Frame
    flat: tuple[int, ...]
    cum: tuple[int, ...]
    inlined: bool = True
    children: dict[int, "CallNode"] = field(default_factory=dict)


def call_tree(
    profile: Profile,
    indexes: Sequence[int],
    granularity: Granularity = Granularity.FUNCTIONS,
) -> CallNode:
    """Build the tree of the sample types at `indexes`; give its root, whose frame is empty.

    Samples that are 0 in all of them are left out. A location without a name is one frame.
    """
    frames = _Frames(granularity)
    entries_of = frames.by_location
    nothing = (0,) * len(indexes)
    root = CallNode(Frame(), nothing, nothing, inlined=False)
    nodes: list[tuple[CallNode, CallNode]] = []  # each with its parent, parents first
    for sample in profile.samples:
        values = tuple(sample.values[index] for index in indexes)
        if not any(values):
            continue
        node = root
        for location in reversed(sample.locations):
            # Most of the time of a large profile goes here.
            for key, frame, inlined in entries_of.get(id(location)) or frames.of(location):
                child = node.children.get(key)
                if child is None:
                    child = node.children[key] = CallNode(frame, nothing, nothing)
                    nodes.append((child, node))
                if not inlined:
                    child.inlined = False
                node = child
        node.flat = tuple(map(int.__add__, node.flat, values))
    root.cum = root.flat
    for node, _ in nodes:
        node.cum = node.flat
    for node, parent in reversed(nodes):
        parent.cum = tuple(map(int.__add__, parent.cum, node.cum))
    return root


def frame_label(frame: Frame) -> str:
    """Write a frame as pprof does: function, file:line, or what is known of them."""
    where = f"{frame.file}:{frame.line}" if frame.line else frame.file
    if frame.name or where:
        return " ".join(filter(None, (frame.name, where)))
    return f"[{posixpath.basename(frame.binary)}]" if frame.binary else "<unknown>"


@lru_cache(4096)  # A file is in many frames.
def _normal(path: str) -> str:
    return posixpath.normpath(path)


class _Frames:
    """The frames of locations, outermost first, each with its identity and whether it was
    inlined."""

    def __init__(self, granularity: Granularity) -> None:
        self._granularity = granularity
        self.by_location: dict[int, tuple[tuple[int, Frame, bool], ...]] = {}
        self._interned: dict[Frame, Frame] = {}

    def of(self, location: Location) -> tuple[tuple[int, Frame, bool], ...]:
        frames = self.by_location.get(id(location))
        if frames is None:
            binary = location.mapping.file if location.mapping else ""
            lines = location.lines or (None,)
            innermost_first = [
                (id(frame), frame, position < len(lines) - 1)
                for position, frame in enumerate(self._frame(line, binary) for line in lines)
            ]
            frames = self.by_location[id(location)] = tuple(reversed(innermost_first))
        return frames

    def _frame(self, line: Line | None, binary: str) -> Frame:
        frame = Frame()
        if line is not None:
            by = self._granularity
            filename = line.function.filename
            frame = Frame(
                name=line.function.name if by is not Granularity.FILES else "",
                file=_normal(filename) if filename and by is not Granularity.FUNCTIONS else "",
                line=line.line if by is Granularity.LINES else 0,
            )
        if not frame.name:
            frame = Frame(frame.name, frame.file, frame.line, binary)
        return self._interned.setdefault(frame, frame)

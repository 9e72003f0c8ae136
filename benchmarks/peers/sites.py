"""Places that keep a known number of bytes, each a function of its own on lines of its own.

Tools name a place by function or by line, so every function here allocates all that it keeps in its
own frame. `hold` fills several places in turns, a little at a time among allocations that do not
stay, as a program does: a place that allocated all its bytes in one go would be no trial for a
sampler that looks after every so many bytes.
"""

import ctypes
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

MB = 1 << 20
BYTES_OVERHEAD = 33  # sys.getsizeof(b"")
STRUCT_BYTES = 64
PARTS = 100
LIBRARY_VARIABLE = "STANCH_BENCH_STRUCTS"  # path of structs.c, compiled

Blocks = list[Any]


def medium_blocks(blocks: Blocks, slots: Sequence[int]) -> None:
    """Keep blocks of 4 KiB."""
    for slot in slots:
        blocks[slot] = bytes(4096 - BYTES_OVERHEAD)


def refilled_blocks(blocks: Blocks, slots: Sequence[int]) -> None:
    """Keep blocks of 50 B."""
    for slot in slots:
        blocks[slot] = bytes(50 - BYTES_OVERHEAD)


def large_blocks(blocks: Blocks, slots: Sequence[int]) -> None:
    """Keep blocks of 1 MiB."""
    for slot in slots:
        blocks[slot] = bytes(MB - BYTES_OVERHEAD)


def numpy_array(blocks: Blocks, slots: Sequence[int]) -> None:
    """Keep arrays of 100 MB."""
    import numpy

    for slot in slots:
        blocks[slot] = numpy.empty(100 * MB, dtype=numpy.uint8)
        blocks[slot][:] = 1


class _Structs:
    """Keeps the list of structs.c until it is dropped itself."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def __del__(self) -> None:
        self._library.drop_structs()


def c_structs(blocks: Blocks, slots: Sequence[int]) -> None:
    """Keep 20 MB of C structs that a shared library took from malloc."""
    library = ctypes.CDLL(os.environ[LIBRARY_VARIABLE])
    for slot in slots:
        library.keep_structs(ctypes.c_long(20 * MB // STRUCT_BYTES))
        blocks[slot] = _Structs(library)


def before_look(blocks: Blocks, slots: Sequence[int]) -> None:
    """Keep blocks of 4 KiB, to be looked for while the process runs."""
    for slot in slots:
        blocks[slot] = bytes(4096 - BYTES_OVERHEAD)


def before_kill(blocks: Blocks, slots: Sequence[int]) -> None:
    """Keep blocks of 4 KiB, the last thing that a process does."""
    for slot in slots:
        blocks[slot] = bytes(4096 - BYTES_OVERHEAD)


@dataclass(frozen=True, slots=True)
class Site:
    """A function that keeps `count` blocks of `block_bytes`; each is made `fills` times."""

    fill: Callable[[Blocks, Sequence[int]], None]
    count: int
    block_bytes: int
    fills: int = 1

    @property
    def live_bytes(self) -> int:
        """What the site keeps in the end."""
        return self.count * self.block_bytes

    def parts(self) -> list[range]:
        """Return the steps in which the site is filled."""
        step = max(1, self.count // PARTS)
        return [
            range(begin, min(begin + step, self.count)) for begin in range(0, self.count, step)
        ] * self.fills

    def lines(self) -> set[int]:
        """Return the numbers of the function's lines in this file."""
        assert isinstance(self.fill, FunctionType)
        return {line for _, _, line in self.fill.__code__.co_lines() if line is not None}


SITES = {
    "medium_blocks": Site(medium_blocks, 10 * MB // 4096, 4096),
    "refilled_blocks": Site(refilled_blocks, 10 * MB // 50, 50, fills=3),
    "large_blocks": Site(large_blocks, 100, MB),
    "numpy_array": Site(numpy_array, 1, 100 * MB),
    "c_structs": Site(c_structs, 1, 20 * MB),
    "before_look": Site(before_look, 50 * MB // 4096, 4096),
    "before_kill": Site(before_kill, 50 * MB // 4096, 4096),
}
PYTHON_SITES = ("medium_blocks", "refilled_blocks", "large_blocks")
NATIVE_SITES = ("numpy_array", "c_structs")
SITE_OF_LINE = {line: name for name, site in SITES.items() for line in site.lines()}


def hold(names: Sequence[str], chance: random.Random) -> object:
    """Fill the sites in turns and return what keeps their memory alive."""
    held: dict[str, Blocks] = {name: [None] * SITES[name].count for name in names}
    steps = [(name, slots) for name in names for slots in SITES[name].parts()]
    chance.shuffle(steps)
    for name, slots in steps:
        SITES[name].fill(held[name], slots)
        _pass_by(chance)
    return held


def _pass_by(chance: random.Random) -> None:
    """Allocate some 200 kB that do not stay."""
    for _ in range(100):
        bytes(chance.randrange(20, 4000))

"""What tells a Go target apart, and the memory numbers that its text profile ends with."""

import re
from dataclasses import dataclass
from pathlib import PurePath

from stanch.collect.errors import FetchError

_MEMSTAT = re.compile(rb"^# (Sys|HeapAlloc|HeapReleased|NumGC) = (\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Executable:
    """The program behind a profile: its file's name, "" when unknown, and whether it is Go."""

    name: str
    is_go: bool

    def is_file(self, path: str) -> bool:
        """Whether `path` may be this program; a file replaced under it still is."""
        name = PurePath(path.removesuffix(" (deleted)")).name
        return bool(self.name) and name == PurePath(self.name.removesuffix(" (deleted)")).name


@dataclass(frozen=True, slots=True)
class GoMemory:
    """Numbers of runtime.MemStats, in bytes: got from the system, allocated, given back."""

    sys_bytes: int
    heap_alloc_bytes: int
    heap_released_bytes: int


def parse_go_memory(data: bytes) -> GoMemory:
    """Read the comments at the end of heap?debug=1. Raises FetchError when they are not there."""
    stats = {name.decode(): int(value) for name, value in _MEMSTAT.findall(data[-16_384:])}
    try:
        return GoMemory(stats["Sys"], stats["HeapAlloc"], stats.get("HeapReleased", 0))
    except KeyError as error:
        raise FetchError(
            "heap?debug=1 does not end with Go's memory statistics, so its memory is unknown"
        ) from error

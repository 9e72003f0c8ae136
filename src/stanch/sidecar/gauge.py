"""Reads the memory of a process's cgroup: usage, limit, pressure and the kernel's kills.

Both versions of the interface. What cannot be read is None; nothing here raises.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from stanch.sampler.cgroup import MemoryGroup, group_memory, group_oom_kills, memory_group

_SOME = re.compile(r"^some .*avg10=(\d+(?:\.\d+)?)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reading:
    """One look. pressure: percent of the last ten seconds in which something waited for memory."""

    alive: bool
    working_set_bytes: int | None
    limit_bytes: int | None
    oom_kills: int | None
    pressure: float | None

    @property
    def share(self) -> float | None:
        """The working set as a share of the limit; None when either is unknown."""
        if self.working_set_bytes is None or not self.limit_bytes:
            return None
        return self.working_set_bytes / self.limit_bytes


class Gauge:
    """Reads the group of a process, or a group that is named. root: "/" but for tests."""

    def __init__(
        self, pid: int | None, group: MemoryGroup | None = None, root: Path = Path("/")
    ) -> None:
        self.pid = pid
        self._root = root
        self._group = group
        if group is None and pid is not None:
            self._group = memory_group(pid, root)

    def read(self) -> Reading:
        """Look once."""
        alive = self.pid is not None and (self._root / "proc" / str(self.pid)).exists()
        group = self._group
        if group is None:
            return Reading(alive, None, None, None, self._pressure(None))
        memory = group_memory(group)
        return Reading(
            alive=alive,
            working_set_bytes=memory.working_set_bytes,
            limit_bytes=memory.limit_bytes,
            oom_kills=group_oom_kills(group),
            pressure=self._pressure(group),
        )

    def _pressure(self, group: MemoryGroup | None) -> float | None:
        """Of the group where it tells (version 2), else of the machine."""
        files = [self._root / "proc/pressure/memory"]
        if group is not None and group.version == 2:
            files.insert(0, group.directory / "memory.pressure")
        for file in files:
            try:
                found = _SOME.search(file.read_text())
            except OSError:
                continue
            if found is not None:
                return float(found.group(1))
        return None

"""Memory cgroups, version 1 and 2: a limit that the kernel itself enforces.

Groups are made below the demo's own group, so whatever limits the demo limits its nodes too:

    <own group>/stanch-demo-<pid>/<node>-<life>

Version 2 gives a group the memory controller only if its parent passes it on, and a parent that
passes it on holds no processes: so there the nearest ancestor that already passes it on is taken.
Every group under a `stanch-demo-<pid>` whose pid is dead is a leftover, and is removed.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from stanch.sampler.cgroup import memory_group

PREFIX = "stanch-demo-"
REMOVE_SECONDS = 5.0
_PAUSE_SECONDS = 0.02


class CgroupError(OSError):
    """The kernel or its permissions do not allow a memory cgroup here; the text says which part."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where groups can be made: the cgroup `version` (1 or 2) and the `parent` directory."""

    version: int
    parent: Path


def find_hierarchy(pid: int | str = "self", root: Path = Path("/")) -> Hierarchy:
    """Find where a process may make memory groups; CgroupError says why not.

    `root` is where /proc and /sys are looked up.
    """
    group = memory_group(pid, root)
    if group is None:
        raise CgroupError("no memory cgroup hierarchy is mounted")
    if group.version == 1:
        return Hierarchy(1, group.directory)
    for directory in (group.directory, *group.directory.parents):
        if "memory" in _read(directory / "cgroup.subtree_control").split():
            return Hierarchy(2, directory)
        if directory == group.mount:
            break
    raise CgroupError(
        f"no group from {group.directory} up to {group.mount} passes the memory controller on; "
        "run in a delegated group (systemd-run --user --scope -p Delegate=yes ...)"
    )


class CgroupTree:
    """The groups of one demo. `remove` takes all of them away, with what still runs in them."""

    def __init__(self, hierarchy: Hierarchy, pid: int) -> None:
        self._version = hierarchy.version
        self._directory = hierarchy.parent / f"{PREFIX}{pid}"
        try:
            self._directory.mkdir()
            if self._version == 2:
                (self._directory / "cgroup.subtree_control").write_text("+memory")
            # Who may make a group may still not set its limit, or move a process into it.
            probe = self.create("probe", 1 << 30)
            enter = ["/bin/sh", "-c", 'echo $$ > "$1"', "stanch-demo", str(probe.procs_file)]
            subprocess.run(enter, check=True, stderr=subprocess.DEVNULL)
            probe.remove()
        except (OSError, subprocess.CalledProcessError) as problem:
            with contextlib.suppress(OSError):
                self.remove()
            raise CgroupError(
                f"cannot make a limited group in {hierarchy.parent}: {problem}"
            ) from None

    @property
    def version(self) -> int:
        """The version of the cgroup interface, 1 or 2."""
        return self._version

    def create(self, name: str, limit_bytes: int) -> "Cgroup":
        """Make a group with a limit. OSError when the kernel refuses."""
        directory = self._directory / name
        directory.mkdir()
        group = Cgroup(self._version, directory)
        group.limit(limit_bytes)
        return group

    def remove(self) -> None:
        """Kill what runs in the groups and remove them all. OSError when one cannot be removed."""
        _remove_tree(self._version, self._directory)


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One group with a limit."""

    version: int
    directory: Path

    def limit(self, limit_bytes: int) -> None:
        """Limit memory, and memory with swap where swap is counted: a limit that swaps is none."""
        if self.version == 1:
            (self.directory / "memory.limit_in_bytes").write_text(str(limit_bytes))
            with contextlib.suppress(OSError):
                (self.directory / "memory.memsw.limit_in_bytes").write_text(str(limit_bytes))
            return
        (self.directory / "memory.max").write_text(str(limit_bytes))
        (self.directory / "memory.oom.group").write_text("1")
        with contextlib.suppress(OSError):
            (self.directory / "memory.swap.max").write_text("0")

    @property
    def procs_file(self) -> Path:
        """The file into which a process writes its id to join the group."""
        return self.directory / "cgroup.procs"

    def working_set_bytes(self) -> int:
        """Return the memory in use less the file cache that can be dropped, as Kubernetes does."""
        usage = "memory.usage_in_bytes" if self.version == 1 else "memory.current"
        inactive = "total_inactive_file" if self.version == 1 else "inactive_file"
        droppable = _field(_read(self.directory / "memory.stat"), inactive)
        return max(0, int(_read(self.directory / usage)) - droppable)

    def oom_kills(self) -> int:
        """Return how many processes of the group the kernel has killed at the limit."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        return _field(_read(self.directory / name), "oom_kill")

    def pids(self) -> list[int]:
        """Return the processes in the group.

        A process of another pid name space is shown as 0, which as a signal's target would mean
        ourselves; such a process is never ours and is left out.
        """
        return [int(pid) for pid in _read(self.procs_file).split() if pid != "0"]

    def kill(self) -> None:
        """Send SIGKILL to every process in the group."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        """Kill what is in the group and remove it. OSError when it cannot be removed."""
        _remove_tree(self.version, self.directory)


def remove_leftovers(hierarchy: Hierarchy) -> list[str]:
    """Remove the groups of demos that are dead; return the names of what was removed.

    A group that cannot be removed stays: it is for the next demo to try again.
    """
    removed = []
    for directory in sorted(hierarchy.parent.glob(f"{PREFIX}*")):
        match = re.fullmatch(rf"{PREFIX}(\d+)", directory.name)
        if match is None or Path(f"/proc/{match[1]}").exists():
            continue
        with contextlib.suppress(OSError):
            _remove_tree(hierarchy.version, directory)
            removed.append(directory.name)
    return removed


def _remove_tree(version: int, directory: Path) -> None:
    """Remove a group, those below it first.

    The kernel refuses while a killed process is not yet gone, so this tries for REMOVE_SECONDS.
    """
    if not directory.is_dir():
        return
    deadline = time.monotonic() + REMOVE_SECONDS
    for child in [one for one in directory.iterdir() if one.is_dir()]:
        _remove_tree(version, child)
    group = Cgroup(version, directory)
    while True:
        group.kill()
        try:
            directory.rmdir()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)


def _field(text: str, name: str) -> int:
    """Return the number behind `name` in lines of "name number"; 0 when there is none."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as problem:
        raise CgroupError(f"cannot read {path}: {problem.strerror}") from None

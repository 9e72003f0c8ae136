"""What the kernel says about the memory of this process's cgroup, versions 1 and 2.

Reads /proc/PID/cgroup and /proc/PID/mountinfo below a root that tests can replace. A file that is
missing or makes no sense counts as unknown: nothing here raises.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_UNLIMITED_BYTES = 1 << 60  # version 1 writes "no limit" as a huge number


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A directory of a memory cgroup, and which version of the interface it speaks."""

    directory: Path
    mount: Path
    version: int


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """Bytes; None where the kernel does not say. `working_set` is what Kubernetes evicts by."""

    limit_bytes: int | None
    usage_bytes: int | None
    working_set_bytes: int | None


def memory_limit(pid: int | str = "self", root: Path = Path("/")) -> int | None:
    """Return the smallest memory limit in bytes that holds for a process, or None without one."""
    group = memory_group(pid, root)
    return _limit(group) if group else None


def group_memory(pid: int | str = "self", root: Path = Path("/")) -> GroupMemory:
    """Return the limit, usage and working set of the process's memory cgroup.

    The working set is usage less inactive file pages, as the kubelet reckons it.
    """
    group = memory_group(pid, root)
    if group is None:
        return GroupMemory(None, None, None)
    names = {1: ("memory.usage_in_bytes", "total_inactive_file")}
    usage_file, inactive_key = names.get(group.version, ("memory.current", "inactive_file"))
    usage = _read_bytes(group.directory / usage_file)
    inactive = _stat_value(group.directory / "memory.stat", inactive_key)
    working_set = None if usage is None else max(usage - (inactive or 0), 0)
    return GroupMemory(_limit(group), usage, working_set)


def memory_group(pid: int | str = "self", root: Path = Path("/")) -> MemoryGroup | None:
    """Return the memory cgroup of a process, or None when there is none in sight."""
    paths = dict(_memberships(root / "proc" / str(pid) / "cgroup"))
    for version, mount, mount_root in _mounts(root / "proc" / str(pid) / "mountinfo"):
        path = paths.get(version)
        if path is None:
            continue
        top = root / mount.lstrip("/")
        # In a container the mount often shows a part of the tree, or the path is the host's.
        directory = next(
            (d for d in (_below(top, path, mount_root), top) if _has_memory(d, version)), None
        )
        if directory is not None:
            return MemoryGroup(directory, top, version)
    return None


def _below(top: Path, path: str, mount_root: str) -> Path:
    pure = PurePosixPath(path)
    if mount_root != "/" and pure.is_relative_to(mount_root):
        pure = PurePosixPath("/") / pure.relative_to(mount_root)
    if ".." in pure.parts:
        return top
    return top / str(pure).lstrip("/")


def _has_memory(directory: Path, version: int) -> bool:
    name = "memory.limit_in_bytes" if version == 1 else "memory.stat"
    return (directory / name).exists()


def _memberships(file: Path) -> Iterator[tuple[int, str]]:
    """Yield (version, path) for the memory controllers of /proc/PID/cgroup."""
    for line in _lines(file):
        _, _, rest = line.partition(":")
        controllers, separator, path = rest.partition(":")
        if separator and "memory" in controllers.split(","):
            yield 1, path
        elif separator and not controllers:
            yield 2, path


def _mounts(file: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (version, mount point, root of the mount) for memory hierarchies, version 1 first."""
    found = []
    for line in _lines(file):
        left, separator, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if not separator or len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup" and "memory" in kind[2].split(","):
            found.append((1, fields[4], fields[3]))
        elif kind[0] == "cgroup2":
            found.append((2, fields[4], fields[3]))
    return iter(sorted(found))


def _limit(group: MemoryGroup) -> int | None:
    name = "memory.limit_in_bytes" if group.version == 1 else "memory.max"
    limits = []
    directory = group.directory
    while True:
        limit = _read_bytes(directory / name)
        if limit is not None and limit < _UNLIMITED_BYTES:
            limits.append(limit)
        if directory == group.mount or directory == directory.parent:
            return min(limits, default=None)
        directory = directory.parent


def _stat_value(file: Path, key: str) -> int | None:
    for line in _lines(file):
        name, _, value = line.partition(" ")
        if name == key:
            return int(value) if value.isdigit() else None
    return None


def _read_bytes(file: Path) -> int | None:
    text = next(iter(_lines(file)), "").strip()
    return int(text) if text.isdigit() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []

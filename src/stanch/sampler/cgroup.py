"""What the kernel says about the memory of this process's cgroup, versions 1 and 2.

Reads /proc/PID/cgroup and /proc/PID/mountinfo below a root that tests can replace. A file that is
missing or makes no sense counts as unknown: nothing here raises.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

_UNLIMITED_BYTES = 1 << 60  # version 1 writes "no limit" as a huge number


GroupKind = Literal["anon", "shared", "kernel", "kernel_all", "reclaimable", "file", "other"]


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


@dataclass(frozen=True, slots=True)
class GroupAccount:
    """What a memory cgroup's usage is made of, in bytes; None where the kernel does not say.

    file: page cache, without shared. kernel: without reclaimable, its caches that go when memory is
    short; version 1 tells both as one, kernel_all.
    other: the rest of the usage, such as pages that the kernel has charged ahead.
    """

    version: int
    memory: GroupMemory
    anon_bytes: int | None
    shared_bytes: int | None
    file_bytes: int | None
    kernel_bytes: int | None
    kernel_all_bytes: int | None
    reclaimable_bytes: int | None
    other_bytes: int | None
    inactive_file_bytes: int | None
    peak_bytes: int | None
    oom_kills: int | None

    def parts(self) -> list[tuple[GroupKind, int]]:
        """Return what is known by kind; it adds up to the usage as near as the counters do."""
        sizes: tuple[tuple[GroupKind, int | None], ...] = (
            ("anon", self.anon_bytes),
            ("shared", self.shared_bytes),
            ("kernel", self.kernel_bytes),
            ("kernel_all", self.kernel_all_bytes),
            ("reclaimable", self.reclaimable_bytes),
            ("file", self.file_bytes),
            ("other", self.other_bytes),
        )
        return [(kind, size) for kind, size in sizes if size is not None]


def memory_limit(pid: int | str = "self", root: Path = Path("/")) -> int | None:
    """Return the smallest memory limit in bytes that holds for a process, or None without one."""
    group = memory_group(pid, root)
    return _limit(group) if group else None


def group_account(pid: int | str = "self", root: Path = Path("/")) -> GroupAccount | None:
    """Return what the usage of a process's memory cgroup is made of; None without a cgroup."""
    group = memory_group(pid, root)
    return account_of(group) if group is not None else None


def account_of(group: MemoryGroup) -> GroupAccount:
    """Return what the usage of a group is made of."""
    stat = _numbers(group.directory / "memory.stat")
    kernel = kernel_all = reclaimable = None
    if group.version == 1:
        anon, cache, shared = (stat.get(f"total_{name}") for name in ("rss", "cache", "shmem"))
        inactive = stat.get("total_inactive_file")
        kernel_all = _read_bytes(group.directory / "memory.kmem.usage_in_bytes")
        peak_file = "memory.max_usage_in_bytes"
    else:
        anon, cache, shared = (stat.get(name) for name in ("anon", "file", "shmem"))
        inactive, reclaimable = stat.get("inactive_file"), stat.get("slab_reclaimable")
        if stat:
            # Sockets' buffers are counted on their own; `kernel` came with Linux 5.18.
            parts = ("slab", "kernel_stack", "pagetables", "percpu", "vmalloc")
            whole = stat.get("kernel", sum(stat.get(name, 0) for name in parts))
            kernel = max(whole - (reclaimable or 0), 0) + stat.get("sock", 0)
        peak_file = "memory.peak"
    memory = _memory_of(group, inactive)
    file = None if cache is None else max(cache - (shared or 0), 0)
    other = None
    if memory.usage_bytes is not None:
        rest = max(memory.usage_bytes - (anon or 0) - (cache or 0), 0)
        if kernel_all is not None:
            # The root's usage leaves the kernel out.
            kernel_all = min(kernel_all, rest) if kernel_all <= 2 * rest else None
        other = max(rest - sum(part or 0 for part in (kernel, kernel_all, reclaimable)), 0)
    return GroupAccount(
        version=group.version,
        memory=memory,
        anon_bytes=anon,
        shared_bytes=shared,
        file_bytes=file,
        kernel_bytes=kernel,
        kernel_all_bytes=kernel_all,
        reclaimable_bytes=reclaimable,
        other_bytes=other,
        inactive_file_bytes=inactive,
        peak_bytes=_read_bytes(group.directory / peak_file),
        oom_kills=group_oom_kills(group),
    )


def group_memory(group: MemoryGroup) -> GroupMemory:
    """Return limit, usage and working set of a group."""
    name = "total_inactive_file" if group.version == 1 else "inactive_file"
    return _memory_of(group, _numbers(group.directory / "memory.stat").get(name))


def group_oom_kills(group: MemoryGroup) -> int | None:
    """Return how many processes of a memory cgroup the kernel has killed; None when unknown."""
    name = "memory.oom_control" if group.version == 1 else "memory.events"
    return _numbers(group.directory / name).get("oom_kill")


@dataclass(frozen=True, slots=True)
class GroupStrain:
    """For how long a group has been held up, in seconds since it was made; None where the kernel
    does not say. memory_waited_s: something of it waited for memory (PSI, `some`). cpu_throttled_s:
    its CPU quota was used up. swap_bytes: of its memory in swap."""

    memory_waited_s: float | None
    cpu_throttled_s: float | None
    swap_bytes: int | None


def group_strain(group: MemoryGroup) -> GroupStrain:
    """Return what holds a group up. Version 1 knows of swap only, and that in `memory.stat`."""
    if group.version == 1:
        return GroupStrain(None, None, _numbers(group.directory / "memory.stat").get("total_swap"))
    waited = next(
        (
            int(total)
            for line in _lines(group.directory / "memory.pressure")
            if line.startswith("some ") and (total := line.rpartition("total=")[2]).isdigit()
        ),
        None,
    )
    throttled = _numbers(group.directory / "cpu.stat").get("throttled_usec")
    return GroupStrain(
        memory_waited_s=None if waited is None else waited / 1e6,
        cpu_throttled_s=None if throttled is None else throttled / 1e6,
        swap_bytes=_read_bytes(group.directory / "memory.swap.current"),
    )


def _memory_of(group: MemoryGroup, inactive_file_bytes: int | None) -> GroupMemory:
    """Return the limit, usage and working set.

    The working set is usage less inactive file pages, as the kubelet reckons it.
    """
    name = "memory.usage_in_bytes" if group.version == 1 else "memory.current"
    usage = _read_bytes(group.directory / name)
    working_set = None if usage is None else max(usage - (inactive_file_bytes or 0), 0)
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


def _numbers(file: Path) -> dict[str, int]:
    """Read lines of a name and a number."""
    pairs = (line.partition(" ") for line in _lines(file))
    return {name: int(value) for name, _, value in pairs if value.isdigit()}


def _read_bytes(file: Path) -> int | None:
    text = next(iter(_lines(file)), "").strip()
    return int(text) if text.isdigit() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []

"""What /proc tells about a target on this machine that does not tell itself, such as a Go service.

Finds the process that owns a listening socket, and reads its RSS, its start and the limit of its
memory cgroup (versions 1 and 2). Everything unknown is None; nothing here raises for what the
system holds. `root` is "/" but for tests.
"""

import contextlib
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"
_NO_LIMIT = 1 << 60
_PEER_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class LocalProcess:
    """A process of this machine, in bytes; started: clock ticks since boot."""

    pid: int
    started: float
    executable: str
    rss_bytes: int | None
    limit_bytes: int | None


def listener_of_port(port: int, root: Path = Path("/")) -> int | None:
    """The pid that listens on a TCP port of this machine; None when unknown or more than one."""
    inodes = {
        fields[9]
        for name in ("tcp", "tcp6")
        for line in _lines(root / "proc/net" / name)[1:]
        if len(fields := line.split()) > 9
        and fields[3] == _LISTEN
        and fields[1].rpartition(":")[2] == f"{port:04X}"
    }
    if not inodes:
        return None
    links = {f"socket:[{inode}]" for inode in inodes}
    owners = [pid for pid in _pids(root) if _holds(root / "proc" / str(pid) / "fd", links)]
    # A pre-fork server's workers inherit the socket of their master, the lowest pid.
    return min(owners, default=None)


def listener_of_socket(path: str) -> int | None:
    """The pid that listens on a unix socket: the peer's credentials are the listener's."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        probe.connect(path)
        raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        pid = int(_PEER_CREDENTIALS.unpack(raw)[0])
        return pid or None
    return None


def local_process(pid: int, root: Path = Path("/")) -> LocalProcess | None:
    """What /proc tells about a process; None when it is gone or not ours to see."""
    directory = root / "proc" / str(pid)
    started = start_ticks(pid, root)
    try:
        executable = str((directory / "exe").readlink())
    except OSError:
        return None
    if started is None:
        return None
    return LocalProcess(
        pid=pid,
        started=started,
        executable=executable,
        rss_bytes=_kilobytes(directory / "status", "VmRSS:"),
        limit_bytes=memory_limit(pid, root),
    )


def start_ticks(pid: int, root: Path = Path("/")) -> float | None:
    """When a process started, in clock ticks since boot; None when it is gone."""
    try:
        # The name in parentheses may hold anything, so fields are counted from its end.
        stat = (root / "proc" / str(pid) / "stat").read_text(errors="replace")
        return float(stat.rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def memory_limit(pid: int, root: Path = Path("/")) -> int | None:
    """The smallest limit of the memory cgroups that hold a process, in bytes; None without."""
    limits: list[int] = []
    for line in _lines(root / "proc" / str(pid) / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        elif not controllers:
            top, name = root / "sys/fs/cgroup", "memory.max"
        else:
            continue
        directory = top / path.lstrip("/")
        if ".." in path or not directory.is_dir():
            directory = top
        while True:
            text = next(iter(_lines(directory / name)), "").strip()
            if text.isdigit() and int(text) < _NO_LIMIT:
                limits.append(int(text))
            if directory in (top, directory.parent):
                break
            directory = directory.parent
    return min(limits, default=None)


def _pids(root: Path) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(path.name) for path in (root / "proc").iterdir() if path.name.isdigit()]
    return []


def _holds(descriptors: Path, links: set[str]) -> bool:
    try:
        paths = list(descriptors.iterdir())
    except OSError:
        return False
    for path in paths:
        with contextlib.suppress(OSError):
            if str(path.readlink()) in links:
                return True
    return False


def _kilobytes(file: Path, key: str) -> int | None:
    for line in _lines(file):
        if line.startswith(key):
            number = line[len(key) :].split()[:1]
            return int(number[0]) * 1024 if number and number[0].isdigit() else None
    return None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []

"""Where the processes of one run keep their sockets and tables, and what the dead left there.

    $STANCH_DIR or $TMPDIR/stanch-UID/     0700, ours, no symlink
        RUN_PID/                           one run, named by its first process
            PID.sock  PID.stanch           one pair for each process
            first                          a symlink whose target is the first one's pid

A clean end removes its pair. A table whose process is gone is evidence of a death: the newest
are kept, `KEEP_TABLES` of them and `KEEP_BYTES` in all. Functions here raise RunDirectoryError
for a place that cannot be used, and let no other error out.
"""

import contextlib
import os
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stanch.sampler import TABLE_SUFFIX

BASE_VARIABLE = "STANCH_DIR"
RUN_VARIABLE = "STANCH_RUN_DIR"
FIRST_VARIABLE = "STANCH_RUN_PID"
SOCKET_SUFFIX = ".sock"
KEEP_TABLES = 16
KEEP_BYTES = 64 << 20
_FIRST = "first"
_MOST_FILES = 4096  # files looked at in one housekeeping
# core/table_format.h: magic, version and header size, pid, start, uptime, state
_OWNER = struct.Struct("<8s8xQQQI")
_STOPPED = 2
_LATEST_NS = (1 << 63) - 1  # a damaged header may claim more than any clock
_MAGIC = b"STANCHT\n"


class RunDirectoryError(RuntimeError):
    """The run directory cannot be used; the message says which, why and what to do."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: the directory its processes share, and the pid of the first of them."""

    directory: Path
    first_pid: int

    @property
    def is_first(self) -> bool:
        """Whether this process is the first of the run, or has taken its place; see `claim`."""
        return os.getpid() == self.first_pid

    @property
    def socket(self) -> Path:
        """The socket of this process."""
        return self.directory / f"{os.getpid()}{SOCKET_SUFFIX}"


@dataclass(frozen=True, slots=True)
class DeadTable:
    """A table whose process is gone.

    `bytes` is what it takes on the disk, `seen_unix_ns` the last sign of life in it: the time of
    the file itself does not change when memory that is mapped to it is written. One whose process
    ended by os._exit, or was killed before the table was whole, is no evidence.
    """

    path: Path
    pid: int
    bytes: int
    seen_unix_ns: int
    evidence: bool


def base_directory(environ: Mapping[str, str]) -> Path:
    """Return the directory of all runs of this user, whether it exists or not."""
    given = environ.get(BASE_VARIABLE)
    if given:
        return Path(given).absolute()
    return Path(environ.get("TMPDIR") or "/tmp").absolute() / f"stanch-{os.geteuid()}"


def run_of(environ: Mapping[str, str]) -> Run:
    """Return the run that the variables name, or one of which this process is the first."""
    directory = environ.get(RUN_VARIABLE)
    first = environ.get(FIRST_VARIABLE, "")
    if directory and first.isascii() and first.isdigit():
        return Run(Path(directory), int(first))
    return Run(base_directory(environ) / str(os.getpid()), os.getpid())


def make(run: Run) -> None:
    """Make the directory of the run and the one above it. Raises RunDirectoryError."""
    _make_private(run.directory.parent)
    _make_private(run.directory)


def claim(run: Run) -> Run:
    """Return the run with the first of its processes that lives: this one when there is none.

    The command itself may be no Python, such as a shell that starts one, and the first process may
    end before its children, as a daemon's does. `make` comes before.
    """
    first = run.directory / _FIRST
    own = str(os.getpid())
    for _ in range(2):
        try:
            first.symlink_to(own)
            break
        except FileExistsError:
            if not _is_dead_claim(first):
                break
            with contextlib.suppress(OSError):
                first.unlink()
        except OSError:
            return run
    try:
        return replace(run, first_pid=int(first.readlink().name))
    except (OSError, ValueError):
        return run


def _is_dead_claim(first: Path) -> bool:
    try:
        return not _is_running_name(first.readlink().name)
    except OSError:
        return False


def _make_private(directory: Path) -> None:
    remedy = f"set {BASE_VARIABLE} to a directory of your own"
    try:
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        found = directory.lstat()
    except OSError as error:
        raise RunDirectoryError(
            f"no run directory at {directory}: {error.strerror}; {remedy}"
        ) from None
    if not stat.S_ISDIR(found.st_mode):
        raise RunDirectoryError(f"{directory} is not a directory (symlinks are refused); {remedy}")
    if found.st_uid != os.geteuid():
        raise RunDirectoryError(
            f"{directory} belongs to user {found.st_uid}, not to {os.geteuid()}; {remedy}"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise RunDirectoryError(
            f"{directory} is open to others (mode {stat.S_IMODE(found.st_mode):o}); "
            f"chmod 700 it, or {remedy}"
        )


def table_path(run: Run, table: Path | None, *, named: bool) -> Path | None:
    """Return where the table of this process goes; None keeps it in private memory.

    table: the setting; a directory holds PID.stanch of each process. A file is for the first
    process of the run, its relatives put NAME.PID.stanch beside it.
    named: whether a run directory holds the table when the setting is absent.
    """
    own = f"{os.getpid()}{TABLE_SUFFIX}"
    if table is None:
        return run.directory / own if named else None
    if table.suffix != TABLE_SUFFIX or table.is_dir():
        return table / own
    if run.is_first:
        return table
    return table.with_name(f"{table.name.removesuffix(TABLE_SUFFIX)}.{own}")


def keep_predecessor(path: Path) -> None:
    """Move a table that a dead process left at the very path we need out of the way."""
    dead = _dead_table(path)
    if dead is not None:
        moved = path.with_name(
            f"{path.name.removesuffix(TABLE_SUFFIX)}.{dead.seen_unix_ns // 10**6}{TABLE_SUFFIX}"
        )
        with contextlib.suppress(OSError):
            path.rename(moved)


def dead_tables(files: Iterable[Path]) -> list[DeadTable]:
    """Return the tables among these files whose process was killed or crashed, newest first."""
    found = [dead for path in files if (dead := _dead_table(path)) is not None]
    killed = [dead for dead in found if dead.evidence]
    return sorted(killed, key=lambda dead: dead.seen_unix_ns, reverse=True)


def tables_of_runs(base: Path) -> list[Path]:
    """Return the tables of all runs."""
    return [file for run in _runs(base) for file in _entries(run) if file.suffix == TABLE_SUFFIX]


def tables_beside(table: Path) -> list[Path]:
    """Return the tables that runs with this --table make: in the directory, or named like it."""
    if table.suffix != TABLE_SUFFIX or table.is_dir():
        return [file for file in _entries(table) if file.suffix == TABLE_SUFFIX]
    prefix = table.name.removesuffix(TABLE_SUFFIX) + "."
    return [
        file
        for file in _entries(table.parent)
        if file.suffix == TABLE_SUFFIX and file.name.startswith(prefix)
    ]


def tidy(files: Iterable[Path]) -> list[DeadTable]:
    """Remove what nobody needs, and return the deaths of which evidence is kept, newest first.

    That is the tables that are no evidence, and the others beyond the bounds, but never the newest.
    """
    found = [dead for path in files if (dead := _dead_table(path)) is not None]
    kept: list[DeadTable] = []
    kept_bytes = 0
    for table in sorted(found, key=lambda dead: dead.seen_unix_ns, reverse=True):
        within = len(kept) < KEEP_TABLES and (not kept or kept_bytes + table.bytes <= KEEP_BYTES)
        if within and table.evidence:
            kept.append(table)
            kept_bytes += table.bytes
        else:
            with contextlib.suppress(OSError):
                table.path.unlink()
    return kept


def clean_runs(base: Path) -> None:
    """Remove what ended runs left and nobody needs: dead sockets, old tables, empty directories."""
    tidy(tables_of_runs(base))
    for run in _runs(base):
        if _is_running(int(run.name)):
            continue
        for entry in _entries(run):
            dead_socket = entry.suffix == SOCKET_SUFFIX and not _is_running_name(entry.stem)
            if dead_socket or (entry.name == _FIRST and _is_dead_claim(entry)):
                with contextlib.suppress(OSError):
                    entry.unlink()
        with contextlib.suppress(OSError):
            run.rmdir()


def leave(run: Run) -> None:
    """Remove what is this process's, and the directory if that leaves it empty."""
    with contextlib.suppress(OSError):
        run.socket.unlink()
    first = run.directory / _FIRST
    with contextlib.suppress(OSError):
        if first.readlink().name == str(os.getpid()):
            first.unlink()
    with contextlib.suppress(OSError):
        run.directory.rmdir()


def _entries(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            return [Path(entry.path) for _, entry in zip(range(_MOST_FILES), entries, strict=False)]
    except OSError:
        return []


def _runs(base: Path) -> list[Path]:
    return [entry for entry in _entries(base) if entry.name.isdigit() and _is_directory(entry)]


def _is_directory(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _dead_table(path: Path) -> DeadTable | None:
    """Return the table at a path if it is a regular file of ours that no process keeps."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                return None
            header = file.read(_OWNER.size).ljust(_OWNER.size, b"\0")
    except OSError:
        return None
    on_disk = found.st_blocks * 512
    magic, pid, start_unix_ns, uptime_ns, state = _OWNER.unpack(header)
    if magic == bytes(len(_MAGIC)):  # not finished: its maker is at it, or was killed meanwhile
        maker = path.name.removesuffix(TABLE_SUFFIX).rpartition(".")[2]
        if _is_running_name(maker):
            return None
        return DeadTable(path, int(maker), on_disk, found.st_mtime_ns, evidence=False)
    if magic != _MAGIC or _maps(pid, path):
        return None
    seen_unix_ns = min(start_unix_ns + uptime_ns, _LATEST_NS)
    return DeadTable(path, pid, on_disk, seen_unix_ns, evidence=state != _STOPPED)


def _maps(pid: int, path: Path) -> bool:
    """Return whether a process has the file mapped: a pid alone may be another's by now."""
    name = str(path.resolve())
    try:
        with Path(f"/proc/{pid}/maps").open(encoding="utf-8", errors="surrogateescape") as lines:
            return any(line.rstrip("\n").endswith(name) for line in lines)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return True  # there, but not ours to look at: leave its file alone


def _is_running_name(stem: str) -> bool:
    return not stem.isdigit() or _is_running(int(stem))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    try:
        # A zombie, which nobody has waited for yet, still takes signals. Its name may hold ")".
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] != b"Z"
    except OSError:
        return True

"""Starts and stops the sampler of this process, and reads its state.

Takes a mean interval and a place for the live table; gives heap profiles and counters. All
functions may be called from any thread. The host never fails because of the table: one that
cannot be had is reported in `Stats.table_error`, and sampling goes on in private memory.
"""

import atexit
import contextlib
import gc
import os
import posix
import sys
import threading
import time
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from stanch.sampler import threadnames
from stanch.sampler.cgroup import memory_limit
from stanch.sampler.errors import SamplerError
from stanch.sampler.heap import table_profile
from stanch.sampler.tablefile import TableImage, read_table

_core_error: ImportError | None = None
try:
    from stanch.sampler import _core as _built_core
except ImportError as error:
    _core_error = error
_core: Any = None if _core_error else _built_core

MIN_INTERVAL_BYTES = 128 << 10
MAX_INTERVAL_BYTES = 512 << 10
SAMPLES_PER_LIMIT = 4096
LARGEST_INTERVAL_BYTES = (1 << 32) - 1
TABLE_SUFFIX = ".stanch"
PRELOAD = Path(__file__).parent / f"_preload{EXTENSION_SUFFIXES[0]}"


@dataclass(frozen=True, slots=True)
class Stats:
    """The state of the sampler.

    Estimates: live bytes and objects; alloc_objects, all that were allocated since the start.
    threads_known, routes_known: different names and routes in this process so far.
    labels_refused: samples whose name or route had no room and is one for the rest.
    """

    running: bool = False
    mode: str = "off"
    interval_bytes: int = 0
    samples: int = 0
    live_samples: int = 0
    live_bytes: float = 0.0
    live_objects: float = 0.0
    alloc_objects: float = 0.0
    dropped: dict[str, int] = field(default_factory=dict)
    threads_known: int = 0
    routes_known: int = 0
    labels_refused: int = 0
    overhead_ns: int = 0
    requests: int = 0
    table_path: str | None = None
    table_error: str | None = None
    start_unix_ns: int = 0
    native: bool = False
    native_error: str | None = None
    live_native_bytes: float = 0.0


@dataclass(slots=True)
class _State:
    """The one sampler of this process; guarded by `_lock`."""

    table_path: Path | None = None
    table_error: str | None = None
    native_error: str | None = None
    owner_pid: int = 0
    at_exit: bool = False


_state = _State()
_lock = threading.RLock()


def preload_problem(path: Path = PRELOAD) -> str | None:
    """Say in a sentence why the preload library cannot be put into LD_PRELOAD; None when it can."""
    if not path.exists():
        return (
            "native sampling needs Linux with glibc, and this Stanch was built without; "
            "sample without --native here"
        )
    if any(c in " :;" for c in str(path)):
        return (
            f"native sampling is not possible from {path.parent}: LD_PRELOAD cannot name a path "
            "with a space or colon; install Stanch in another directory"
        )
    return None


def default_interval(limit_bytes: int | None) -> int:
    """Return the mean interval in bytes for a memory limit: limit / 4096 within 128 to 512 KiB."""
    if limit_bytes is None:
        return MAX_INTERVAL_BYTES
    return min(max(limit_bytes // SAMPLES_PER_LIMIT, MIN_INTERVAL_BYTES), MAX_INTERVAL_BYTES)


def _check_interpreter() -> None:
    if _core is not None:
        return
    import sysconfig  # it reads files, which a host that has started may no longer be able to

    found = f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}"
    if sys.implementation.name != "cpython":
        raise SamplerError(f"this is {found}; Stanch samples CPython 3.11 to 3.15")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise SamplerError(
            f"this is a free-threaded build of {found}, which Stanch does not support yet; "
            "use the default build of the same version"
        )
    if "subinterpreter" in str(_core_error):
        raise SamplerError(
            "this is a sub-interpreter; start sampling in the main interpreter of the process, "
            "which then sees what all of them allocate"
        )
    raise SamplerError(
        f"Stanch's C core is not built for {found}: {_core_error}; "
        "install the stanch wheel with this interpreter's own pip (CPython 3.11 to 3.15, Linux)"
    )


def _check_interval(interval_bytes: int) -> None:
    if not 1 <= interval_bytes <= LARGEST_INTERVAL_BYTES:
        raise SamplerError(
            f"the interval is {interval_bytes} bytes; expected 1 to {LARGEST_INTERVAL_BYTES}"
        )


def _table_file(table: str | os.PathLike[str]) -> Path:
    """Return the table's path for this process: the file itself, or PID.stanch in a directory."""
    path = Path(table)
    return path / f"{os.getpid()}{TABLE_SUFFIX}" if path.is_dir() else path


def start(
    *,
    interval_bytes: int | None = None,
    table: str | os.PathLike[str] | None = None,
    service: str = "",
    labels: bool = True,
    native: bool = False,
) -> None:
    """Start sampling the allocations of this process.

    interval_bytes: mean bytes between two samples; by the memory limit when None.
    table: a file, or a directory for PID.stanch, that keeps the live table even if the process
    is killed; private memory when None.
    labels: whether samples carry the names of their thread and route.
    native: sample what libraries take from malloc and mmap, too, through the preload library that
    `stanch run --native` brought; where that cannot be, `Stats.native_error` says why.
    Raises SamplerError when sampling already runs, when there is no memory for the table, or when
    this interpreter is not supported.
    """
    _check_interpreter()
    limit = memory_limit()
    interval = default_interval(limit) if interval_bytes is None else interval_bytes
    _check_interval(interval)
    with _lock:
        if _core.running():
            raise SamplerError("sampling already runs in this process; call stanch.stop() first")
        if labels:
            threadnames.install(_core)
        _core.label_samples(labels)
        try:
            _core.start(interval, limit or 0, service.replace("\0", ""))
        except RuntimeError as error:
            raise SamplerError(str(error)) from None
        except OSError as error:
            raise SamplerError(f"no memory for the live table: {error.strerror}") from None
        _state.native_error = _core.start_native() if native else None
        _state.owner_pid = os.getpid()
        if not _state.at_exit:
            atexit.register(stop)
            _state.at_exit = True
        _place_table(table)


def _place_table(table: str | os.PathLike[str] | None) -> None:
    _state.table_path = _state.table_error = None
    if table is None:
        return
    path = _table_file(table)
    try:
        _core.move_to_file(path)
    except OSError as error:
        _state.table_error = (
            f"no table file at {path}: {error.strerror}; the table stays in private memory, "
            "so there will be no autopsy if this process is killed"
        )
    else:
        _state.table_path = path


def stop() -> None:
    """Stop sampling and remove the table file. Does nothing when sampling does not run."""
    if _core is None:
        return
    with _lock:
        gc_watch(False)
        _core.stop()
        if _state.table_path is not None and _state.owner_pid == os.getpid():
            with contextlib.suppress(OSError):
                _state.table_path.unlink()
        _state.table_path = None


def after_fork_in_child(table: str | os.PathLike[str] | None = None) -> None:
    """Give a forked child a table file of its own.

    The C core has already given it a private copy, in which inherited blocks are born at the fork.
    """
    global _lock
    _lock = threading.RLock()
    if _core is None:
        return
    _state.owner_pid = os.getpid()
    _state.table_path = None
    if _core.running():
        _place_table(table)


def set_interval(interval_bytes: int) -> None:
    """Take samples at another mean interval, in bytes, from now on.

    Estimates stay unbiased: each sample counts by the interval that it was drawn with, and the
    table notes since when each interval applies. Does nothing when sampling does not run. Raises
    SamplerError when there can be no such interval.
    """
    _check_interval(interval_bytes)
    with _lock:
        if _core is not None and _core.running():
            _core.set_interval(interval_bytes)


def running() -> bool:
    """Return whether this process is being sampled."""
    return _core is not None and _core.running()


def watch_exit(on: bool) -> None:
    """Let `os._exit` say in the table file that the process ended by itself, or no longer.

    It runs no Python and takes no lock, as the host expects of it. A function that the host has
    put in its place is left alone.
    """
    ours, original = _core._exit, posix._exit
    if os._exit is (original if on else ours):
        os._exit = ours if on else original


def count_request() -> None:
    """Count one request served. Costs some 50 ns; does nothing when sampling does not run."""
    if _core is not None:
        _core.count_request()


def gc_watch(on: bool) -> None:
    """Time the collector's pauses from now on, or stop timing them."""
    callback = _core.gc_callback
    if on and callback not in gc.callbacks:
        gc.callbacks.append(callback)
    elif not on:
        with contextlib.suppress(ValueError):
            gc.callbacks.remove(callback)


def gc_pauses() -> tuple[int, int, int]:
    """Return collections timed, their total and their longest pause in nanoseconds."""
    return _core.gc_pauses() if _core is not None else (0, 0, 0)


def stats() -> Stats:
    """Return the sampler's state; zeros when it does not run."""
    counters = _core.counters() if _core is not None else None
    if counters is None:
        return Stats()
    threads_known, routes_known = _core.labels_known()
    return Stats(
        running=True,
        mode=counters["mode"],
        interval_bytes=counters["interval_bytes"],
        samples=counters["samples"],
        live_samples=counters["live_samples"],
        live_bytes=max(counters["live_bytes"], 0.0),
        live_objects=max(counters["live_objects"], 0.0),
        alloc_objects=counters["alloc_objects"],
        dropped={
            "table_full": counters["dropped_table_full"],
            "no_space": counters["dropped_no_space"],
            "busy": counters["dropped_busy"],
        },
        threads_known=threads_known,
        routes_known=routes_known,
        labels_refused=counters["labels_refused"],
        overhead_ns=counters["overhead_ns"],
        requests=counters["requests"],
        table_path=str(_state.table_path) if _state.table_path else None,
        table_error=_state.table_error,
        start_unix_ns=counters["start_unix_ns"],
        native=counters["native"],
        native_error=_state.native_error,
        live_native_bytes=max(counters["live_native_bytes"], 0.0),
    )


def snapshot() -> TableImage:
    """Return a consistent copy of the live table. Raises SamplerError when sampling is off."""
    image = _core.snapshot() if _core is not None else None
    if image is None:
        raise SamplerError("sampling does not run in this process; call stanch.start() first")
    return read_table(image)


def heap_profile() -> bytes:
    """Return the heap profile of this process as pprof (gzip).

    Sample types are Go's: alloc_objects, alloc_space, inuse_objects, inuse_space.
    Raises SamplerError when sampling is off.
    """
    from stanch.profile import encode

    return encode(table_profile(snapshot(), time_ns=time.time_ns()))

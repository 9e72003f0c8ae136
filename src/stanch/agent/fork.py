"""Keeps the agent right over fork: no thread of ours in the parent's way, a fresh one in the child.

Around a fork our threads must be gone, for two reasons. A child inherits locks as they are, and a
thread of ours might hold one. And CPython 3.12 and later warn when a process with several threads
forks: the host must not be warned because of us. Some of them, 3.13 for one, count after the
parent's fork handlers have run, so there our threads start again only once os.fork has returned:
the last handler, which runs no bytecode, leaves a pending call for the main thread. A handler of
the host's that is written in Python and registered after the first fork takes that call too soon.

A signal handler of the host's may itself fork while these handlers run. It then forks as things
are, since one thread may not enter a lock of `threading` twice; CPython may warn of that fork.

A child often calls exec at once. It therefore gets its table and endpoint a moment later, from a
thread that exec or the next fork does away with.
"""

import functools
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from stanch.agent import daemons
from stanch.agent.warn import warn

_LATE_S = 0.05
_JOIN_S = 1.0  # an action under way takes some 20 ms, and a fork amid it would copy its locks
_POLLS = 100
_POLL_S = 0.001
_FORK_WARNS = sys.hexversion >= 0x030C0000


class Forkable(Protocol):
    """What has threads to stop before a fork. An error of a method is reported and ends there."""

    def before_fork(self) -> None:
        """End the threads of this process, within 100 ms each; a start under way within 1 s."""

    def after_fork_in_parent(self) -> None:
        """Start them again."""

    def after_fork_in_child(self) -> None:
        """Forget what was the parent's and become a process of its own, quickly."""


class LateStart:
    """Runs an action a moment from now in a thread, unless it is cancelled before."""

    def __init__(self, action: Callable[[], None], delay_s: float = _LATE_S) -> None:
        self._cancelled = threading.Event()
        self._action = action
        self._delay_s = delay_s
        self._thread = daemons.daemon("late-start", self._run)
        self.done = False

    def start(self) -> None:
        """Start waiting."""
        daemons.start(self._thread)

    def cancel(self) -> bool:
        """Stop waiting, or wait for an action under way; return whether it was done."""
        self._cancelled.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)
        return self.done

    def _run(self) -> None:
        if self._cancelled.wait(self._delay_s):
            return
        try:
            self._action()
        except Exception as error:
            warn(f"the agent stays off in the forked process {os.getpid()}: {error!r}")
        self.done = True


_current: Forkable | None = None
_registered = False
_forking = 0
_lock = threading.RLock()  # a signal handler within a fork handler may fork itself
_deferred = False  # whether the pending call is to resume
_pending_call: Any = None  # the ctypes callback; kept for good, CPython may be calling it


def guard(forkable: Forkable | None) -> None:
    """Call this object's methods around every fork from now on; None ends it."""
    global _current, _registered
    _current = forkable
    if forkable is not None and not _registered:
        _registered = True
        os.register_at_fork(
            before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
        )


def _before() -> None:
    global _forking
    with _lock:  # two threads may fork at once: the first stops, the last starts
        _forking += 1
        if _forking > 1 or _current is None:
            return
        try:
            ours = [t for t in threading.enumerate() if t.name.startswith(daemons.THREAD_PREFIX)]
            _prepare_deferral()
            _current.before_fork()
            _wait_until_gone(ours)
        except Exception as error:
            warn(f"the agent could not pause for a fork: {error!r}")


def _wait_until_gone(threads: list[threading.Thread]) -> None:
    """Wait for the kernel to let go of threads that ended: join returns a little before that.

    One that has not ended, such as a push under way, is not waited for.
    """
    pause = threading.Event()
    for thread in threads:
        for _ in range(_POLLS):
            if thread.is_alive() or not Path(f"/proc/self/task/{thread.native_id}").exists():
                break
            pause.wait(_POLL_S)


def _after_in_parent() -> None:
    global _deferred
    try:
        # With threads of its own the host is warned anyway, and its main thread may be blocked.
        _deferred = _pending_call is not None and _is_only_thread()
        if not _deferred:
            _resume()
    except Exception as error:
        warn(f"the agent could not resume after a fork: {error!r}")


def _resume() -> None:
    global _forking
    with _lock:
        if _forking <= 1 and _current is not None:
            try:
                _current.after_fork_in_parent()
            except Exception as error:
                warn(f"the agent could not resume after a fork: {error!r}")
        _forking = max(_forking - 1, 0)  # a child that was forked within _before begins at 0


def _is_only_thread() -> bool:
    try:
        return len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:
        return threading.active_count() == 1


def _prepare_deferral() -> None:
    """Register the handler that defers `_resume`, at the first fork: late, to be the last one.

    Py_AddPendingCall is of CPython's stable API; nothing in Python itself gives a call so soon
    without touching the host's signals, tracing or os.fork.
    """
    global _pending_call
    if not _FORK_WARNS or _pending_call is not None:
        return
    try:
        import ctypes

        call = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(_fork_has_returned)
        leave = functools.partial(ctypes.pythonapi.Py_AddPendingCall, call, None)
    except (ImportError, AttributeError, OSError):
        return  # a Python without ctypes may warn its host, but keeps its agent
    os.register_at_fork(after_in_parent=leave)
    _pending_call = call


def _fork_has_returned(_argument: int | None) -> int:
    """Return 0, as a pending call has to."""
    global _deferred
    if _deferred:
        _deferred = False
        _resume()
    return 0


def _after_in_child() -> None:
    global _deferred, _forking, _lock
    _lock = threading.RLock()
    _forking, _deferred = 0, False
    if _current is None:
        return
    try:
        _current.after_fork_in_child()
    except Exception as error:
        warn(f"the agent stays off in the forked process {os.getpid()}: {error!r}")

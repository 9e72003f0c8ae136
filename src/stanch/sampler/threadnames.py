"""Tells the C core the names of threads, so that samples can carry them.

A thread that `threading` starts names itself as it starts, and again when it changes its name.
Those that are there already are told of by identity. A thread of another library has the name it
has for the kernel. Numbers that `threading` and `concurrent.futures` make up become N: the threads
of one pool are one name, and a server with a thread for each request does not fill the list.
"""

import re
import threading
from typing import Any

# Thread-7, Thread-7 (serve), Dummy-7, ThreadPoolExecutor-0_7, asyncio_7: all but the last digits
# of a pool's threads only after a prefix of the library's own.
_COUNTED = re.compile(r"^(Thread|Dummy|ThreadPoolExecutor)-\d+|_\d+$")

_installed = False


def pool_name(name: str) -> str:
    """Return a thread's name with the counters that libraries make up replaced by N."""
    return _COUNTED.sub(lambda found: f"{found[1]}-N" if found[1] else "_N", name)


def install(core: Any) -> None:
    """Name the threads there are, and have others name themselves. Idempotent; stays."""
    global _installed
    for thread in threading.enumerate():
        _tell(core, thread)
    if _installed:
        return
    _installed = True
    _follow_starts(core)
    _follow_names(core)


def _tell(core: Any, thread: threading.Thread) -> None:
    """Errors end here: a name is not worth a host's thread."""
    try:
        # Under gevent an identity may be that of a greenlet, which the core knows nothing of.
        core.name_thread(thread.ident or 0, pool_name(thread.name))
    except Exception:
        return


def _follow_starts(core: Any) -> None:
    """Wrap the first thing that a new thread does; no frame of ours stays on its stack."""
    original = getattr(threading.Thread, "_set_ident", None)
    if original is None:  # an unknown version: its new threads have their names for the kernel
        return

    def _set_ident(self: threading.Thread) -> None:
        original(self)
        _tell(core, self)

    threading.Thread._set_ident = _set_ident  # type: ignore[attr-defined]


def _follow_names(core: Any) -> None:
    original: Any = threading.Thread.name

    def name(self: threading.Thread, name: str) -> None:
        original.fset(self, name)
        if self.ident == threading.get_ident():
            _tell(core, self)

    threading.Thread.name = original.setter(name)

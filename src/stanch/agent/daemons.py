"""Starts the agent's own threads: daemons that take none of the host's signals.

A signal that is sent to the process goes to any thread that does not block it. A host that blocks
SIGTERM and waits for it with `sigwait` must not find that a thread of ours has taken it.
"""

import signal
import threading
from collections.abc import Callable

THREAD_PREFIX = "stanch-"
"""How the names of the agent's own threads begin."""

_KEPT_SIGNALS = {
    signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP,
}  # fmt: skip


class EndingError(RuntimeError):
    """The interpreter is ending and starts no more threads; nobody will miss them."""


def daemon(topic: str, work: Callable[..., None], *arguments: object) -> threading.Thread:
    """Return a thread named after its topic, not yet started."""
    return threading.Thread(
        target=work, args=arguments, name=f"{THREAD_PREFIX}{topic}", daemon=True
    )


def start(thread: threading.Thread) -> None:
    """Start a thread. Raises RuntimeError when the process can have no more of them.

    That is EndingError where the reason is that the interpreter ends (from CPython 3.12 on).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _KEPT_SIGNALS)
    try:
        thread.start()
    except RuntimeError as error:
        if "interpreter shutdown" in str(error):
            raise EndingError(str(error)) from None
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""Stops the agent in processes that end in good order but run no atexit handler.

The children of multiprocessing and of celery's billiard end by os._exit, after the finalizers of
their `util` module. uvicorn shuts down and then raises the SIGTERM it was sent once more, whose
default action ends the process. Without this each would leave a table that looks like a death.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from stanch.agent.imports import when_imported

_WITH_FINALIZERS = ("multiprocessing.util", "billiard.util")
_LAST = -100  # finalizers run from the highest priority to the lowest


class _Anchor:
    """What the after-fork registry holds on to, weakly; kept here for as long as the process."""


_anchor = _Anchor()


def install(stop: Callable[[], None]) -> None:
    """Call `stop` at such ends, in this process and in those it forks."""
    for name in _WITH_FINALIZERS:
        when_imported(name, lambda util: _at_end_of_children(util, stop))
    when_imported("uvicorn.server", lambda module: _before_second_signal(module, stop))


def _at_end_of_children(util: ModuleType, stop: Callable[[], None]) -> None:
    def finalize_here(_anchor: _Anchor) -> None:
        util.Finalize(None, stop, exitpriority=_LAST)

    util.register_after_fork(_anchor, finalize_here)


def _before_second_signal(module: ModuleType, stop: Callable[[], None]) -> None:
    capture_signals = module.Server.capture_signals

    @contextmanager
    def watched(server: Any) -> Iterator[None]:
        ends_process = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        with capture_signals(server):
            yield
            if ends_process and signal.SIGTERM in getattr(server, "_captured_signals", ()):
                stop()

    module.Server.capture_signals = watched

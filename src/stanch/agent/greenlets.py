"""Where gevent replaces the threads and sockets of the standard library, the agent's threads go.

They would wait for sockets and locks in the host's own thread, and gevent's fork handlers do not
reckon with threads that are older than the patch. gevent announces it before it patches anything.
"""

import sys
from collections.abc import Callable
from types import ModuleType

from stanch.agent.imports import when_imported

_withdraw: Callable[[], None] | None = None


def patched() -> bool:
    """Return whether threads that this process makes are greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def install(withdraw: Callable[[], None]) -> None:
    """Call `withdraw` before gevent patches; it has to end all threads of ours."""
    global _withdraw
    _withdraw = withdraw
    when_imported("gevent.events", _subscribe)


def _subscribe(events: ModuleType) -> None:
    if _on_event not in events.subscribers:
        events.subscribers.append(_on_event)


def _on_event(event: object) -> None:
    """See gevent.events; the kinds before the patch are WillPatchAll and WillPatchModule."""
    if type(event).__name__.startswith("GeventWillPatch") and _withdraw is not None:
        _withdraw()

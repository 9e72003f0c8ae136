"""Leaks of real kinds, small: every `tick` serves one request and keeps about SIZE bytes.

Each has a twin in `eval.programs.twins` that does the same work and lets go of it. Half of the
containers have code that takes entries out, as in real services: it is just not reached.
"""

import asyncio
import contextvars
import ctypes
import functools
import gc
import queue
import threading
from collections import deque
from typing import Any, ClassVar

from eval.programs.work import SIZE, Tick, payload

_libc = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = [ctypes.c_size_t]

SESSIONS: dict[int, Any] = {}
AUDIT: list[Any] = []
LISTENERS: list[Any] = []
ERRORS: list[BaseException] = []
INBOX: "queue.Queue[Any]" = queue.Queue()
SEEN: deque[Any] = deque()
WAITING: set[Any] = set()
TAGS: set[str] = set()
CURRENT: contextvars.ContextVar[Any] = contextvars.ContextVar("CURRENT", default=())


def remember_session(number: int) -> None:
    """A global dict out of which a log-out would take, but nobody logs out."""
    SESSIONS[number] = payload(number)


def log_out(number: int) -> None:
    """Never called."""
    SESSIONS.pop(number, None)


def write_audit(number: int) -> None:
    """A list that is only appended to."""
    AUDIT.append(payload(number))


@functools.cache
def render_for_ever(number: int) -> list[bytes]:
    """Never drops what it was asked for."""
    return payload(number)


def ask_cache(number: int) -> None:
    """lru_cache(maxsize=None) on an argument that is new each time."""
    render_for_ever(number)


class Node:
    """One half of a reference cycle, with a finalizer."""

    def __init__(self, number: int) -> None:
        self.other: Node | None = None
        self.data = payload(number)

    def __del__(self) -> None:
        self.data.clear()


def make_cycle(number: int) -> None:
    """Cycles with finalizers, while the collector is switched off."""
    if number == 0:
        gc.disable()
    one, two = Node(number), Node(number) if number % 50 == 0 else Node.__new__(Node)
    one.other = two
    two.other, two.data = one, []


def add_listener(number: int) -> None:
    """Callbacks that are never unregistered."""
    data = payload(number)
    LISTENERS.append(lambda: data)


def keep_error(number: int) -> None:
    """Exceptions whose tracebacks keep the locals of their frames."""
    data = payload(number)
    try:
        raise ValueError(len(data))
    except ValueError as error:
        ERRORS.append(error)


def put_unread(number: int) -> None:
    """A queue without a reader."""
    INBOX.put(payload(number))


def note_seen(number: int) -> None:
    """A deque without maxlen, of which an error handler would take the last."""
    SEEN.append(payload(number))


def undo_seen() -> None:
    """Never called."""
    SEEN.pop()


class Registry:
    """Objects that register themselves with their class."""

    everyone: ClassVar[list["Registry"]] = []

    def __init__(self, number: int) -> None:
        self.data = payload(number)
        Registry.everyone.append(self)


def register_object(number: int) -> None:
    """A class-level registry with strong references."""
    Registry(number)


def collect_default(number: int, seen: list[Any] = []) -> None:  # noqa: B006 -- the leak
    """A mutable default argument."""
    seen.append(payload(number))


def chain_context(number: int) -> None:
    """A context variable that holds the one before."""
    CURRENT.set((payload(number), CURRENT.get()))


def intern_tags(number: int) -> None:
    """A set of strings that are never the same twice."""
    for part in range(20):
        TAGS.add(f"{number}-{part}-" + "x" * (SIZE // 20 - 70))


def lose_reference(number: int) -> None:
    """A C extension that forgets a decref."""
    for part in range(SIZE // 400):
        text = f"{number}-{part}".ljust(350)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(text))


def forget_free(number: int) -> None:
    """A C library whose memory nobody frees."""
    for _ in range(20):
        block = _libc.malloc(SIZE // 20)
        ctypes.memset(block, 1, SIZE // 20)


async def wait_receipt(number: int) -> None:
    """Waits for what does not come."""
    data = payload(number)
    await asyncio.sleep(3600.0)
    data.clear()


def spawn_task(number: int) -> None:
    """Tasks that wait for ever."""
    task = asyncio.get_running_loop().create_task(wait_receipt(number))
    WAITING.add(task)
    task.add_done_callback(WAITING.discard)


def wait_for_reply(data: list[bytes], reply: threading.Event) -> None:
    """A thread that waits for what does not come."""
    reply.wait(3600.0)
    data.clear()


def spawn_thread(number: int) -> None:
    """Threads that never end, one in forty requests, with what they hold."""
    if number % 40 == 0:
        data = [block for part in range(40) for block in payload(number + part)]
        threading.Thread(target=wait_for_reply, args=(data, threading.Event()), daemon=True).start()


LEAKS: dict[str, tuple[Tick, tuple[str, ...]]] = {
    "dict": (remember_session, ("remember_session", "SESSIONS")),
    "list": (write_audit, ("write_audit", "AUDIT")),
    "lru_cache": (ask_cache, ("render_for_ever", "ask_cache")),
    "cycles": (make_cycle, ("Node.__init__", "make_cycle")),
    "listeners": (add_listener, ("add_listener", "LISTENERS")),
    "tracebacks": (keep_error, ("keep_error", "ERRORS")),
    "queue": (put_unread, ("put_unread", "INBOX")),
    "deque": (note_seen, ("note_seen", "SEEN")),
    "registry": (register_object, ("Registry.__init__", "register_object", "Registry.everyone")),
    "default": (collect_default, ("collect_default", "default argument")),
    "context": (chain_context, ("chain_context", "CURRENT")),
    "strings": (intern_tags, ("intern_tags", "TAGS")),
    "decref": (lose_reference, ("lose_reference",)),
    "malloc": (forget_free, ("",)),
    "tasks": (spawn_task, ("wait_receipt", "spawn_task", "WAITING")),
    "threads": (spawn_thread, ("wait_for_reply", "spawn_thread")),
}
"""By name: the tick, and the functions or holders that name it; `payload` alone is half of it."""

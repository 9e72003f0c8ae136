"""Leaks of real kinds, small. `tick` serves one request and keeps or drops about SIZE bytes.

Every leak has a twin, made with fixed=True, that does the same work and lets go of it.
"""

import asyncio
import contextvars
import ctypes
import functools
import gc
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

SIZE = 20_000
"""Bytes a request keeps where it leaks."""

_KEPT = 60
"""Requests a repaired twin keeps."""

_libc = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = [ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]

SESSIONS: dict[int, Any] = {}
AUDIT: list[Any] = []
LISTENERS: list[Any] = []
ERRORS: list[BaseException] = []
INBOX: "queue.Queue[Any]" = queue.Queue()
SEEN: deque[Any] = deque()
WAITING: set[Any] = set()
TAGS: set[str] = set()
CURRENT: contextvars.ContextVar[Any] = contextvars.ContextVar("CURRENT", default=())


def payload(number: int) -> list[bytes]:
    """What a request makes: twenty blocks that differ."""
    return [number.to_bytes(8, "big") * (SIZE // 160) for _ in range(20)]


def remember_session(number: int, fixed: bool) -> None:
    """A global dict that nothing is taken out of."""
    SESSIONS[number] = payload(number)
    if fixed:
        SESSIONS.pop(number - _KEPT, None)


def write_audit(number: int, fixed: bool) -> None:
    """A list that is only appended to."""
    AUDIT.append(payload(number))
    if fixed:
        del AUDIT[:-_KEPT]


@functools.cache
def render_for_ever(number: int) -> list[bytes]:
    """Never drops what it was asked for."""
    return payload(number)


@functools.lru_cache(maxsize=_KEPT)
def render_bounded(number: int) -> list[bytes]:
    """Drops the oldest."""
    return payload(number)


def ask_cache(number: int, fixed: bool) -> None:
    """lru_cache(maxsize=None) on an argument that is new each time."""
    (render_bounded if fixed else render_for_ever)(number)


class Node:
    """One half of a reference cycle, with a finalizer."""

    def __init__(self, number: int) -> None:
        self.other: Node | None = None
        self.data = payload(number)

    def __del__(self) -> None:
        self.data.clear()


def make_cycle(number: int, fixed: bool) -> None:
    """Cycles with finalizers, while the collector is switched off."""
    if number == 0 and not fixed:
        gc.disable()
    one, two = Node(number), Node(number) if number % 50 == 0 else Node.__new__(Node)
    one.other = two
    two.other, two.data = one, []
    if fixed:
        one.other = None


def add_listener(number: int, fixed: bool) -> None:
    """Callbacks that are never unregistered."""
    data = payload(number)
    LISTENERS.append(lambda: data)
    if fixed:
        LISTENERS.pop(0)()


def keep_error(number: int, fixed: bool) -> None:
    """Exceptions whose tracebacks keep the locals of their frames."""
    data = payload(number)
    try:
        raise ValueError(len(data))
    except ValueError as error:
        ERRORS.append(error.with_traceback(None) if fixed else error)
    if fixed:
        del ERRORS[:-_KEPT]


def put_unread(number: int, fixed: bool) -> None:
    """A queue without a reader."""
    INBOX.put(payload(number))
    if fixed:
        INBOX.get()


def note_seen(number: int, fixed: bool) -> None:
    """A deque without maxlen."""
    SEEN.append(payload(number))
    if fixed:
        SEEN.popleft()


class Registry:
    """Objects that register themselves with their class."""

    everyone: ClassVar[list["Registry"]] = []
    living: ClassVar["weakref.WeakSet[Registry]"] = weakref.WeakSet()

    def __init__(self, number: int, fixed: bool) -> None:
        self.data = payload(number)
        if fixed:
            Registry.living.add(self)
        else:
            Registry.everyone.append(self)


def register_object(number: int, fixed: bool) -> None:
    """A class-level registry with strong references."""
    Registry(number, fixed)


def collect_default(number: int, fixed: bool, seen: list[Any] = []) -> None:  # noqa: B006
    """A mutable default argument."""
    seen.append(payload(number))
    if fixed:
        seen.clear()


def chain_context(number: int, fixed: bool) -> None:
    """A context variable that holds the one before."""
    CURRENT.set((payload(number), () if fixed else CURRENT.get()))


def intern_tags(number: int, fixed: bool) -> None:
    """A set of strings that are never the same twice."""
    for part in range(20):
        TAGS.add(f"{number}-{part}-" + "x" * (SIZE // 20 - 70))
    if fixed:
        TAGS.clear()


def lose_reference(number: int, fixed: bool) -> None:
    """A C extension that forgets a decref."""
    for part in range(SIZE // 400):
        text = f"{number}-{part}".ljust(350)
        if not fixed:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(text))


def forget_free(number: int, fixed: bool) -> None:
    """A C library whose memory nobody frees."""
    for _ in range(20):
        block = _libc.malloc(SIZE // 20)
        ctypes.memset(block, 1, SIZE // 20)
        if fixed:
            _libc.free(block)


async def wait_receipt(number: int, fixed: bool) -> None:
    """Waits for what does not come."""
    data = payload(number)
    await asyncio.sleep(0.5 if fixed else 3600.0)
    data.clear()


def spawn_task(number: int, fixed: bool) -> None:
    """Tasks that wait for ever."""
    task = asyncio.get_running_loop().create_task(wait_receipt(number, fixed))
    WAITING.add(task)
    task.add_done_callback(WAITING.discard)


def wait_for_reply(data: list[bytes], reply: threading.Event, fixed: bool) -> None:
    """A thread that waits for what does not come."""
    reply.wait(0.5 if fixed else 3600.0)
    data.clear()


def spawn_thread(number: int, fixed: bool) -> None:
    """Threads that never end, one in ten requests, with what they hold."""
    if number % 10 == 0:
        data = [block for part in range(10) for block in payload(number + part)]
        arguments = (data, threading.Event(), fixed)
        threading.Thread(target=wait_for_reply, args=arguments, daemon=True).start()


Tick = Callable[[int, bool], None]

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

"""The repaired twins of `eval.programs.leaks`: the same work, and nothing is kept for long."""

import asyncio
import contextvars
import ctypes
import functools
import queue
import threading
import weakref
from collections import deque
from typing import Any, ClassVar

from eval.programs.work import SIZE, Tick, payload

_KEPT = 60
"""Requests whose memory a twin may hold."""

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


def remember_session(number: int) -> None:
    """A session ends sixty requests later."""
    SESSIONS[number] = payload(number)
    SESSIONS.pop(number - _KEPT, None)


def write_audit(number: int) -> None:
    """The list keeps the newest."""
    AUDIT.append(payload(number))
    del AUDIT[:-_KEPT]


@functools.lru_cache(maxsize=_KEPT)
def render_bounded(number: int) -> list[bytes]:
    """Drops the oldest."""
    return payload(number)


def ask_cache(number: int) -> None:
    """The cache has a bound."""
    render_bounded(number)


class Node:
    """One half of what was a cycle."""

    def __init__(self, number: int) -> None:
        self.other: Node | None = None
        self.data = payload(number)

    def __del__(self) -> None:
        self.data.clear()


def make_cycle(number: int) -> None:
    """The cycle is broken before it is let go."""
    one, two = Node(number), Node(number) if number % 50 == 0 else Node.__new__(Node)
    one.other = two
    two.other, two.data = one, []
    one.other = None


def add_listener(number: int) -> None:
    """Callbacks are unregistered after the call."""
    data = payload(number)
    LISTENERS.append(lambda: data)
    LISTENERS.pop(0)()


def keep_error(number: int) -> None:
    """Exceptions without their tracebacks, the newest only."""
    data = payload(number)
    try:
        raise ValueError(len(data))
    except ValueError as error:
        ERRORS.append(error.with_traceback(None))
    del ERRORS[:-_KEPT]


def put_unread(number: int) -> None:
    """The queue has a reader."""
    INBOX.put(payload(number))
    INBOX.get()


def note_seen(number: int) -> None:
    """What was seen is taken out again."""
    SEEN.append(payload(number))
    SEEN.popleft()


class Registry:
    """Objects that are known to their class by weak references."""

    living: ClassVar["weakref.WeakSet[Registry]"] = weakref.WeakSet()

    def __init__(self, number: int) -> None:
        self.data = payload(number)
        Registry.living.add(self)


def register_object(number: int) -> None:
    """A class-level registry with weak references."""
    Registry(number)


def collect_default(number: int, seen: list[Any] | None = None) -> None:
    """A default that is made anew."""
    seen = [] if seen is None else seen
    seen.append(payload(number))


def chain_context(number: int) -> None:
    """A context variable that holds the newest only."""
    CURRENT.set((payload(number), ()))


def intern_tags(number: int) -> None:
    """A set that lives as long as its request."""
    for part in range(20):
        TAGS.add(f"{number}-{part}-" + "x" * (SIZE // 20 - 70))
    TAGS.clear()


def lose_reference(number: int) -> None:
    """A C extension that gives back what it took."""
    for part in range(SIZE // 400):
        text = f"{number}-{part}".ljust(350)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(text))
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(text))


def forget_free(number: int) -> None:
    """A C library whose memory is freed."""
    for _ in range(20):
        block = _libc.malloc(SIZE // 20)
        ctypes.memset(block, 1, SIZE // 20)
        _libc.free(block)


async def wait_receipt(number: int) -> None:
    """Gives up soon."""
    data = payload(number)
    await asyncio.sleep(0.5)
    data.clear()


def spawn_task(number: int) -> None:
    """Tasks that end."""
    task = asyncio.get_running_loop().create_task(wait_receipt(number))
    WAITING.add(task)
    task.add_done_callback(WAITING.discard)


def wait_for_reply(data: list[bytes], reply: threading.Event) -> None:
    """Gives up soon."""
    reply.wait(0.5)
    data.clear()


def spawn_thread(number: int) -> None:
    """Threads that end, one in forty requests."""
    if number % 40 == 0:
        data = [block for part in range(40) for block in payload(number + part)]
        threading.Thread(target=wait_for_reply, args=(data, threading.Event()), daemon=True).start()


TWINS: dict[str, Tick] = {
    "dict": remember_session,
    "list": write_audit,
    "lru_cache": ask_cache,
    "cycles": make_cycle,
    "listeners": add_listener,
    "tracebacks": keep_error,
    "queue": put_unread,
    "deque": note_seen,
    "registry": register_object,
    "default": collect_default,
    "context": chain_context,
    "strings": intern_tags,
    "decref": lose_reference,
    "malloc": forget_free,
    "tasks": spawn_task,
    "threads": spawn_thread,
}
"""By the name of the leak each is the twin of."""

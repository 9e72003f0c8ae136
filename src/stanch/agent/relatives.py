"""The other processes of this run, asked over their unix sockets.

A run's processes listen as PID.sock in one private directory. Each question goes to all of them at
once, bounded in number, time and size, and says "alone=1", so that nobody passes it on. A process
that does not answer is left out and named; the socket of a dead one is removed.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stanch.agent import daemons

MAX_RELATIVES = 256
MAX_BODY_BYTES = 64 << 20
CONNECT_S = 2.0
ANSWER_S = 5.0
"""A process whose interpreter is busy needs some time for a large heap profile."""

_AT_ONCE = 8
_SUFFIX = ".sock"
_CHUNK_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Reply:
    """What one relative answered."""

    pid: int
    status: int
    body: bytes
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Replies:
    """The answers with status 200 in the order of pids, and who is alive and gave none."""

    replies: tuple[Reply, ...] = ()
    missing: tuple[int, ...] = ()


@dataclass(slots=True)
class _Round:
    """One question on its way to all; `lock` guards all the rest."""

    pids: Iterator[int]
    replies: list[Reply] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Question:
    """A question that is being asked; `wait` for the replies."""

    def __init__(self, asked: _Round, pids: Sequence[int], threads: Sequence[threading.Thread],
                 deadline_s: float) -> None:  # fmt: skip
        self._round = asked
        self._pids = pids
        self._threads = threads
        self._deadline_s = deadline_s

    def wait(self) -> Replies:
        """Return what was answered in time."""
        for thread in self._threads:
            thread.join(max(self._deadline_s - time.monotonic(), 0.0))
        with self._round.lock:
            replies = tuple(sorted(self._round.replies, key=lambda reply: reply.pid))
            answered = {reply.pid for reply in replies}
            known = answered.union(self._round.missing)
        # Whoever is neither answered nor given up is dead, or was not reached in time.
        late = [pid for pid in self._pids if pid not in known and _is_alive(pid)]
        return Replies(replies, tuple(sorted({*self._round.missing, *late})))


class Relatives:
    """Asks the relatives of one process; `directory` is None for a process on its own."""

    def __init__(self, directory: Path | None, token: str | None = None) -> None:
        self._directory = directory
        self._token = token

    def pids(self) -> list[int]:
        """Return the pids whose sockets are there, this process apart, at most MAX_RELATIVES."""
        if self._directory is None:
            return []
        try:
            names = os.listdir(self._directory)  # noqa: PTH208  a Path for each name is not needed
        except OSError:
            return []
        stems = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
        pids = sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())
        return [pid for pid in pids if pid != os.getpid()][:MAX_RELATIVES]

    def ask_all(self, target: str, extra_s: float = 0.0) -> Question:
        """Begin to ask every relative for `target`, which may take `extra_s` by its nature."""
        pids = self.pids()
        asked = _Round(iter(pids))
        at_once = len(pids) if extra_s else min(_AT_ONCE, len(pids))
        threads = [
            daemons.daemon(f"relative-{number}", self._ask_in_turn, asked, target, extra_s)
            for number in range(at_once)
        ]
        for thread in threads:
            daemons.start(thread)
        turns = -(-len(pids) // at_once) if at_once else 0
        deadline_s = time.monotonic() + extra_s + turns * (CONNECT_S + ANSWER_S)
        return Question(asked, pids, threads, deadline_s)

    def ask(self, pid: int, target: str, extra_s: float = 0.0) -> Reply | None:
        """Ask one relative; None when it does not answer. Removes the socket of a dead one."""
        if self._directory is None or pid not in self.pids():
            return None
        path = self._directory / f"{pid}{_SUFFIX}"
        try:
            return Reply(pid, *_get(path, target, self._token, ANSWER_S + extra_s))
        except ConnectionRefusedError:
            if not _is_alive(pid):
                with contextlib.suppress(OSError):
                    path.unlink()
        except (OSError, ValueError):
            pass  # Left out of the answer and named in it, by those who asked.
        return None

    def _ask_in_turn(self, asked: _Round, target: str, extra_s: float) -> None:
        while True:
            with asked.lock:
                pid = next(asked.pids, None)
            if pid is None:
                return
            reply = self.ask(pid, target, extra_s)
            with asked.lock:
                if reply is not None and reply.status == 200:
                    asked.replies.append(reply)
                elif _is_alive(pid):
                    asked.missing.append(pid)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _get(path: Path, target: str, token: str | None, within_s: float) -> tuple[int, bytes, str]:
    """Return status, body and content type. Raises OSError, and ValueError for what is no HTTP."""
    alone = f"{target}{'&' if '?' in target else '?'}alone=1"
    lines = [f"GET {alone} HTTP/1.1", "Host: localhost", "Connection: close"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    question = "\r\n".join((*lines, "", "")).encode("utf-8")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CONNECT_S)
        connection.connect(os.fspath(path))
        connection.sendall(question)
        answer = _read_all(connection, time.monotonic() + within_s)
    head, separator, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if not separator or len(words) < 2:
        raise ValueError(f"{path} answered with no HTTP")
    headers = {
        name.lower(): text.strip() for name, _, text in (each.partition(":") for each in rest)
    }
    if int(headers.get("content-length", "-1")) != len(body):
        raise ValueError(f"{path} broke off its answer")
    return int(words[1]), body, headers.get("content-type", "")


def _read_all(connection: socket.socket, deadline_s: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        connection.settimeout(remaining_s)
        part = connection.recv(_CHUNK_BYTES)
        if not part:
            return b"".join(parts)
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise ValueError(f"an answer of more than {MAX_BODY_BYTES} bytes")
        parts.append(part)

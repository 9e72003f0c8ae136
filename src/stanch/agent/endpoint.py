"""The endpoint: a small HTTP server on threads of its own inside the watched process.

One acceptor thread waits on the listening socket and gives each connection to a short-lived
thread, at most MAX_CONNECTIONS at a time. All are daemons whose names begin with "stanch-", and
take none of the host's signals. `pause` ends the acceptor before a fork, since CPython 3.12 and
later warn about forks of processes with threads; `resume` starts it again on the same socket.

Lock: `_lock` guards the set of handler threads. `start`, `pause`, `resume` and `close` are for one
caller at a time.
"""

import contextlib
import errno
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from stanch.agent import daemons, exposition
from stanch.agent.budget import BudgetState
from stanch.agent.exchange import (
    REQUEST_S,
    Answer,
    AnswerError,
    ClientGoneError,
    Request,
    is_gone,
    linger,
    read_request,
    write_answer,
)
from stanch.agent.gctimes import GcWatch
from stanch.agent.listen import (
    Address,
    EndpointError,
    EndpointOptions,
    parse_listen,
)
from stanch.agent.listening import Event, Listening
from stanch.agent.memory import EVERY_S, MemoryReader
from stanch.agent.metrics import EndpointMeter, RequestMeter
from stanch.agent.relatives import Relatives
from stanch.agent.routes import OTHER, Routes
from stanch.agent.security import (
    READS_AT_ONCE,
    READS_PER_SECOND,
    Guard,
    RateLimit,
    check_listen,
    tls_context,
    too_many_reads,
)

if TYPE_CHECKING:
    import ssl

__all__ = ["Address", "Endpoint", "EndpointError", "EndpointOptions", "parse_listen"]

MAX_CONNECTIONS = 8
PAUSE_S = 0.1
_NO_DESCRIPTORS_S = 0.1
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_MAYBE_UNREAD = (400, 405, 408, 431)
"""Refusals of requests of which more may be under way."""

_audit = logging.getLogger("stanch.audit")


class Endpoint:
    """Serves profiles and metrics of this process, and of its relatives.

    requests: the meter that the middleware feeds, None without one.
    budget: gives the state of the agent's budget, or None without one.
    """

    def __init__(
        self,
        options: EndpointOptions,
        *,
        requests: RequestMeter | None,
        budget: Callable[[], BudgetState | None] = lambda: None,
    ) -> None:
        self._options = options
        self._requests = requests
        self._budget = budget
        self._meter = EndpointMeter()
        self._gc_watch = GcWatch(time.monotonic)
        self._start_unix_s = exposition.start_unix_s()
        relatives = Relatives(options.socket_directory, options.token)
        self._memory = MemoryReader(time.monotonic)
        self._routes = Routes(options, relatives, self._families, self._memory)
        self._rate = RateLimit(time.monotonic, READS_PER_SECOND, READS_AT_ONCE)
        self._lock = threading.Lock()
        self._handlers: set[threading.Thread] = set()
        self._served: set[int] = set()  # descriptors of open connections
        self._acceptor: threading.Thread | None = None
        self._listening: Listening | None = None
        self._inode: tuple[int, int] | None = None
        self._tls: ssl.SSLContext | None = None
        self._guard: Guard | None = None
        self._address: Address | None = None
        self._closing = False

    @property
    def address(self) -> str:
        """Where it listens, as "unix:PATH" or "HOST:PORT" with the real port; "" before start."""
        return "" if self._address is None else str(self._address)

    @property
    def cpu_seconds(self) -> float:
        """CPU time that the endpoint took so far."""
        return self._meter.cpu_seconds

    def start(self) -> None:
        """Bind and serve. Raises EndpointError with one sentence when that cannot be.

        Raises daemons.EndingError when the interpreter ends.
        """
        if self._listening is not None:
            raise EndpointError(f"the endpoint listens on {self.address} already; close it first")
        asked = check_listen(self._options)
        self._tls = tls_context(self._options) if asked.path is None else None
        self._closing = False
        self._listen(asked)
        self._guard = Guard(self._options, self._address or asked)
        try:
            self.resume()
        except daemons.EndingError:
            self.close()
            raise
        except RuntimeError as error:
            self.close()
            raise EndpointError(f"this process can have no more threads: {error}") from None

    def pause(self) -> None:
        """Stop accepting and wait, at most PAUSE_S in all, for the threads to end.

        An acceptor whose descriptors the host has closed cannot be woken: it goes on.
        """
        acceptor = self._acceptor
        if acceptor is None or self._listening is None or not self._listening.wake():
            return
        self._acceptor = None
        deadline = time.monotonic() + PAUSE_S
        with self._lock:
            threads = [acceptor]
            # A CPU profile will not end in time, and each fork would wait for it in vain.
            if not self._routes.measuring:
                threads += self._handlers
        for thread in threads:
            _join(thread, deadline)

    def resume(self) -> None:
        """Accept again on the same socket. Does nothing when it does already, or is closed."""
        if self._listening is None or self._acceptor is not None:
            return
        self._listening.settle()
        self._acceptor = daemons.daemon("endpoint", self._accept)
        try:
            daemons.start(self._acceptor)
        except RuntimeError:
            self._acceptor = None
            raise

    def close(self) -> None:
        """Stop serving, and remove the socket file. Does nothing when it does not serve."""
        self._closing = True
        self.pause()
        address = self._address
        if self._listening is None or address is None:
            return
        if address.path is not None and _inode(address.path) == self._inode:
            with contextlib.suppress(OSError):
                Path(address.path).unlink()
        self._close_listening()

    def abandon(self) -> None:
        """Close the descriptors only: in a forked child, where the rest belongs to the parent.

        Those of connections too: a client waits for the end of what a copy keeps open.
        """
        self._close_listening()
        for descriptor in self._served:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._served.clear()

    def _close_listening(self) -> None:
        listening, self._listening, self._acceptor = self._listening, None, None
        if listening is not None:
            listening.close()

    def _listen(self, address: Address) -> None:
        """Bind, and note what was bound. Raises EndpointError."""
        self._listening = Listening(address)
        self._address = self._listening.address
        if self._address.path is not None:
            self._inode = _inode(self._address.path)

    def _listen_again(self, lost: Listening) -> bool:
        """Listen at the same address anew; return whether that is so."""
        lost.close()
        with self._lock, contextlib.suppress(EndpointError):
            if self._listening is lost and self._address is not None and not self._closing:
                self._listen(self._address)
                return True
        return False

    def _accept(self) -> None:
        """Accept until woken; the thread's own work. It also turns the collector's watch."""
        spent_ns = 0
        try:
            # A pause that could not wait for this thread has given its place to another.
            while threading.current_thread() is self._acceptor:
                listening = self._listening
                if listening is None:
                    return
                event = listening.wait(self._gc_watch.tick())
                if event is Event.WOKEN or (
                    event is Event.LOST and not self._listen_again(listening)
                ):
                    return
                if event is Event.CONNECTION:
                    self._accept_one(listening)
                now_ns = time.thread_time_ns()
                self._meter.spent(now_ns - spent_ns)
                spent_ns = now_ns
        finally:
            self._gc_watch.stop()

    def _accept_one(self, listening: Listening) -> None:
        try:
            connection = listening.accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                # The connection stays in the backlog; without a pause this would spin.
                select.select([], [], [], _NO_DESCRIPTORS_S)
            return
        handler = daemons.daemon("connection", self._serve, connection)
        with self._lock:
            free = len(self._handlers) < MAX_CONNECTIONS
            if free:
                self._handlers.add(handler)
        if not free:
            self._turn_away(connection)
            return
        try:
            daemons.start(handler)
        except RuntimeError:
            # The interpreter is ending, or can have no more threads.
            connection.close()
            with self._lock:
                self._handlers.discard(handler)

    def _turn_away(self, connection: socket.socket) -> None:
        """Tell a client that there are too many, without waiting for it."""
        self._meter.read(OTHER, 503)
        with connection, contextlib.suppress(OSError):
            if self._tls is None:
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    connection.recv(65536)
                text = f"{MAX_CONNECTIONS} connections are open; try again later"
                write_answer(connection, Answer.sentence(503, text, {"Retry-After": "1"}))
                connection.shutdown(socket.SHUT_WR)

    def _serve(self, connection: socket.socket) -> None:
        """Serve one connection; the thread's own work. Nothing that happens in it leaves it."""
        descriptor = connection.fileno()
        self._served.add(descriptor)
        try:
            if self._tls is not None:
                connection.settimeout(REQUEST_S)
                connection = self._tls.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
                connection.do_handshake()
            self._exchange(connection)
        except (OSError, ClientGoneError):
            pass  # The client left, or never spoke TLS: nobody is there to be told.
        except Exception:
            # The host's stderr is not ours to write to; the count shows that something is wrong.
            self._meter.read(OTHER, 500)
        finally:
            # First: the number of one that is closed may be the host's a moment later.
            self._served.discard(descriptor)
            connection.close()
            self._meter.spent(time.thread_time_ns())
            with self._lock:
                self._handlers.discard(threading.current_thread())

    def _exchange(self, connection: socket.socket) -> None:
        request = Request("?", "?")
        try:
            request = read_request(connection)
            answer = self._answer(request, connection)
        except AnswerError as error:
            answer = error.answer
        self._record(connection, request, answer)
        write_answer(connection, answer, head_only=request.method == "HEAD")
        if answer.status in _MAYBE_UNREAD:
            linger(connection)

    def _answer(self, request: Request, connection: socket.socket) -> Answer:
        refusal = self._guard.refusal(request) if self._guard is not None else None
        if refusal is not None:
            return refusal
        if not self._rate.take():
            return too_many_reads()
        try:
            return self._routes.answer(
                request, lambda: not self._closing and not is_gone(connection)
            )
        except ClientGoneError:
            raise
        except Exception as error:
            # The host must not see it, and whoever asked should.
            return Answer.sentence(500, f"the agent failed: {type(error).__name__}: {error}")

    def _record(self, connection: socket.socket, request: Request, answer: Answer) -> None:
        """Count a read, and tell the host's log of it."""
        self._meter.read(self._routes.name(request.path), answer.status)
        # A handler of the host may raise whatever it likes.
        with contextlib.suppress(Exception):
            query = {key: text for key, text in request.query.items() if key != "token"}
            _audit.info(
                "%s read %r %r: %d", _peer(connection), request.path[:200], query, answer.status
            )

    def _families(self) -> list[exposition.Family]:
        return exposition.process_families(
            exposition.Facts(
                service=self._options.service,
                instance=self._options.instance,
                release=self._options.release,
                start_unix_s=self._start_unix_s,
                requests=self._requests,
                budget=self._budget(),
                reads=self._meter.reads(),
                endpoint_cpu_s=self._meter.cpu_seconds,
                gc_watched_s=self._gc_watch.watched_seconds,
                memory=self._memory.read(EVERY_S),
            )
        )


def _join(thread: threading.Thread, deadline: float) -> None:
    """Wait until the kernel, too, has done with a thread: CPython counts the kernel's threads."""
    thread.join(max(deadline - time.monotonic(), 0.0))
    path = Path(f"/proc/self/task/{thread.native_id}")
    while not thread.is_alive() and path.exists() and time.monotonic() < deadline:
        time.sleep(0.0005)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _peer(connection: socket.socket) -> str:
    """Say who asks: a process and user on a unix socket, an address and port on TCP."""
    if connection.family == socket.AF_UNIX:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _ = struct.unpack("3i", credentials)
        return f"pid {pid} uid {uid}"
    host, port = connection.getpeername()[:2]
    return f"{host} port {port}"

"""Sends the heap profile of this process to a URL again and again, from a thread of its own.

Every push is one POST of a gzip pprof profile; docs/settings.md has its headers. Nothing is
queued: a profile that could not be sent is dropped and counted, and the next one, which is newer
and cumulative, takes its place after a pause that doubles with each failure. No function raises.
"""

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from stanch.agent import daemons

TIMEOUT_S = 10.0
LONGEST_PAUSE_S = 300.0
JITTER = 0.1  # of each pause, so that the replicas of a service do not push in step
_JOIN_S = 0.1

Post = Callable[[str, Mapping[str, str], bytes], None]


class PushError(Exception):
    """A push was not taken; the message says by whom and why."""


@dataclass(frozen=True, slots=True)
class PushOptions:
    """Where to push, how often in seconds, and what to say about this process."""

    url: str
    every_s: float
    token: str | None = None
    service: str = ""
    instance: str = ""


@dataclass(frozen=True, slots=True)
class PushStats:
    """What became of the pushes of this process so far."""

    sent: int = 0
    dropped: int = 0
    last_error: str | None = None


class Pusher:
    """The pushing thread of a process.

    take: returns the profile to send. post: sends it, raises an exception when it is not taken.
    uniform: a random number of [0, 1) for the jitter.
    """

    def __init__(
        self,
        options: PushOptions,
        take: Callable[[], bytes],
        *,
        post: Post | None = None,
        uniform: Callable[[], float] | None = None,
    ) -> None:
        self._options = options
        self._take = take
        self._post = post or post_once
        # The host's random numbers stay its own, also when it has seeded them.
        self._uniform = uniform or random.SystemRandom().random
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._cpu_ns = 0
        self.stats = PushStats()

    @property
    def cpu_ns(self) -> int:
        """CPU time of the pushes so far."""
        return self._cpu_ns

    def start(self) -> None:
        """Start pushing; the first profile is sent after one period.

        Does nothing when this process can have no more threads; the next `resume` tries again.
        """
        self._stop = threading.Event()
        self._thread = daemons.daemon("push", self._run, self._stop)
        try:
            daemons.start(self._thread)
        except RuntimeError as error:
            self._thread = None
            self.stats = PushStats(self.stats.sent, self.stats.dropped + 1, str(error))

    def pause(self) -> None:
        """Stop before a fork; a push that is under way is left to end by itself."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def resume(self) -> None:
        """Go on after a fork; the period begins anew."""
        self.start()

    def close(self) -> None:
        """Stop for good."""
        self.pause()
        self._thread = None

    def pause_s(self) -> float:
        """Return the time to the next push: doubled with each failure, and jittered."""
        pause_s = self._options.every_s * float(2 ** min(self._failures, 16))
        longest_s = max(self._options.every_s, LONGEST_PAUSE_S)
        return min(pause_s, longest_s) * (1.0 + JITTER * (2.0 * self._uniform() - 1.0))

    def push(self) -> None:
        """Take and send one profile; count what came of it."""
        try:
            self._post(self._options.url, headers(self._options), self._take())
        except Exception as error:
            self._failures += 1
            self.stats = PushStats(self.stats.sent, self.stats.dropped + 1, str(error))
        else:
            self._failures = 0
            self.stats = PushStats(self.stats.sent + 1, self.stats.dropped, None)

    def _run(self, stop: threading.Event) -> None:
        counted_ns = 0
        while not stop.wait(self.pause_s()):
            self.push()
            now_ns = time.thread_time_ns()
            self._cpu_ns += now_ns - counted_ns
            counted_ns = now_ns


def headers(options: PushOptions) -> dict[str, str]:
    """Return the headers of a push."""
    found = {
        "Content-Type": "application/octet-stream",
        "X-Stanch-Service": _latin(options.service),
        "X-Stanch-Instance": _latin(options.instance),
        "X-Stanch-Pid": str(os.getpid()),
        "X-Stanch-Memory": memory_header(),
    }
    if options.token:
        found["Authorization"] = f"Bearer {options.token}"
    return found


def memory_header() -> str:
    """Return what the kernel says of this process and its container now: bytes by name."""
    from stanch.agent.exposition import resident_bytes  # at the first push, as below
    from stanch.sampler.cgroup import group_account

    account = group_account()
    facts = {
        "rss": resident_bytes(),
        "limit": account.memory.limit_bytes if account else None,
        "working_set": account.memory.working_set_bytes if account else None,
    }
    return " ".join(f"{name}={size}" for name, size in facts.items() if size is not None)


def _latin(text: str) -> str:
    """Header values are Latin-1; UTF-8 bytes pass through it unharmed."""
    return text.encode().decode("latin-1")


def post_once(url: str, headers: Mapping[str, str], body: bytes) -> None:
    """POST a body; TLS certificates are verified, redirects not followed.

    Raises PushError when the answer is not 2xx, OSError or HTTPException when there is none.
    """
    import http.client  # at the first push: a host without one does not pay for it

    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_S)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body=body, headers=dict(headers))
        answer = connection.getresponse()
        answer.read(4096)
        if not 200 <= answer.status < 300:
            raise PushError(f"{url} answered {answer.status} {answer.reason}")

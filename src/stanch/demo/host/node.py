"""One node: a command that is started, limited, killed whole and started again.

A node acts as a container does under Kubernetes. When the limit kills one of its processes the
whole node goes; a node that is gone comes back after a pause that doubles with every death.
"""

import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .limits import Enclosure, Limiter
from .processes import has_ended

FIRST_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 8.0
REAP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What a node runs.

    `command` gets the number of the life (1, 2, ...) and returns the argument list; output of
    every life is appended to `log`.
    """

    name: str
    service: str
    command: Callable[[int], list[str]]
    environment: Mapping[str, str]
    directory: Path
    log: Path
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class Started:
    """A node began a life at `at` (seconds of the supervisor's clock)."""

    node: str
    service: str
    life: int
    pid: int
    at: float


@dataclass(frozen=True, slots=True)
class Died:
    """A node's life ended at `at`, `lived_s` after it began.

    `at_limit` tells a death at the memory limit from any other; `how` says it in words;
    `used_bytes` is the last reading before; `status` that of the first process, a signal negative;
    `was_asked` tells that the node was asked to end.
    """

    node: str
    service: str
    life: int
    at: float
    lived_s: float
    at_limit: bool
    how: str
    used_bytes: int
    status: int = 0
    was_asked: bool = False


Event = Started | Died


class Node:
    """A node and its present life. Not thread-safe: the supervisor's thread owns it."""

    def __init__(self, spec: NodeSpec, limiter: Limiter) -> None:
        self.spec = spec
        self.life = 0
        self.used_bytes = 0
        self._limiter = limiter
        self._process: subprocess.Popen[bytes] | None = None
        self._enclosure: Enclosure | None = None
        self._started_at = 0.0
        self._start_again_at = 0.0
        self._backoff_s = FIRST_BACKOFF_SECONDS
        self._asked: threading.Event = threading.Event()
        self._was_asked = False

    def ask_to_end(self) -> None:
        """Have the present life ended by SIGTERM, and the next begun at once. From any thread."""
        self._asked.set()

    def tick(self, now: float) -> Event | None:
        """Look after the node once: start it when due, notice its death. Returns what happened."""
        if self._process is None or self._enclosure is None:
            return self._start(now) if now >= self._start_again_at else None
        if self._asked.is_set():
            self._asked.clear()
            self._was_asked = True
            if not has_ended(self._process.pid):
                self._process.terminate()
        struck = self._enclosure.struck()
        if not struck and not has_ended(self._process.pid):
            self.used_bytes = self._enclosure.used_bytes()
            return None
        return self._bury(self._process, self._enclosure, struck, now)

    def stop(self) -> None:
        """Kill the node for good. Safe to call at any time, and twice."""
        if self._process is not None and self._enclosure is not None:
            self._end(self._process, self._enclosure)
        elif self._enclosure is not None:  # Its command could not be started.
            self._enclosure.remove()
        self._process = self._enclosure = None

    def _start(self, now: float) -> Started:
        self.life += 1
        self._enclosure = self._limiter.enclose(
            f"{self.spec.name}-{self.life}", self.spec.limit_bytes
        )
        with self.spec.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._enclosure.wrap(self.spec.command(self.life)),
                cwd=self.spec.directory,
                env=dict(self.spec.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._enclosure.entered(self._process.pid)
        self._started_at = now
        return Started(self.spec.name, self.spec.service, self.life, self._process.pid, now)

    def _bury(
        self, process: subprocess.Popen[bytes], enclosure: Enclosure, struck: bool, now: float
    ) -> Died:
        # The kernel may count its kill a moment after the process is seen to have ended.
        at_limit = struck or (self._limiter.by_kernel and enclosure.struck())
        status = self._end(process, enclosure)
        self._process = self._enclosure = None
        was_asked, self._was_asked = self._was_asked and not at_limit, False
        if not was_asked:
            self._start_again_at = now + self._backoff_s
            self._backoff_s = min(MAX_BACKOFF_SECONDS, 2 * self._backoff_s)
        return Died(
            node=self.spec.name,
            service=self.spec.service,
            life=self.life,
            at=now,
            lived_s=now - self._started_at,
            at_limit=at_limit,
            how=self._how(at_limit, status),
            used_bytes=self.used_bytes,
            status=status,
            was_asked=was_asked,
        )

    def _end(self, process: subprocess.Popen[bytes], enclosure: Enclosure) -> int:
        """Kill all processes of a life, reap the first, remove its limit; return its status."""
        enclosure.kill()
        status = process.wait(REAP_SECONDS)
        enclosure.remove()
        return status

    def _how(self, at_limit: bool, status: int) -> str:
        if at_limit and self._limiter.by_kernel:
            return "killed by the kernel, out of memory"
        if at_limit:
            return "killed by the supervisor at its limit"
        if status < 0:
            return f"ended by signal {-status} ({signal.strsignal(-status)})"
        return f"ended by itself with status {status}"

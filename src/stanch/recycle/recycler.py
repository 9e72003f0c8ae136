"""The recycler: replicas that are due are taken out, each in a thread of its own.

One recycle is a course of steps: evidence, draining, ending, returning. What fails puts the replica
back into service and stops the recycling of its service until somebody has looked at it. A
recycler that was killed amid a course leaves it on record; the next one puts that replica back into
service. Of several on one data directory only one acts.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from stanch.journal import HolderLock, Journal, JournalError
from stanch.recycle import book
from stanch.recycle.backends import Backend, RecycleError
from stanch.recycle.plan import HOUR_S, Plan, plan
from stanch.recycle.policy import RecyclePolicy
from stanch.recycle.replica import Past, Replica

_POLL_S = 0.2
_CLOSE_S = 10.0
_MOST_EVENTS = 1000


class Surroundings(Protocol):
    """What a recycler needs of the watch around it. Called from threads of courses."""

    def gather(self, service: str, instance: str) -> dict[str, object]:
        """Take what may be wanted afterwards, profile and retention, within a bounded time."""

    def in_flight(self, service: str, instance: str) -> float | None:
        """Requests that are being served there now; None unknown."""

    def taken_out(self, service: str, instance: str, reason: str) -> None:
        """Hear that a replica's end will be asked for now, for the record of deaths; with an empty
        reason, that it is not."""


@dataclass(frozen=True, slots=True)
class RecycleEvent:
    """Something to tell of. what: "begun", "would" (a dry run), or the step a course ended in."""

    at_unix: float
    service: str
    instance: str
    what: str
    text: str


@dataclass(slots=True)
class _Service:
    """What is known of a service; guarded by the recycler's lock."""

    policy: RecyclePolicy
    backend: Backend
    replicas: tuple[Replica, ...] = ()
    looks: int = 0
    ongoing: set[str] = field(default_factory=set)
    held_until_unix: float = 0.0
    plan: Plan = field(default_factory=Plan)
    would: set[tuple[str, str]] = field(default_factory=set)
    oom_unix: float | None = None


class _ClosingError(Exception):
    """The recycler is closing: nobody looks any more, so what is waited for will not be seen."""


class Recycler:
    """Acts by policies. `observe` after each look, from one thread; `close` in the end."""

    def __init__(
        self,
        journal: Journal,
        policies: Sequence[tuple[RecyclePolicy, Backend]],
        surroundings: Surroundings,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """The first policy that matches a service is its policy; others are left alone."""
        self._journal = journal
        self._policies = tuple(policies)
        self._surroundings = surroundings
        self._wall = wall
        self._monotonic = monotonic
        self._sleep = sleep
        self._holder = HolderLock(Path(journal.path).parent, "recycler")
        self._lock = threading.Lock()  # guards services and events
        self._services: dict[str, _Service] = {}
        self._events: deque[RecycleEvent] = deque(maxlen=_MOST_EVENTS)
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._has_looked_back = False

    @property
    def stopped(self) -> Mapping[str, str]:
        """Why services are not recycled any more, by service."""
        with self._lock:
            return {
                name: service.plan.stopped
                for name, service in self._services.items()
                if service.plan.stopped
            }

    def harmless(self, service: str) -> str | None:
        """Return why the leaks of a service do no harm now; None when they do, or may."""
        with self._lock:
            known = self._services.get(service)
            if known is None or known.policy.dry_run or known.plan.stopped:
                return None
            if known.oom_unix is not None and self._wall() - known.oom_unix < HOUR_S:
                return None
        return "it is recycled before its memory limit"

    def note_oom(self, service: str, died_unix: float) -> None:
        """Hear of a death that recycling did not prevent."""
        with self._lock:
            known = self._services.get(service)
            if known is not None:
                known.oom_unix = died_unix

    def take_events(self) -> list[RecycleEvent]:
        """Return what happened since the last call, oldest first."""
        with self._lock:
            taken = list(self._events)
            self._events.clear()
        return taken

    def observe(self, replicas: Sequence[Replica], *, may_begin: bool = True) -> None:
        """Take in the replicas of all services, and begin what is due. Raises JournalError.

        may_begin: False while another server leads; what has begun goes on.
        """
        if self._closing.is_set() or not self._holder.take():
            return
        by_service: dict[str, list[Replica]] = {}
        for replica in replicas:
            by_service.setdefault(replica.service, []).append(replica)
        for name, theirs in by_service.items():
            service = self._service(name)
            if service is not None:
                with self._lock:
                    service.replicas, service.looks = tuple(theirs), service.looks + 1
        if not self._has_looked_back:
            self._look_back()
            self._has_looked_back = True
        for name, service in list(self._services.items()):
            if name in by_service and may_begin:
                self._act(name, service)

    def close(self) -> None:
        """Begin nothing more, and wait a while for what is under way."""
        self._closing.set()
        deadline = self._monotonic() + _CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - self._monotonic()))
        self._holder.close()

    def _service(self, name: str) -> _Service | None:
        with self._lock:
            if name not in self._services:
                for policy, backend in self._policies:
                    if policy.matches(name):
                        self._services[name] = _Service(policy, backend)
                        break
            return self._services.get(name)

    def _look_back(self) -> None:
        """Put back into service what a recycler that was killed had taken out."""
        with self._journal.read() as transaction:
            left = book.under_way(transaction)
        for each in left:
            service = self._service(each.service)
            error = "the recycler ended amid it"
            if service is not None:
                try:
                    service.backend.restore(each.service, each.instance, service.policy.end_s)
                except RecycleError as problem:
                    error += f", and it could not be put back: {problem}"
            with self._journal.write() as transaction:
                book.note(transaction, each.id, "abandoned", self._wall(), error=error)

    def _act(self, name: str, service: _Service) -> None:
        now = self._wall()
        with self._journal.read() as transaction:
            newest = book.recycles(transaction, name, max(100, 2 * service.policy.per_hour))
            failed = book.blocking_failure(transaction, name)
        begun = tuple(each.began_unix for each in newest if each.step != "put off")
        with self._lock:
            past = Past(frozenset(service.ongoing), begun, failed, service.held_until_unix)
            whole = service.backend.whole
            service.plan = plan(service.replicas, past, service.policy, now, whole=whole)
            take = service.plan.take
        for replica, reason in take:
            if service.policy.dry_run:
                self._say_would(service, replica, reason)
            else:
                self._begin(service, replica, reason)

    def _say_would(self, service: _Service, replica: Replica, reason: str) -> None:
        key = (replica.instance, replica.life)
        if key not in service.would:
            service.would.add(key)
            self._tell(replica, "would", f"would be recycled: {reason}")

    def _begin(self, service: _Service, replica: Replica, reason: str) -> None:
        with self._journal.write() as transaction:
            now = self._wall()
            number = book.begin(transaction, replica.service, replica.instance, now, reason)
        with self._lock:
            service.ongoing.add(replica.instance)
        self._tell(replica, "begun", reason)
        thread = threading.Thread(
            target=self._run, args=(service, replica, reason, number), daemon=True
        )
        thread.name = f"recycle-{number}"
        self._threads = [each for each in self._threads if each.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _run(self, service: _Service, replica: Replica, reason: str, number: int) -> None:
        """Run the course of one recycle. Whatever happens, it ends on record."""
        try:
            self._course(service, replica, reason, number)
        except RecycleError as error:
            self._put_back(service, replica, number, error)
        except _ClosingError:
            ended = RecycleError("the recycler ended amid it")
            self._put_back(service, replica, number, ended, "abandoned")
        except JournalError as error:
            self._tell(replica, "failed", str(error))
        except Exception as error:  # A fault of ours must not leave the replica without traffic.
            self._put_back(service, replica, number, RecycleError(repr(error)))
        finally:
            with self._lock:
                service.ongoing.discard(replica.instance)

    def _course(self, service: _Service, replica: Replica, reason: str, number: int) -> None:
        policy, backend = service.policy, service.backend
        name, instance = replica.service, replica.instance
        began = self._monotonic()
        backend.check(name, instance, policy.end_s)
        evidence = self._surroundings.gather(name, instance)
        self._note(number, "draining", evidence=evidence)
        backend.drain(name, instance, policy.drain_s)
        drained = self._monotonic()
        left = self._wait_for_requests(policy, name, instance) if backend.drains else None
        self._note(number, "ending", drain_s=round(self._monotonic() - drained, 2), in_flight=left)
        with self._lock:
            healthy_before = sum(each.healthy for each in service.replicas)
            looks = service.looks
        ending = self._monotonic()
        # Before its end, which a look may notice sooner than the command returns.
        self._surroundings.taken_out(name, instance, reason)
        backend.end(name, instance, policy.end_s)
        self._note(number, "returning", end_s=round(self._monotonic() - ending, 2))
        self._wait_for_return(service, replica, looks, healthy_before)
        backend.restore(name, instance, policy.end_s)
        took_s = round(self._monotonic() - began, 2)
        with self._journal.write() as transaction:
            book.note(transaction, number, "done", self._wall(), took_s=took_s)
        self._tell(replica, "done", f"recycled within {took_s:.0f} s")

    def _wait_for_requests(
        self, policy: RecyclePolicy, service: str, instance: str
    ) -> float | None:
        """Wait until no request is in flight; return how many there are after the longest wait."""
        began = self._monotonic()
        while True:
            left = self._surroundings.in_flight(service, instance)
            waited = self._monotonic() - began
            if left is not None and left <= 0:
                return left
            if waited >= (policy.settle_s if left is None else policy.drain_s):
                return left
            self._pause()

    def _wait_for_return(
        self, service: _Service, replica: Replica, looks: int, healthy_before: int
    ) -> None:
        """Wait until the replica is healthy again, or another healthy one is there in its place."""
        began = self._monotonic()
        while True:
            with self._lock:
                has_looked = service.looks > looks
                found = next(
                    (each for each in service.replicas if each.instance == replica.instance), None
                )
                healthy = sum(each.healthy for each in service.replicas)
            if has_looked and found is None and healthy >= healthy_before:
                return
            if has_looked and found is not None and found.healthy:
                is_new = found.life != replica.life or not found.life
                if is_new or not service.backend.whole:
                    return
            if self._monotonic() - began > service.policy.ready_s:
                raise RecycleError(f"not healthy again after {service.policy.ready_s:g} s")
            self._pause()

    def _pause(self) -> None:
        if self._closing.is_set():
            raise _ClosingError
        self._sleep(_POLL_S)

    def _put_back(
        self,
        service: _Service,
        replica: Replica,
        number: int,
        error: RecycleError,
        step: book.Step = "failed",
    ) -> None:
        text = str(error)
        try:
            service.backend.restore(replica.service, replica.instance, service.policy.end_s)
        except RecycleError as problem:
            text += f"; it could not be put back into service either: {problem}"
        if error.retry_s is not None:
            self._surroundings.taken_out(replica.service, replica.instance, "")
            step = "put off"
            with self._lock:
                service.held_until_unix = self._wall() + error.retry_s
        try:
            with self._journal.write() as transaction:
                book.note(transaction, number, step, self._wall(), error=text)
        except JournalError as problem:
            text += f"; {problem}"
        self._tell(replica, step, text)

    def _note(self, number: int, step: book.Step, **about: object) -> None:
        with self._journal.write() as transaction:
            book.note(transaction, number, step, None, **about)

    def _tell(self, replica: Replica, what: str, text: str) -> None:
        event = RecycleEvent(self._wall(), replica.service, replica.instance, what, text)
        with self._lock:
            self._events.append(event)

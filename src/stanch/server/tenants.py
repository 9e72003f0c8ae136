"""How much may be pushed for one service, and how many services one sender may name.

A service is the tenant of a push: however many senders push for it, its profiles have one bucket,
so that one service cannot take what the others need. Names cost memory, rows and judgements for a
day, so each sender (a token, or an address where no tokens are asked for) may name so many in
WINDOW_S; who invents ever new ones is refused, and those it named before go on.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from stanch.server.audit import AuditLog
from stanch.server.limits import Buckets
from stanch.server.telemetry import Counters

WINDOW_S = 24 * 3600.0
"""As long as the detector judges a service that is not heard of."""
MOST_NAMES = 200_000
"""Names that are remembered of all senders, 100 bytes each; beyond, a sender not heard of for the
longest time is forgotten."""
_SAY_AGAIN_S = 3600.0
_MOST_SAID = 10_000
_LONGEST_WAIT_S = 3600


class TenantError(Exception):
    """A push that is not taken now; the sentence says which limit, wait_s when to come back."""

    def __init__(self, sentence: str, wait_s: int) -> None:
        super().__init__(f"{sentence}; come back in {wait_s} s")
        self.wait_s = wait_s


class Tenants:
    """The limits of all services and senders. May be used from several threads.

    service_rate: profiles a second for one service. sender_services: names that a sender may use in
    WINDOW_S. 0: no limit.
    """

    def __init__(
        self,
        service_rate: float,
        sender_services: int,
        audit: AuditLog,
        counters: Counters,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._buckets = Buckets(service_rate, monotonic)
        self._most = sender_services
        self._audit = audit
        self._counters = counters
        self._monotonic = monotonic
        self._lock = threading.Lock()  # guards all that follows
        self._named: OrderedDict[str, OrderedDict[int, float]] = OrderedDict()
        self._names = 0
        self._said: OrderedDict[tuple[str, str], float] = OrderedDict()

    def admit(self, sender: str, service: str) -> None:
        """Count one profile that a sender pushes for a service. Raises TenantError."""
        wait_s = self._new_name(sender, service)
        if wait_s:
            self._refuse("services", sender, sender)
            raise TenantError(
                f"this sender has named {self._most:,} services in a day, and {service!r} is none"
                " of them; see sender_services in docs/server.md",
                wait_s,
            )
        wait_s = self._buckets.take(service)
        if wait_s:
            self._refuse("service", sender, service)
            raise TenantError(f"too many profiles for the service {service!r}", wait_s)

    def _new_name(self, sender: str, service: str) -> int:
        """0 when the sender may name the service, else the seconds until there may be room."""
        if self._most <= 0:
            return 0
        now_s = self._monotonic()
        # 64 bits of a hash that is keyed anew in each process: short, and not to be guessed.
        name = hash(service)
        with self._lock:
            named = self._named.setdefault(sender, OrderedDict())
            self._named.move_to_end(sender)
            if named.pop(name, None) is None:
                while named and next(iter(named.values())) < now_s - WINDOW_S:
                    named.popitem(last=False)
                    self._names -= 1
                if len(named) >= self._most:
                    free_s = next(iter(named.values())) + WINDOW_S - now_s
                    return max(1, min(_LONGEST_WAIT_S, round(free_s)))
                self._names += 1
            named[name] = now_s
            while self._names > MOST_NAMES and len(self._named) > 1:
                self._names -= len(self._named.popitem(last=False)[1])
        return 0

    def _refuse(self, limit: str, sender: str, key: str) -> None:
        """Count a refusal; the first of its kind in an hour goes into the audit log."""
        self._counters.limited(limit)
        now_s = self._monotonic()
        with self._lock:
            since_s = self._said.get((limit, key))
            if since_s is not None and now_s - since_s < _SAY_AGAIN_S:
                return
            self._said.pop((limit, key), None)
            self._said[limit, key] = now_s
            if len(self._said) > _MOST_SAID:
                self._said.popitem(last=False)
        service = key if limit == "service" else ""
        self._audit.note("limited", limit=limit, sender=sender, service=service)

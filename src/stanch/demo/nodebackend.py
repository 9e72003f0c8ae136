"""How the demo's nodes are recycled: out of the balancer, SIGTERM, in again when they answer.

The balancer is the load generator; what starts a node anew is the supervisor, as an orchestrator
would.
"""

import http.client
import time
from collections.abc import Mapping

from stanch.recycle import RecyclePolicy
from stanch.recycle.backends import RecycleError

from .host.supervisor import Supervisor
from .load.meter import LoadMeter

POLICY = RecyclePolicy(
    service="*",
    lead_s=60.0,
    at=0.55,
    most_at_once=3,
    quorum=0.5,
    spacing_s=0.0,
    per_hour=60,
    drain_s=10.0,
    settle_s=2.0,
    end_s=40.0,
    ready_s=60.0,
)
_POLL_S = 0.1
_PROBE_S = 2.0


class NodeBackend:
    """A Backend for the demo's nodes. addresses: where each takes requests, by its name."""

    whole = True
    drains = True

    def __init__(
        self, supervisor: Supervisor, meter: LoadMeter, addresses: Mapping[str, str]
    ) -> None:
        self._supervisor = supervisor
        self._meter = meter
        self._addresses = addresses

    def check(self, service: str, instance: str, within_s: float) -> None:
        """See Backend: nothing refuses."""

    def drain(self, service: str, instance: str, within_s: float) -> None:
        """See Backend."""
        self._meter.drain(self._addresses[instance])

    def end(self, service: str, instance: str, within_s: float) -> None:
        """See Backend. Returns when the next life has begun."""
        life = self._supervisor.life(instance)
        self._supervisor.recycle(instance)
        deadline = time.monotonic() + within_s
        while self._supervisor.life(instance) == life:
            if time.monotonic() > deadline:
                raise RecycleError(f"{instance} did not end within {within_s:g} s")
            time.sleep(_POLL_S)

    def restore(self, service: str, instance: str, within_s: float) -> None:
        """See Backend. Waits until the node answers, as a readiness probe would."""
        address = self._addresses[instance]
        deadline = time.monotonic() + within_s
        while not answers(address):
            if time.monotonic() > deadline:
                raise RecycleError(f"{instance} does not answer after {within_s:g} s")
            time.sleep(_POLL_S)
        self._meter.restore(address)


def answers(address: str) -> bool:
    """Whether a node says that it is healthy."""
    connection = http.client.HTTPConnection(address, timeout=_PROBE_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

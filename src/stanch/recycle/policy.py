"""When the replicas of a service are recycled, how many at a time, and when it is enough."""

import fnmatch
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RecyclePolicy:
    """The policy of the services whose names match `service`.

    lead_s: a replica that leaks is due so long before its death is likely to come at the soonest.
    at: or when its memory is at this share of its limit. most_at_once: so many at a time. quorum:
    the share of the replicas that must stay healthy, rounded up. spacing_s: between two beginnings.
    per_hour: so many within an hour, then it stops and alarms. drain_s: how long requests in
    flight are waited for; settle_s: how long where their number is not known. end_s: how long an
    end may take. ready_s: how long until the replica is healthy again. dry_run: only say what
    would be done.
    """

    service: str
    lead_s: float = 120.0
    at: float = 0.85
    most_at_once: int = 1
    quorum: float = 0.5
    spacing_s: float = 30.0
    per_hour: int = 12
    drain_s: float = 30.0
    settle_s: float = 5.0
    end_s: float = 60.0
    ready_s: float = 180.0
    dry_run: bool = False

    def matches(self, service: str) -> bool:
        """Whether this is the policy of a service."""
        return fnmatch.fnmatchcase(service, self.service)

    def must_stay(self, replicas: int) -> int:
        """Return how many of so many replicas must be healthy at any time: at least one."""
        return max(1, math.ceil(self.quorum * replicas - 1e-9))

"""What planning looks at: the replicas of a service now, and what was done to them before."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica. healthy: it answered at the last look. leaks: a confirmed leak is in it.

    memory_share: of its limit, None when either is unknown. death_s: seconds until its death, the
    soonest that is likely; None when none is in sight. leak: the title of the finding. life: what
    tells one process from the next; "" unknown.
    """

    service: str
    instance: str
    healthy: bool
    leaks: bool
    memory_share: float | None = None
    death_s: float | None = None
    leak: str = ""
    life: str = ""


@dataclass(frozen=True, slots=True)
class Past:
    """What was done to a service before; times are Unix seconds.

    ongoing: instances whose recycling has begun and not ended. begun_unix: the beginnings of the
    last hour. failed: why the last one failed, "" when it did not; nothing more is done until
    somebody looks at it. held_until_unix: a back end has asked to wait.
    """

    ongoing: frozenset[str] = frozenset()
    begun_unix: tuple[float, ...] = ()
    failed: str = ""
    held_until_unix: float = 0.0

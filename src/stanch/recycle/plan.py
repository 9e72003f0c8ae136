"""Which replicas of a service to take out now, and why not more. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from stanch.detect import time_text
from stanch.recycle.policy import RecyclePolicy
from stanch.recycle.replica import Past, Replica

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """take: the replicas to take out now, with the reason for each. held: why those that are due
    are not all taken, "" when they are. stopped: recycling has stopped for good, until somebody
    looks at it: the budget is used up, or it failed."""

    take: tuple[tuple[Replica, str], ...] = ()
    held: str = ""
    stopped: str = ""


def plan(
    replicas: Sequence[Replica],
    past: Past,
    policy: RecyclePolicy,
    now_unix: float,
    *,
    whole: bool = True,
) -> Plan:
    """Return what to do now with the replicas of one service.

    The one that dies first goes first. A replica is never taken out while as many are out as the
    policy allows, or while fewer would stay healthy than it demands. whole: False where only one
    worker of a replica goes, which serves on with its others.
    """
    due = sorted(
        (
            (replica, reason)
            for replica in replicas
            if replica.instance not in past.ongoing and (reason := why_due(replica, policy))
        ),
        key=lambda each: _urgency(each[0]),
    )
    if past.failed:
        return Plan(stopped=f"the last one failed: {past.failed}")
    if not due:
        return Plan()
    within = [begun for begun in past.begun_unix if now_unix - HOUR_S < begun <= now_unix]
    if len(within) >= policy.per_hour:
        return Plan(
            stopped=f"{len(within)} replicas were recycled within the hour, which is the budget"
        )
    if now_unix < past.held_until_unix:
        return Plan(held=f"asked to wait {time_text(past.held_until_unix - now_unix)} more")
    since_s = now_unix - max(within, default=float("-inf"))
    if since_s < policy.spacing_s:
        return Plan(held=f"the next one may begin in {time_text(policy.spacing_s - since_s)}")
    room = policy.most_at_once - len(past.ongoing)
    if room <= 0:
        return Plan(held=f"{len(past.ongoing)} are out already")
    healthy = sum(each.healthy and each.instance not in past.ongoing for each in replicas)
    spare = healthy - policy.must_stay(len(replicas))
    spare = spare if whole else room
    if spare <= 0:
        must = policy.must_stay(len(replicas))
        return Plan(held=f"{healthy} of {len(replicas)} are healthy, and {must} must stay so")
    # Where they are spaced out one begins at a time; the next look takes the next.
    most = min(room, spare, policy.per_hour - len(within), 1 if policy.spacing_s > 0 else room)
    held = "" if len(due) <= most else f"{len(due) - most} more are due"
    return Plan(take=tuple(due[:most]), held=held)


def why_due(replica: Replica, policy: RecyclePolicy) -> str:
    """Return why a replica should be taken out, "" when it should not.

    Only one that leaks and answers: a new process helps nothing where nothing leaks, and one that
    does not answer is not ours to judge.
    """
    if not (replica.leaks and replica.healthy):
        return ""
    if replica.death_s is not None and replica.death_s <= policy.lead_s:
        return f"at its limit in {time_text(replica.death_s)}: {replica.leak}"
    if replica.memory_share is not None and replica.memory_share >= policy.at:
        return f"at {replica.memory_share:.0%} of its limit: {replica.leak}"
    return ""


def _urgency(replica: Replica) -> tuple[float, float, str]:
    death_s = float("inf") if replica.death_s is None else replica.death_s
    return (death_s, -(replica.memory_share or 0.0), replica.instance)

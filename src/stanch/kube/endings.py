"""Ends of containers, found by comparing a pod with what it was before. Pure.

The kubelet tells them by its node's clock, which may be wrong. What was heard live has just
happened, so a time that is far from now is replaced by ours; what happened while nobody listened
lies between when the copy was last up to date and now. How long a container ran is a difference of
one clock, and right.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from stanch.kube.annotations import Watched
from stanch.kube.pod import Ending, Pod
from stanch.kube.reflector import Change

Siblings: TypeAlias = Callable[[], Sequence[Pod]]
"""Gives the pods that have the same owner."""

LATE_S = 10.0
"""So long after it a container's end is told at the latest, while everything works."""


@dataclass(frozen=True, slots=True)
class ContainerEnd:
    """The end of a watched container. died_unix: by our clock.

    identity: the same for the same end, and for no other. oom_killed: None where nobody tells.
    status: the exit code; None unknown. evicted: why its node put the pod out. deployed: from which
    version to which.
    """

    service: str
    instance: str
    identity: str
    died_unix: float
    uptime_s: float | None = None
    oom_killed: bool | None = None
    status: int | None = None
    evicted: str = ""
    deployed: str = ""
    limit_bytes: int | None = None


def endings_of(
    change: Change[Pod], watched: Watched, siblings: Siblings, now_unix: float
) -> list[ContainerEnd]:
    """Return what of a change is the end of the container that is watched."""
    pod = change.new or change.old
    if pod is None or not watched.target.service:
        return []
    name = watched.container.name
    before, now = _container_ends(change.old, name), _container_ends(change.new, name)
    fresh = [end for key, end in now.items() if key not in before]
    found = [_told(end, pod, watched, siblings, change, now_unix) for end in fresh]
    if change.old is not None and change.new is not None:
        first = _count_of_ends(change.old, name)
        missed = _count_of_ends(change.new, name) - first - len(fresh)
        # The kubelet tells the last end only; of others it is known that they were.
        for number in range(first, first + max(0, min(missed, 100))):
            when = _by_our_clock(None, change, now_unix)
            found.insert(0, _end(watched, f"{pod.uid}/{name}/{number}", when))
    was_evicted = change.new is not None and change.old is not None and _is_put_out(change)
    is_gone = change.new is None and change.old is not None and not _has_ended(change.old, name)
    if is_gone or (was_evicted and not found):
        when = _by_our_clock(None, change, now_unix)
        deployed = "" if pod.evicted else deployment_of(pod, siblings())
        gone = _end(watched, f"{pod.uid}/{name}/gone", when, deployed=deployed, evicted=pod.evicted)
        found.append(gone)
    return found


def deployment_of(pod: Pod, siblings: Sequence[Pod]) -> str:
    """Say from which version to which a pod is being replaced; "" when it is not.

    It is when its owner has made pods of another template since.
    """
    newer = [
        each
        for each in siblings
        if each.uid != pod.uid
        and each.template
        and each.template != pod.template
        and each.created_unix >= pod.created_unix
        and not each.leaving
    ]
    if not newer or not pod.template:
        return ""
    newest = max(newer, key=lambda each: each.created_unix)
    if pod.version and newest.version and pod.version != newest.version:
        return f"{pod.version} to {newest.version}"
    return f"template {pod.template} to {newest.template}"


def _told(
    end: Ending,
    pod: Pod,
    watched: Watched,
    siblings: Siblings,
    change: Change[Pod],
    now_unix: float,
) -> ContainerEnd:
    ran_s = None
    if end.started_unix is not None and end.finished_unix is not None:
        ran_s = max(0.0, end.finished_unix - end.started_unix)
    return _end(
        watched,
        end.container_id,
        _by_our_clock(end.finished_unix, change, now_unix),
        uptime_s=ran_s,
        oom_killed=True if end.oom_killed else None,
        status=end.exit_code,
        deployed=deployment_of(pod, siblings()) if pod.leaving and not pod.evicted else "",
        evicted=pod.evicted,
    )


def _end(watched: Watched, identity: str, died_unix: float, **known: object) -> ContainerEnd:
    target = watched.target
    return ContainerEnd(
        target.service,
        target.instance,
        identity,
        died_unix,
        limit_bytes=watched.container.limit_bytes,
        **known,  # type: ignore[arg-type]
    )


def _by_our_clock(told_unix: float | None, change: Change[Pod], now_unix: float) -> float:
    if told_unix is None:
        return now_unix
    if change.live:
        return told_unix if now_unix - LATE_S <= told_unix <= now_unix else now_unix
    return min(max(told_unix, change.known_unix), now_unix)


def _container_ends(pod: Pod | None, name: str) -> dict[str, Ending]:
    found = (each for each in (pod.containers if pod else ()) if each.name == name)
    return {end.container_id: end for each in found for end in each.endings}


def _count_of_ends(pod: Pod, name: str) -> int:
    """How often a container has ended: its restarts, and once more while it waits for the next."""
    container = next((each for each in pod.containers if each.name == name), None)
    if container is None:
        return 0
    return container.restarts + bool(not container.running and container.endings)


def _is_put_out(change: Change[Pod]) -> bool:
    """Whether the node has put the pod out, of whose containers it then tells nothing more."""
    return bool(change.new and change.new.evicted and change.old and not change.old.evicted)


def _has_ended(pod: Pod, name: str) -> bool:
    """Whether its container is known to run no more, its end told."""
    return any(each.name == name and not each.running and each.endings for each in pod.containers)

"""Ends of containers from two states of a pod: kinds, clocks that are wrong, deployments, gaps."""

import time
from typing import Any

import pytest

from stanch.collect import TargetDefaults
from stanch.kube.annotations import PREFIXES, watched_of
from stanch.kube.endings import ContainerEnd, deployment_of, endings_of
from stanch.kube.pod import Pod, pod_of
from stanch.kube.reflector import Change
from tests.kube.apiserver import Object
from tests.kube.samples import pod, restarted, stamp, terminated

NOW = 1_700_000_000.0


def read(value: Object) -> Pod:
    return pod_of(value, PREFIXES)


def ends(
    old: Object | None,
    new: Object | None,
    *,
    live: bool = True,
    known: float = NOW - 900,
    siblings: tuple[Object, ...] = (),
) -> list[ContainerEnd]:
    """The ends that a change tells at NOW."""
    value = new or old
    assert value is not None
    watched = watched_of(read(value), TargetDefaults()) or watched_of(read(pod()), TargetDefaults())
    assert watched is not None
    change = Change(read(old) if old else None, read(new) if new else None, live, known)
    return endings_of(change, watched, lambda: [read(each) for each in siblings], NOW)


def again(restarts: int, last: Object, **about: Any) -> Object:
    value = pod(uid="u1", **about)
    restarted(value, restarts, last)
    return value


def test_an_oom_kill_and_a_crash() -> None:
    """As the kubelet tells them, with the code, how long it ran, and the limit."""
    (end,) = ends(pod(uid="u1"), again(1, terminated("a", ended_unix=NOW - 2)))
    assert (end.service, end.instance, end.identity) == (
        "shop",
        "shop/shop-7d9c-x1",
        "containerd://a",
    )
    assert (end.oom_killed, end.status, end.died_unix, end.uptime_s) == (True, 137, NOW - 2, 60)
    assert end.limit_bytes == 256 * 1024**2
    (end,) = ends(pod(uid="u1"), again(1, terminated("a", 139, "Error", NOW)))
    assert (end.oom_killed, end.status) == (None, 139)


def test_the_same_end_is_told_once() -> None:
    """It moves from the state to the last state, and the restarts rise: one end."""
    crashed = pod(uid="u1")
    end = terminated("a", ended_unix=NOW)
    crashed["status"]["containerStatuses"][0]["state"] = {"terminated": end}
    assert len(ends(pod(uid="u1"), crashed)) == 1
    waiting = again(0, end)
    waiting["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
    assert ends(crashed, waiting) == []
    assert ends(waiting, again(1, end)) == []
    assert ends(again(1, end), again(1, end, version="2")) == []


def test_ends_between_two_states_are_not_lost() -> None:
    """Of three restarts the kubelet tells the last; the others ended unseen, in between."""
    found = ends(pod(uid="u1"), again(3, terminated("c", ended_unix=NOW)))
    assert [end.identity for end in found] == ["u1/app/1", "u1/app/0", "containerd://c"]
    assert [end.status for end in found] == [None, None, 137]


@pytest.mark.parametrize(
    ("off_s", "live", "known", "died"),
    [
        (-3.0, True, NOW - 900, NOW - 3),  # a clock that is right
        (300.0, True, NOW - 900, NOW),  # a node five minutes ahead
        (-300.0, True, NOW - 900, NOW),  # and one behind
        (-300.0, False, NOW - 900, NOW - 300),  # heard of after an outage: it may be so
        (-5000.0, False, NOW - 900, NOW - 900),  # it ran when the server was last heard of
        (300.0, False, NOW - 900, NOW),
        (-5000.0, False, 0.0, NOW - 5000),  # from before Stanch was there
    ],
)
def test_clocks_of_nodes_that_differ(off_s: float, live: bool, known: float, died: float) -> None:
    """What was heard live has just happened; else the time lies within what is known."""
    told = again(1, terminated("a", ended_unix=NOW + off_s))
    (end,) = ends(pod(uid="u1"), told, live=live, known=known)
    assert end.died_unix == died
    assert end.uptime_s == 60


def test_a_pod_that_is_deleted() -> None:
    """An end that the kubelet told before is not told again; without one it ended unseen."""
    (end,) = ends(pod(uid="u1"), None)
    assert (end.identity, end.status, end.died_unix) == ("u1/app/gone", None, NOW)
    done = pod(uid="u1")
    state = {"terminated": terminated("a", 0, "Completed", NOW)}
    done["status"]["containerStatuses"][0]["state"] = state
    assert ends(done, None) == []


def test_a_deployment_is_told_from_a_deletion() -> None:
    """Its owner has newer pods of another template: by versions where they differ."""
    leaving = again(0, terminated("a", 143, "Error", NOW), deletionTimestamp=stamp(NOW))
    newer = pod("shop-new", template="99aa", version="1.5.0", creationTimestamp=stamp(time.time()))
    (end,) = ends(pod(uid="u1"), leaving, siblings=(newer,))
    assert end.deployed == "1.4.0 to 1.5.0"
    newer["metadata"]["labels"]["app.kubernetes.io/version"] = "1.4.0"
    assert deployment_of(read(leaving), [read(newer)]) == "template 7d9c to 99aa"
    same = pod("shop-other")
    assert deployment_of(read(leaving), [read(same)]) == ""
    older = pod("shop-old", template="11aa", creationTimestamp=stamp(time.time() - 9000))
    assert deployment_of(read(leaving), [read(older)]) == ""
    (end,) = ends(pod(uid="u1"), None, siblings=(newer,))
    assert end.deployed == "template 7d9c to 99aa"


def test_an_eviction_by_the_node() -> None:
    """It tells no container's state any more, only why."""
    out = pod(uid="u1")
    out["status"] = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: memory.",
    }
    (end,) = ends(pod(uid="u1"), out)
    assert (end.evicted, end.died_unix) == ("The node was low on resource: memory.", NOW)
    assert ends(out, out) == []

"""Objects as an API server gives them, and a wait for what must come about."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from stanch.kube import Cluster, KubeSession, KubeTargets
from tests.kube.apiserver import ApiServer, Object, Running, stamp

PATIENCE_S = 120.0
OWN = {"stanch.dev/scrape": "true", "stanch.dev/port": "6060"}


def pod(
    name: str = "shop-7d9c-x1",
    *,
    namespace: str = "shop",
    annotations: dict[str, str] | None = None,
    limit: str | None = "256Mi",
    template: str = "7d9c",
    version: str = "1.4.0",
    ip: str = "127.0.0.1",
    owner: str = "shop",
    **about: Any,
) -> Object:
    """A pod of the Deployment shop, which runs on node n1 since an hour."""
    resources = {"limits": {"memory": limit}} if limit else {}
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"pod-template-hash": template, "app.kubernetes.io/version": version},
            "annotations": {
                "other.example/x": "y",
                **(OWN if annotations is None else annotations),
            },
            "ownerReferences": [
                {"kind": "ReplicaSet", "name": f"{owner}-{template}", "controller": True}
            ],
            "creationTimestamp": stamp(time.time() - 3600),
            **about,
        },
        "spec": {
            "nodeName": "n1",
            "containers": [
                {
                    "name": "app",
                    "image": "registry.example:5000/shop:1.4.0",
                    "resources": resources,
                    "ports": [{"name": "web", "containerPort": 8080}],
                }
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": ip,
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {
                    "name": "app",
                    "restartCount": 0,
                    "state": {"running": {"startedAt": stamp(time.time() - 3600)}},
                    "lastState": {},
                }
            ],
        },
    }


def terminated(
    identity: str, code: int = 137, reason: str = "OOMKilled", ended_unix: float | None = None
) -> Object:
    """What the kubelet tells of the end of a container, after a minute by default."""
    ended = time.time() if ended_unix is None else ended_unix
    return {
        "containerID": f"containerd://{identity}",
        "exitCode": code,
        "reason": reason,
        "startedAt": stamp(ended - 60),
        "finishedAt": stamp(ended),
    }


def restarted(value: Object, restarts: int, last: Object) -> None:
    """Change a pod as its kubelet does when its container is running again."""
    (status,) = value["status"]["containerStatuses"]
    status["restartCount"] = restarts
    status["lastState"] = {"terminated": last}
    status["state"] = {"running": {"startedAt": stamp(time.time())}}


def until(condition: Callable[[], object], what: object = "") -> None:
    """Wait for a condition; fail after a time longer than anything takes."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.02)


@contextmanager
def serving(**settings: Any) -> Iterator[Running]:
    """An API server until the end of the block."""
    running = Running(ApiServer(**settings))
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def discovering(api: ApiServer, *namespaces: str, **settings: Any) -> Iterator[KubeTargets]:
    """Discovery at an API server, begun."""
    cluster = Cluster(api.url, "shop", **settings)
    with KubeSession(cluster) as session:
        targets = KubeTargets(session, namespaces or ("shop",))
        targets.begin(PATIENCE_S)
        yield targets

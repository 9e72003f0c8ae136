"""Stanch at a real API server in tests: by its service account, with the rights of the chart."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from stanch.kube import KubeSession, KubeTargets
from tests.kube.real import Object, RealServer, RefusedError
from tests.kube.samples import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
PLAIN = ROOT / "deploy/kubernetes"
PODS = "/api/v1/namespaces/shop/pods"
RIGHTS = ("ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")
EVICTION: Object = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "evict"},
    "rules": [{"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]}],
}


def documents(path: Path) -> list[Object]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


@contextmanager
def session_of(server: RealServer, **about: str) -> Iterator[KubeSession]:
    """Stanch's own connection, by default as its service account."""
    about = about or {"token": server.token("stanch", "stanch")}
    with KubeSession(server.cluster(**about)) as session:
        yield session


@contextmanager
def watching(session: KubeSession, *namespaces: str) -> Iterator[KubeTargets]:
    targets = KubeTargets(session, namespaces or ("shop",))
    targets.begin(PATIENCE_S)
    yield targets


def instances(targets: KubeTargets) -> list[str]:
    return [each.instance for each in targets.targets()]


def status_of(server: RealServer, method: str, path: str, token: str, body: object = None) -> int:
    try:
        server.ask(method, path, body if isinstance(body, dict) else None, token=token)
    except RefusedError as refused:
        return refused.status
    return 200


def allow_evictions(server: RealServer) -> None:
    """The right that the chart gives where recycling is no dry run."""
    server.create(EVICTION)
    server.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "evict"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "evict",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "stanch", "namespace": "stanch"}],
        }
    )


def named(namespace: str, name: str) -> Object:
    """The metadata of an object."""
    return {"namespace": namespace, "name": name}

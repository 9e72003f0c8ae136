"""What is read of pods: limits, owners, versions, ends; and which of them are watched, where."""

from typing import Any

import pytest

from stanch.collect import TargetDefaults
from stanch.kube.annotations import PREFIXES, AnnotationError, watched_of
from stanch.kube.node import node_of
from stanch.kube.pod import Pod, pod_of
from stanch.kube.quantity import quantity
from tests.kube.apiserver import Object
from tests.kube.samples import OWN, pod, restarted, terminated

NOTHING = TargetDefaults()


def read(value: Object) -> Pod:
    """The pod as discovery reads it."""
    return pod_of(value, PREFIXES)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("128974848", 128974848),
        ("129e6", 129e6),
        ("129M", 129e6),
        ("123Mi", 123 * 1024**2),
        ("1.5Gi", 1.5 * 1024**3),
        ("2E", 2e18),
        ("2Ei", 2 * 1024**6),
        ("12E2", 1200),
        ("100m", 0.1),
        (".5k", 500),
        (7, 7),
        ("lots", None),
        ("12Mib", None),
        ("", None),
        (None, None),
    ],
)
def test_a_quantity(text: object, number: float | None) -> None:
    """Each form of Kubernetes' quantities; anything else is none."""
    assert quantity(text) == (None if number is None else pytest.approx(number))


def test_a_pod_of_a_deployment() -> None:
    """Its owner is the Deployment, by the ReplicaSet's name; other annotations are left out."""
    known = read(pod())
    assert (known.owner_kind, known.owner, known.template) == ("Deployment", "shop", "7d9c")
    assert (known.namespace, known.version, known.node) == ("shop", "1.4.0", "n1")
    assert known.ready and not known.leaving
    assert dict(known.annotations) == OWN
    (container,) = known.containers
    assert (container.limit_bytes, container.ports) == (256 * 1024**2, (("web", 8080),))
    assert container.running and container.endings == ()


def test_other_owners_and_none() -> None:
    """A StatefulSet is the owner itself; a ReplicaSet that no Deployment made, too."""
    value = pod()
    value["metadata"]["ownerReferences"] = [
        {"kind": "Other", "name": "looks on"},
        {"kind": "StatefulSet", "name": "db", "controller": True},
    ]
    assert (read(value).owner_kind, read(value).owner) == ("StatefulSet", "db")
    value["metadata"]["labels"] = {"controller-revision-hash": "db-5f"}
    value["metadata"]["ownerReferences"] = [
        {"kind": "ReplicaSet", "name": "bare-1", "controller": True}
    ]
    assert (read(value).owner_kind, read(value).owner) == ("ReplicaSet", "bare-1")
    assert (read(value).template, read(value).version) == ("db-5f", "1.4.0")  # of the image
    del value["metadata"]["ownerReferences"]
    value["spec"]["containers"][0]["image"] = "registry.example:5000/shop@sha256:ab"
    assert (read(value).owner, read(value).version) == ("", "")


def test_limits_of_containers_pods_and_none() -> None:
    """The kubelet's word goes first, then the container's, then the pod's, then None."""
    assert read(pod(limit=None)).containers[0].limit_bytes is None
    value = pod(limit=None)
    value["spec"]["resources"] = {"limits": {"memory": "1Gi"}}
    assert read(value).containers[0].limit_bytes == 1024**3
    value["status"]["containerStatuses"][0]["resources"] = {"limits": {"memory": "2Gi"}}
    assert read(value).containers[0].limit_bytes == 2 * 1024**3


def test_ends_of_containers() -> None:
    """The last end and a present one are both told, with code, reason and times."""
    value = pod()
    restarted(value, 3, terminated("a", ended_unix=1_700_000_000))
    value["status"]["containerStatuses"][0]["state"] = {"terminated": terminated("b", 1, "Error")}
    (container,) = read(value).containers
    first, second = container.endings
    assert (first.container_id, first.oom_killed, first.exit_code) == ("containerd://a", True, 137)
    assert first.finished_unix == 1_700_000_000 and first.started_unix == 1_699_999_940
    assert (second.container_id, second.oom_killed) == ("containerd://b", False)
    assert (container.restarts, container.running) == (3, False)


@pytest.mark.parametrize(
    ("annotations", "url"),
    [
        (OWN, "http://127.0.0.1:6060"),
        ({**OWN, "stanch.dev/path": "/internal/debug/pprof"}, "http://127.0.0.1:6060/internal"),
        ({**OWN, "stanch.dev/scheme": "https"}, "https://127.0.0.1:6060"),
        ({"stanch.dev/scrape": "true"}, "http://127.0.0.1:8080"),
        ({"stanch.dev/scrape": "yes", "stanch.dev/port": "web"}, "http://127.0.0.1:8080"),
        (
            {
                "profiles.grafana.com/memory.scrape": "true",
                "profiles.grafana.com/memory.port_name": "web",
                "profiles.grafana.com/memory.path": "/admin/debug/pprof/allocs",
            },
            "http://127.0.0.1:8080/admin",
        ),
        ({"pyroscope.io/scrape": "true", "pyroscope.io/port": "7000"}, "http://127.0.0.1:7000"),
        (
            {"coroot.com/profile-scrape": "true", "coroot.com/profile-port": "7001"},
            "http://127.0.0.1:7001",
        ),
        (
            {
                "prometheus.io/scrape": "true",
                "prometheus.io/port": "9090",
                "prometheus.io/path": "/app/metrics",
                "prometheus.io/scheme": "https",
            },
            "https://127.0.0.1:9090/app",
        ),
        ({"prometheus.io/scrape": "true", "stanch.dev/scrape": "false"}, None),
        ({"prometheus.io/scrape": "false"}, None),
        ({}, None),
    ],
)
def test_who_is_watched_and_where(annotations: dict[str, str], url: str | None) -> None:
    """The annotations of each tool; the own ones go first, and may say no."""
    watched = watched_of(read(pod(annotations=annotations)), NOTHING)
    assert (watched.target.base_url if watched else None) == url


@pytest.mark.parametrize(
    ("annotations", "says"),
    [
        ({**OWN, "stanch.dev/port": "gone"}, "stanch.dev/port is 'gone'"),
        ({**OWN, "stanch.dev/port": "70000"}, "expected a number or a port's name"),
        ({**OWN, "stanch.dev/scheme": "gopher"}, "stanch.dev/scheme is 'gopher'"),
        ({**OWN, "stanch.dev/container": "x"}, "stanch.dev/container is 'x'"),
    ],
)
def test_annotations_that_cannot_be_used(annotations: dict[str, str], says: str) -> None:
    """Each is one sentence."""
    with pytest.raises(AnnotationError, match=says):
        watched_of(read(pod(annotations=annotations)), NOTHING)


def test_the_target_of_a_pod() -> None:
    """Instance, service, limit; a token goes over TLS only; a name for the certificate."""
    defaults = TargetDefaults(token_file="/run/token", ca_file="/ca.pem", limit_bytes=5)
    watched = watched_of(read(pod()), defaults)
    assert watched is not None
    target = watched.target
    assert (target.instance, target.service) == ("shop/shop-7d9c-x1", "shop")
    assert (target.limit_bytes, target.token_file) == (256 * 1024**2, None)
    told = {**OWN, "stanch.dev/scheme": "https", "stanch.dev/tls-name": "shop.internal"}
    told["stanch.dev/service"] = "cart"
    value = pod(annotations=told, limit=None, ip="fd00::7")
    watched = watched_of(read(value), defaults, several=True)
    assert watched is not None
    target = watched.target
    assert target.base_url == "https://[fd00::7]:6060"
    assert (target.token_file, target.tls_name) == ("/run/token", "shop.internal")
    assert (target.limit_bytes, target.service) == (5, "shop/cart")


def test_the_container_that_answers() -> None:
    """The one with the port, or else the main one."""
    value = pod()
    proxy: dict[str, Any] = {"name": "proxy", "ports": [{"containerPort": 15000}]}
    value["spec"]["containers"].insert(0, proxy)
    value["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] = "app"
    watched = watched_of(read(value), NOTHING)
    assert watched is not None and watched.container.name == "app"
    proxy["ports"][0]["containerPort"] = 6060
    watched = watched_of(read(value), NOTHING)
    assert watched is not None and watched.container.name == "proxy"
    value["metadata"]["annotations"]["stanch.dev/container"] = "app"
    watched = watched_of(read(value), NOTHING)
    assert watched is not None and watched.container.name == "app"


def test_a_pod_without_an_address_is_not_watched_yet() -> None:
    """Nor one that has ended."""
    assert watched_of(read(pod(ip="")), NOTHING) is None
    value = pod()
    value["status"]["phase"] = "Succeeded"
    assert watched_of(read(value), NOTHING) is None


def test_memory_pressure_of_a_node() -> None:
    """Only the condition MemoryPressure that is True counts."""
    conditions = [{"type": "Ready", "status": "True"}, {"type": "MemoryPressure", "status": "True"}]
    value = {"metadata": {"name": "n1"}, "status": {"conditions": conditions}}
    assert node_of(value).pressed
    conditions[1]["status"] = "False"
    assert not node_of(value).pressed


@pytest.mark.parametrize("value", [{}, {"metadata": {}, "status": {"containerStatuses": [7]}}])
def test_an_odd_object_is_no_fault(value: Object) -> None:
    """What is missing is unknown."""
    assert watched_of(read(value), NOTHING) is None

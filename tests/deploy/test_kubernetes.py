"""The Helm chart and the manifests: valid by Kubernetes' schemas, restricted, with least rights."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from stanch.cli.main import build_parser
from stanch.kube import Cluster, KubeSession, KubeTargets, Leadership
from stanch.kube.eviction import evict, is_there
from tests.collect.answers import Answer
from tests.collect.answers import serving as answering
from tests.kube.samples import PATIENCE_S, pod, serving, until

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/stanch"
PLAIN = ROOT / "deploy/kubernetes"
HELM = shutil.which("helm")
needs_helm = pytest.mark.skipif(
    HELM is None, reason="no helm (go install helm.sh/helm/v3/cmd/helm@v3.22.0)"
)
VERSIONS = ("1.30", kubernetes_validate.latest_version())
RECYCLE = '[[service]]\nservice = "shop"\nbackend = "kubernetes"\n'

Manifest = dict[str, Any]


def helm(*arguments: str | Path, code: int = 0) -> str:
    """Run helm; its output is the message when it ends otherwise than it should."""
    assert HELM is not None
    command = [HELM, *map(str, arguments)]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert outcome.returncode == code, outcome.stdout + outcome.stderr
    return outcome.stdout if code == 0 else outcome.stderr


def rendered(**values: object) -> list[Manifest]:
    """The objects of the chart."""
    return list(filter(None, yaml.safe_load_all(render(**values))))


def render(**values: object) -> str:
    given = [part for key, value in values.items() for part in ("--set-json", _assign(key, value))]
    return helm("template", "stanch", CHART, "-n", "stanch", "--kube-version", "1.30", *given)


def _assign(key: str, value: object) -> str:
    return f"{key.replace('_', '.')}={json.dumps(value)}"


def check(manifests: list[Manifest]) -> None:
    """Each is valid by the schema of the oldest and newest Kubernetes, unknown fields refused."""
    assert manifests
    for manifest in manifests:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


def pods(manifests: list[Manifest]) -> list[Manifest]:
    """The pods' specifications of workloads."""
    kinds = ("Deployment", "StatefulSet")
    return [each["spec"]["template"]["spec"] for each in manifests if each["kind"] in kinds]


def check_restricted(spec: Manifest) -> None:
    """What Pod Security `restricted` demands, as far as it concerns these, and a little more.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    """
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        assert not spec.get(key)
    of_pod = spec["securityContext"]
    assert of_pod["runAsNonRoot"] is True and of_pod["runAsUser"] > 0
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    for volume in spec["volumes"]:
        assert set(volume) - {"name"} <= allowed
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["readOnlyRootFilesystem"] is True
        assert not own.get("privileged") and own.get("runAsNonRoot", True)
        assert not any("hostPort" in port for port in container.get("ports", ()))
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("path", sorted(PLAIN.glob("*.yaml")), ids=lambda path: path.name)
def test_the_plain_manifests_are_valid_and_restricted(path: Path) -> None:
    """With their probes, and a black box that outlives the container."""
    manifests = list(filter(None, yaml.safe_load_all(path.read_text())))
    check(manifests)
    (spec,) = pods(manifests)
    check_restricted(spec)
    assert any("emptyDir" in volume for volume in spec["volumes"])
    assert all("readinessProbe" in each for each in spec["containers"])


def test_a_manifest_that_is_wrong_is_noticed() -> None:
    """The validator refuses a field that does not exist, and a value of another type."""
    (first, *_) = yaml.safe_load_all((PLAIN / "python.yaml").read_text())
    first["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        check([first])
    del first["spec"]["replica"]
    first["spec"]["replicas"] = "three"
    with pytest.raises(kubernetes_validate.ValidationError):
        check([first])


@needs_helm
def test_the_chart_is_sound() -> None:
    """As helm itself judges it."""
    helm("lint", "--strict", "--kube-version", "1.30", CHART)


@needs_helm
def test_the_plain_manifest_is_the_chart_s(update: bool) -> None:
    """deploy/kubernetes/stanch.yaml is what the chart renders for all namespaces."""
    text = render(namespaces=["*"], recycle=RECYCLE, dryRun=True)
    text = re.sub(r"(?m)^# Source: .*\n", "", text).replace(
        "managed-by: Helm", "managed-by: kubectl"
    )
    head = (
        "# Rendered from deploy/helm/stanch: all namespaces are watched, recycling is a dry run.\n"
        "# kubectl create namespace stanch && kubectl apply -f deploy/kubernetes/stanch.yaml\n"
    )
    path = PLAIN / "stanch.yaml"
    if update:
        path.write_text(head + text)
    assert path.read_text() == head + text


@needs_helm
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"namespaces": ["*"], "recycle": RECYCLE, "alarms": "x = 1\n"},
        {"namespaces": ["shop", "cart"], "data_size": "1Gi", "data_storageClassName": "fast"},
        {"secret": "s", "tokenKey": "token", "caKey": "ca.crt", "rbac_nodes": False},
        {"networkPolicy_enabled": False, "nodeSelector": {"a": "b"}, "replicas": 1},
    ],
)
def test_what_the_chart_renders_is_valid_and_restricted(values: dict[str, object]) -> None:
    """Whatever is set."""
    manifests = rendered(**values)
    check(manifests)
    (spec,) = pods(manifests)
    check_restricted(spec)
    (container,) = spec["containers"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    claims = {"data"} if "data_size" in values else set()
    assert mounted == {volume["name"] for volume in spec["volumes"]} | claims


@needs_helm
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"server_data_size": "20Gi", "namespaces": ["shop", "cart"], "secret": "s"},
        {"server_store": "http://clickhouse:8123", "secret": "s", "tokenKey": "t", "caKey": "c"},
    ],
)
def test_the_server_is_restricted_and_reads_what_it_is_told(
    values: dict[str, object], tmp_path: Path
) -> None:
    """Beside the watch, under labels of its own; its arguments are those of the command."""
    manifests = rendered(server_enabled=True, **values)
    check(manifests)
    watch, server = pods(manifests)
    if watch["containers"][0]["name"] == "server":
        watch, server = server, watch
    check_restricted(server)
    (container,) = server["containers"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    arguments = build_parser().parse_args(container["args"])
    namespaces = values.get("namespaces", ["stanch"])
    assert isinstance(namespaces, list)
    assert arguments.targets == [f"kubernetes:{name}" for name in namespaces]
    assert arguments.listen == "127.0.0.1:4041"
    assert str(arguments.token_file) == ("/etc/stanch-secret/t" if "tokenKey" in values else "None")
    selectors = [
        each["spec"]["selector"]["matchLabels"]
        for each in manifests
        if each["kind"] in ("Deployment", "StatefulSet")
    ]
    assert selectors[0] != selectors[1]
    (policy,) = [each for each in manifests if each["kind"] == "NetworkPolicy"]
    names = policy["spec"]["podSelector"]["matchExpressions"][1]["values"]
    assert {one["app.kubernetes.io/name"] for one in selectors} == set(names)


@needs_helm
def test_the_server_s_probe_asks_a_server(tmp_path: Path) -> None:
    """Its command ends with 0 when the server is ready, and with another status when it is not."""
    (container,) = (
        one
        for spec in pods(rendered(server_enabled=True))
        for one in spec["containers"]
        if one["name"] == "server"
    )
    command = container["readinessProbe"]["exec"]["command"]
    with answering({"/readyz": Answer(b"{}")}) as served:
        asked = [sys.executable, *command[1:]]
        asked[-1] = asked[-1].replace("http://127.0.0.1:4041", served.url)
        assert subprocess.run(asked, timeout=PATIENCE_S).returncode == 0
        served.answers["/readyz"] = Answer(b"{}", 503)
        done = subprocess.run(asked, timeout=PATIENCE_S, capture_output=True)
        assert done.returncode != 0


@needs_helm
def test_values_that_are_wrong_are_refused() -> None:
    """By the chart's schema, with the name of the value."""
    wrong = ("template", "stanch", CHART, "--kube-version", "1.30", "--set", "replica=2")
    assert "replica" in helm(*wrong, code=1)


@needs_helm
def test_the_rights_are_those_that_are_used_and_no_more() -> None:
    """Whatever Stanch asks of an API server is allowed, and each right is asked for."""
    manifests = rendered(namespaces=["shop"], recycle=RECYCLE)
    roles = [each for each in manifests if each["kind"] in ("Role", "ClusterRole")]
    allowed = {
        (resource, verb)
        for role in roles
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert allowed == asked_for()
    dry = rendered(namespaces=["shop"], recycle=RECYCLE, dryRun=True)
    assert not any("pods/eviction" in json.dumps(each) for each in dry if "rules" in each)
    own = [role["metadata"] for role in roles if role["metadata"]["name"] == "stanch-pods"]
    assert [each["namespace"] for each in own] == ["shop"]


def asked_for() -> set[tuple[str, str]]:
    """Resource and verb of all that discovery, leadership and eviction ask for."""
    with serving() as running, KubeSession(Cluster(running.api.url)) as session:
        api = running.api
        uid = api.put("pods", pod("shop-0"))["metadata"]["uid"]
        leadership = Leadership(session.client, "shop", "stanch", "a")
        session.begin(leadership.run)
        KubeTargets(session, ("shop",)).begin(PATIENCE_S)
        until(lambda: leadership.leads and api.count("GET /api/v1/nodes?allow"))
        for _ in range(2):
            session.call(evict(session.client, "shop", "shop-0", uid), PATIENCE_S)
        session.call(is_there(session.client, "shop", "shop-0", uid), PATIENCE_S)
        session.close()  # lets go of the lease, which is an update
        return {_right(each) for each in api.asked}


def _right(asked: str) -> tuple[str, str]:
    method, _, url = asked.partition(" ")
    path, _, query = url.partition("?")
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    rest = rest[2:] if rest[0] == "namespaces" else rest
    resource = "/".join((rest[0], *rest[2:]))
    if method == "GET":
        return resource, "get" if len(rest) > 1 else "watch" if "watch=1" in query else "list"
    return resource, {"POST": "create", "PUT": "update"}[method]


def test_the_probe_of_the_chart_tells_a_watch_that_stands_still(tmp_path: Path) -> None:
    """Its command ends with 0 while the file is new, and with another status when it is old."""
    values = (CHART / "templates/watch.yaml").read_text()
    found = re.search(r"command: (\[find, .*\+5.*\])", values)
    assert found is not None
    alive = tmp_path / "alive"
    command = [str(part).replace("/tmp/alive", str(alive)) for part in yaml.safe_load(found[1])]
    alive.touch()
    assert subprocess.run(command, timeout=PATIENCE_S).returncode == 0
    subprocess.run(["touch", "-d", "10 minutes ago", alive], check=True, timeout=PATIENCE_S)
    assert subprocess.run(command, timeout=PATIENCE_S).returncode != 0

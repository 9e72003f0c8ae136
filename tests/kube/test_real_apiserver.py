"""Stanch at a real kube-apiserver: lists, watches, rights, leases, evictions, manifests.

It runs when STANCH_TEST_KUBE_APISERVER names the directory that `make kube` has filled.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from stanch.kube import Cluster, ContainerEnd, KubeError, KubeSession, KubeTargets, Leadership
from stanch.kube.client import KubeClient
from stanch.kube.cluster import read_kubeconfig
from stanch.kube.eviction import BudgetError, evict, is_there
from stanch.kube.pod import pod_of
from tests.kube.real import (
    ADMIN,
    VARIABLE,
    Object,
    RealServer,
    RefusedError,
    client_certificate,
    path_of,
    programs,
    real_server,
)
from tests.kube.samples import PATIENCE_S, pod, restarted, terminated, until

WHERE = programs()
pytestmark = pytest.mark.skipif(
    WHERE is None, reason=f"no real kube-apiserver: run `make kube` and set {VARIABLE}"
)
ROOT = Path(__file__).resolve().parents[2]
PLAIN = ROOT / "deploy/kubernetes"
STANCH = "system:serviceaccount:stanch:stanch"
PODS = "/api/v1/namespaces/shop/pods"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server with the namespaces, accounts and rights of deploy/kubernetes/stanch.yaml."""
    assert WHERE is not None
    with real_server(tmp_path_factory.mktemp("kube"), WHERE) as one:
        for name in ("stanch", "shop", "cart"):
            one.namespace(name)
        for each in documents(PLAIN / "stanch.yaml"):
            if each["kind"] in RIGHTS:
                one.create(each)
        yield one


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


@pytest.fixture
def shop(server: RealServer) -> Iterator[RealServer]:
    """The server without pods before and after."""
    yield server
    for namespace in ("shop", "cart"):
        for each in server.ask("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]:
            server.remove(namespace, each["metadata"]["name"])


def test_a_real_pod_is_read_in_full(shop: RealServer) -> None:
    """As the API server writes it: owner, release, limit, node, address and state."""
    shop.pod(pod("shop-7d9c-x1"))
    with session_of(shop) as session, watching(session) as targets:
        until(lambda: instances(targets) == ["shop/shop-7d9c-x1"], lambda: targets.error)
        watched = targets.watched("shop/shop-7d9c-x1")
        assert watched is not None
        assert (watched.target.service, watched.target.limit_bytes) == ("shop", 256 * 2**20)
        assert watched.target.base_url == "http://127.0.0.1:6060"
        assert (watched.pod.owner_kind, watched.pod.version) == ("Deployment", "1.4.0")
        assert (watched.pod.node, watched.pod.ready, watched.pod.leaving) == ("n1", True, False)
        assert targets.error is None


def test_what_comes_changes_and_goes_is_heard_of(shop: RealServer) -> None:
    """New pods, an OOM kill with its record, and removal, by the watch."""
    with session_of(shop) as session, watching(session, "*") as targets:
        assert targets.targets() == ()
        shop.pod(pod("shop-0"))
        shop.pod(pod("cart-0", namespace="cart", owner="cart"))
        until(lambda: instances(targets) == ["cart/cart-0", "shop/shop-0"])
        assert [each.service for each in targets.targets()] == ["cart/cart", "shop/shop"]
        value = shop.ask("GET", f"{PODS}/shop-0")
        restarted(value, 1, terminated("abc"))
        shop.report("shop", "shop-0", value["status"])
        ends: list[ContainerEnd] = []
        until(lambda: ends.extend(targets.take_endings()) or ends)
        assert [(end.oom_killed, end.status) for end in ends] == [(True, 137)]
        assert ends[0].identity == "containerd://abc"
        shop.remove("shop", "shop-0")
        until(lambda: instances(targets) == ["cart/cart-0"])


def test_a_list_comes_in_pages(shop: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `limit` and `continue`, from one version."""
    monkeypatch.setattr("stanch.kube.reflector.PAGE", 2)
    for number in range(5):
        shop.pod(pod(f"shop-{number}"))
    with session_of(shop) as session, watching(session) as targets:
        until(lambda: len(targets.targets()) == 5)


def test_a_watch_resumes_from_a_bookmark(shop: RealServer) -> None:
    """A bookmark comes before the server ends the watch; from it nothing is missed or repeated."""
    made = shop.pod(pod("shop-0"))

    async def events(client: KubeClient, version: str, seconds: int) -> list[tuple[str, str, str]]:
        parameters = {
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        return [
            (
                str(event["type"]),
                str(event["object"]["metadata"].get("name", "")),
                str(event["object"]["metadata"]["resourceVersion"]),
            )
            async for event in client.watch(PODS, parameters)
            if event is not None
        ]

    with session_of(shop) as session:
        begin = made["metadata"]["resourceVersion"]
        shop.pod(pod("newer", namespace="cart"))  # no event of this watch, and yet a version
        found: list[tuple[str, str, str]] = []
        for seconds in (80, 100):  # about one a minute
            found = found or session.call(events(session.client, begin, seconds), PATIENCE_S)
        assert {(kind, name) for kind, name, _ in found} == {("BOOKMARK", "")}
        version = found[-1][2]
        assert int(version) > int(begin)
        shop.pod(pod("shop-1"))
        after = session.call(events(session.client, version, 5), PATIENCE_S)
    told = [(kind, name) for kind, name, _ in after if kind != "BOOKMARK"]
    assert ("ADDED", "shop-1") in told
    assert not {("ADDED", "shop-0"), ("ADDED", "newer")} & set(told)


def _named(namespace: str, name: str) -> Object:
    return {"namespace": namespace, "name": name}


class Relay:
    """Connections to the server that a test can break off and refuse."""

    def __init__(self, server: RealServer) -> None:
        host, _, port = server.address.rpartition(":")
        self._there = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.broken = False
        threading.Thread(target=self._accept, daemon=True).start()

    def break_off(self) -> None:
        """Let nothing through from now on."""
        with self._lock:
            self.broken = True
            for each in self._open:
                _shut(each)

    def close(self) -> None:
        """Listen no more."""
        _shut(self._listener)
        self._listener.close()
        self.break_off()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(here,), daemon=True).start()
            del here

    def _serve(self, here: socket.socket) -> None:
        with here, suppress(OSError), socket.create_connection(self._there) as there:
            with self._lock:
                if self.broken:
                    return
                self._open += [here, there]
            back = threading.Thread(target=_pump, args=(there, here), daemon=True)
            back.start()
            _pump(here, there)
            back.join()
            with self._lock:
                self._open.remove(here)
                self._open.remove(there)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    _shut(sink)


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def test_a_version_that_is_forgotten_is_listed_anew(shop: RealServer) -> None:
    """After an outage in which the server began anew, it answers 410, and what changed is found."""
    for number in range(2):
        shop.pod(pod(f"shop-{number}"))
    token = shop.token("stanch", "stanch")
    relay = Relay(shop)
    cluster = Cluster(f"https://{relay.address}", "shop", ca_file=str(shop.ca), token=token)
    try:
        with KubeSession(cluster) as session, watching(session) as targets:
            until(lambda: len(targets.targets()) == 2)
            version = shop.ask("GET", PODS)["metadata"]["resourceVersion"]
            relay.break_off()
            until(lambda: targets.error is not None)
            assert len(targets.targets()) == 2
            shop.remove("shop", "shop-0")
            shop.pod(pod("shop-2"))
            shop.stop()
            shop.start()
            with pytest.raises(KubeError) as gone, session_of(shop) as direct:
                direct.call(_first_event(direct.client, version), PATIENCE_S)
            assert gone.value.status == 410
            relay.broken = False
            until(lambda: instances(targets) == ["shop/shop-1", "shop/shop-2"])
            until(lambda: targets.error is None)
    finally:
        relay.close()


async def _first_event(client: KubeClient, version: str) -> object:
    stream: AsyncIterator[Any] = client.watch(PODS, {"resourceVersion": version})
    async for event in stream:
        if event is not None:
            return event
    return None


def test_a_token_that_is_rotated_is_taken_up(shop: RealServer, tmp_path: Path) -> None:
    """The old one is invalid once its secret is gone; Stanch goes on with what is in the file."""
    file = tmp_path / "token"
    old = shop.token("stanch", "stanch", secret="first")
    file.write_text(old)
    with session_of(shop, token_file=str(file)) as session, watching(session) as targets:
        assert targets.error is None
        file.write_text(shop.token("stanch", "stanch", secret="second"))
        shop.ask("DELETE", "/api/v1/namespaces/stanch/secrets/first")
        until(lambda: _status(shop, "GET", PODS, old) == 401)
        session.call(session.client.get(PODS), PATIENCE_S)
        shop.pod(pod("shop-0"))
        until(lambda: instances(targets) == ["shop/shop-0"])
        file.write_text(old)
        with pytest.raises(KubeError) as refused:
            session.call(session.client.get(PODS), PATIENCE_S)
        assert refused.value.status == 401


def _status(server: RealServer, method: str, path: str, token: str, body: object = None) -> int:
    try:
        server.ask(method, path, body if isinstance(body, dict) else None, token=token)
    except RefusedError as refused:
        return refused.status
    return 200


def test_a_kubeconfig_with_a_client_certificate_is_understood(
    shop: RealServer, tmp_path: Path
) -> None:
    """As `kubeadm` and managed clusters hand them out."""
    user = client_certificate(shop, "ann", "system:masters")
    cluster = {"server": f"https://{shop.address}", "certificate-authority": str(shop.ca)}
    config = {
        "current-context": "tests",
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "ann"}}],
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "ann", "user": user}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    with KubeSession(read_kubeconfig(tmp_path / "config")) as session:
        assert session.call(session.client.get(PODS), PATIENCE_S)["kind"] == "PodList"


def test_one_of_two_leads_and_the_other_takes_over(shop: RealServer) -> None:
    """By a Lease in the chart's namespace, with its rights; what was left goes along."""
    with ExitStack() as ending:
        first_session = ending.enter_context(session_of(shop))
        first = Leadership(first_session.client, "stanch", "stanch", "first")
        first_session.begin(first.run)
        until(lambda: first.leads, lambda: first.error)
        first.leave("x" * 150_000)
        second_session = ending.enter_context(session_of(shop))
        second = Leadership(second_session.client, "stanch", "stanch", "second")
        second_session.begin(second.run)
        until(lambda: second.holder == "first")
        path = "/apis/coordination.k8s.io/v1/namespaces/stanch/leases/stanch"
        until(lambda: "stanch.dev/left" in shop.ask("GET", path)["metadata"].get("annotations", {}))
        assert not second.leads
        first_session.close()
        until(lambda: second.leads, lambda: second.error)
        assert second.term == (1, "x" * 150_000)
        spec = shop.ask("GET", path)["spec"]
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("second", 1)


def test_of_many_that_strive_at_once_one_leads(shop: RealServer) -> None:
    """The server lets one write through."""
    with ExitStack() as ending:
        striving = []
        for number in range(4):
            session = ending.enter_context(session_of(shop, token=ADMIN))
            one = Leadership(session.client, "cart", "many", f"s{number}")
            session.begin(one.run)
            striving.append(one)
        until(lambda: all(each.holder for each in striving))
        assert sum(each.leads for each in striving) == 1
        assert len({each.holder for each in striving}) == 1


def test_an_eviction_obeys_a_budget_and_ends_the_pod_that_is_meant(shop: RealServer) -> None:
    """A dry run asks only, a budget refuses with 429, another uid is let alone, twice is once."""
    allow_evictions(shop)
    uid = shop.pod(pod("shop-0"))["metadata"]["uid"]
    shop.pod(pod("shop-1"))
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _named("shop", "shop"),
        "spec": {
            "minAvailable": 1,
            "selector": {"matchLabels": {"pod-template-hash": "7d9c"}},
        },
    }
    shop.create(budget)
    try:
        with session_of(shop) as session:

            def ask(of: str = uid, *, dry_run: bool = False) -> bool:
                asking = evict(session.client, "shop", "shop-0", of, dry_run=dry_run)
                return session.call(asking, PATIENCE_S)

            for counted in (False, True):  # before its controller has counted, and after
                if counted:
                    _count(shop, allowed=0)
                for dry_run in (True, False):
                    with pytest.raises(BudgetError) as refused:
                        ask(dry_run=dry_run)
                    assert refused.value.status == 429
                    assert refused.value.retry_s and 0 < refused.value.retry_s <= 60
                assert "disruption budget" in str(refused.value)
            _count(shop, allowed=1)
            other = "00000000-0000-0000-0000-000000000000"
            assert ask(other) is False
            _count(shop, allowed=1)  # the server has taken it off all the same
            assert ask(dry_run=True) is True
            there = is_there(session.client, "shop", "shop-0", uid)
            assert session.call(there, PATIENCE_S) == (True, False)
            assert ask() is True
            there = is_there(session.client, "shop", "shop-0", uid)
            assert session.call(there, PATIENCE_S) == (True, True)
            assert ask() is True  # it is leaving: nothing more is taken from the budget
            shop.remove("shop", "shop-0")
            assert ask() is False
            left = shop.ask("GET", f"{_BUDGETS}/shop")["status"]
            assert left["disruptionsAllowed"] == 0
    finally:
        shop.ask("DELETE", f"{_BUDGETS}/shop")


_BUDGETS = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets"


def _count(server: RealServer, allowed: int) -> None:
    """Count a budget as its controller does."""
    found = server.ask("GET", f"{_BUDGETS}/shop")
    status = {
        "observedGeneration": found["metadata"]["generation"],
        "disruptionsAllowed": allowed,
        "currentHealthy": 1 + allowed,
        "desiredHealthy": 1,
        "expectedPods": 2,
    }
    server.ask("PATCH", f"{_BUDGETS}/shop/status", {"status": status})


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


def granted(roles: list[Object]) -> set[tuple[str, str, str]]:
    """Verb, group and resource of all that some roles grant."""
    return {
        (verb, group, resource)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_rights_are_used_and_suffice(shop: RealServer) -> None:
    """Each right of the manifest is used by what Stanch does, by the server's own audit log."""
    allow_evictions(shop)
    uid = shop.pod(pod("shop-0"))["metadata"]["uid"]
    with session_of(shop) as session, watching(session, "*") as targets:
        until(lambda: len(targets.targets()) == 1)
        leadership = Leadership(session.client, "stanch", "stanch", "rights")
        session.begin(leadership.run)
        until(lambda: leadership.leads, lambda: leadership.error)
        assert session.call(evict(session.client, "shop", "shop-0", uid), PATIENCE_S)
        session.call(is_there(session.client, "shop", "shop-0", uid), PATIENCE_S)
        assert targets.error is None and leadership.error is None
        assert not any("nodes" in note for note in targets.take_notes())
        roles = [each for each in documents(PLAIN / "stanch.yaml") if "rules" in each]
        until(lambda: shop.allowed(STANCH) == granted([*roles, EVICTION]))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/namespaces/shop/secrets", None),
        ("GET", "/api/v1/namespaces/stanch/configmaps", None),
        ("GET", "/api/v1/namespaces/shop/pods/shop-0/log", None),
        ("POST", "/api/v1/namespaces/shop/pods/shop-0/exec?command=id", {}),
        ("DELETE", "/api/v1/namespaces/shop/pods/shop-0", None),
        ("POST", "/api/v1/namespaces/shop/pods", {"metadata": {"name": "new"}}),
        ("PATCH", "/api/v1/namespaces/shop/pods/shop-0", {"metadata": {"labels": {"a": "b"}}}),
        ("GET", "/api/v1/nodes/n1", None),
        ("GET", "/apis/apps/v1/namespaces/shop/deployments", None),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/stanch/leases", None),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/stanch/leases/other", None),
        ("DELETE", "/apis/coordination.k8s.io/v1/namespaces/stanch/leases/stanch", None),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/shop/leases/stanch", None),
        ("POST", "/api/v1/namespaces/stanch/serviceaccounts/stanch/token", {}),
    ],
)
def test_whatever_is_not_asked_for_is_refused(
    server: RealServer, method: str, path: str, body: Object | None
) -> None:
    """With the rights of the manifest, which has recycling as a dry run."""
    token = server.token("stanch", "stanch")
    assert _status(server, method, path, token, body) == 403


def test_without_the_right_to_nodes_the_rest_works(shop: RealServer) -> None:
    """Their pressure is not known then, which is told once."""
    shop.namespace("poor")
    shop.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": _named("shop", "poor"),
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "stanch-stanch-pods",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "poor"}],
        }
    )
    shop.pod(pod("shop-0"))
    token = shop.token("poor", "default")
    with session_of(shop, token=token) as session, watching(session) as targets:
        until(lambda: len(targets.targets()) == 1)
        notes: list[str] = []
        until(lambda: notes.extend(targets.take_notes()) or notes)
        assert "nodes may not be listed here" in notes[0]
    with session_of(shop, token=token) as session, watching(session, "cart") as others:
        assert "refused with 403" in str(others.error)


def test_the_pressure_of_a_node_is_heard_of(shop: RealServer) -> None:
    """By the condition that its kubelet sets."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    shop.create(node)
    with session_of(shop) as session, watching(session) as targets:
        assert not targets.pressed("n1")
        for status, pressed in (("True", True), ("False", False)):
            condition = {"type": "MemoryPressure", "status": status}
            changed = {"status": {"conditions": [condition]}}
            shop.ask("PATCH", "/api/v1/nodes/n1/status", changed)
            until(lambda pressed=pressed: targets.pressed("n1") is pressed)


def test_the_command_watches_a_real_cluster(shop: RealServer, tmp_path: Path) -> None:
    """`stanch watch kubernetes:shop` from within a pod, as its environment and files say."""
    shop.pod(pod("shop-0", ip="127.0.0.1"))
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text(shop.token("stanch", "stanch"))
    config = {
        "current-context": "tests",
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "stanch"}}],
        "clusters": [
            {
                "name": "tests",
                "cluster": {
                    "server": f"https://{shop.address}",
                    "certificate-authority": str(shop.ca),
                },
            }
        ],
        "users": [{"name": "stanch", "user": {"tokenFile": str(account / "token")}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "stanch.cli.main", "watch", "kubernetes:shop", "--json"]
    command += ["--kubeconfig", str(tmp_path / "config"), "--lease", "stanch/stanch"]
    command += ["--every", "500ms", "--for", "2s", "--data", str(tmp_path / "data")]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, env=dict(os.environ)
    )
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    states = [event for event in events if event["event"] == "state"]
    assert states, ended.stderr
    (row,) = states[-1]["targets"]
    assert (row["instance"], row["service"], row["verdict"]) == ("shop/shop-0", "shop", "down")
    assert (row["owner"], row["release"], row["node"]) == ("Deployment shop", "1.4.0", "n1")
    assert states[-1]["source_error"] is None


def rendered() -> list[tuple[str, Object]]:
    """Each object of deploy/, with where it is from."""
    return [
        (f"{path.name} {each['kind']} {each['metadata']['name']}", each)
        for path in sorted(PLAIN.glob("*.yaml"))
        for each in documents(path)
    ]


@pytest.mark.parametrize("manifest", [each for _, each in rendered()], ids=dict(rendered()))
def test_the_server_takes_each_manifest_as_it_is(server: RealServer, manifest: Object) -> None:
    """Its own validation, with unknown and doubled fields refused, and nothing created."""
    namespaced = {**manifest, "metadata": dict(manifest["metadata"])}
    if not manifest["kind"].startswith("Cluster"):
        namespaced["metadata"].setdefault("namespace", "shop")
    namespaced["metadata"]["name"] += "-dry"  # what the fixture has made is there already
    made = server.ask(
        "POST", path_of(namespaced), namespaced, dryRun="All", fieldValidation="Strict"
    )
    assert made["metadata"]["name"] == namespaced["metadata"]["name"]
    with pytest.raises(RefusedError) as refused:
        server.ask(
            "POST",
            path_of(namespaced),
            {**namespaced, "speck": {}},
            dryRun="All",
            fieldValidation="Strict",
        )
    assert refused.value.status == 400


@pytest.mark.parametrize("name", ["stanch.yaml", "python.yaml", "sidecar.yaml"])
def test_its_pods_are_let_into_a_restricted_namespace(server: RealServer, name: str) -> None:
    """By the server's own Pod Security admission."""
    enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
    server.namespace("restricted", **enforce)
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _named("restricted", "stanch"),
    }
    server.create(account)
    templates = [
        each["spec"]["template"]
        for each in documents(PLAIN / name)
        if each["kind"] in ("Deployment", "StatefulSet")
    ]
    assert templates
    for template in templates:
        about = {**template["metadata"], "namespace": "restricted", "name": "probe"}
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": template["spec"]}
        server.ask("POST", path_of(made), made, dryRun="All", fieldValidation="Strict")
        loose = {**made, "spec": {**template["spec"], "hostNetwork": True}}
        with pytest.raises(RefusedError) as refused:
            server.ask("POST", path_of(loose), loose, dryRun="All")
        assert refused.value.status == 403
        assert 'violates PodSecurity "restricted' in str(refused.value)


def test_a_real_pod_is_what_the_other_tests_take_it_for(shop: RealServer) -> None:
    """The sample of the tests' own API server reads the same when a real one has had it."""
    sample = pod("shop-0")
    real = pod_of(shop.pod(sample), ())
    mine = pod_of(sample, ())
    assert real is not None and mine is not None
    same = ("namespace", "name", "owner", "owner_kind", "version", "node", "ip", "phase", "ready")
    assert [getattr(real, key) for key in same] == [getattr(mine, key) for key in same]
    assert real.containers == mine.containers

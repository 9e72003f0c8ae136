"""Discovery at a real kube-apiserver: lists, watches, bookmarks, and what it has forgotten.

It runs when STANCH_TEST_KUBE_APISERVER names the directory that `make kube` has filled.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from stanch.kube import Cluster, ContainerEnd, KubeError, KubeSession
from stanch.kube.client import KubeClient
from stanch.kube.pod import pod_of
from tests.kube.access import PODS, instances, session_of, watching
from tests.kube.real import RealServer
from tests.kube.samples import PATIENCE_S, pod, restarted, terminated, until


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


def test_a_real_pod_is_what_the_other_tests_take_it_for(shop: RealServer) -> None:
    """The sample of the tests' own API server reads the same when a real one has had it."""
    sample = pod("shop-0")
    real = pod_of(shop.pod(sample), ())
    mine = pod_of(sample, ())
    assert real is not None and mine is not None
    same = ("namespace", "name", "owner", "owner_kind", "version", "node", "ip", "phase", "ready")
    assert [getattr(real, key) for key in same] == [getattr(mine, key) for key in same]
    assert real.containers == mine.containers

"""Discovery over real HTTP: lists, watches, resuming, 410 Gone, outages, tokens, TLS."""

import asyncio
import ssl
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stanch.kube import Cluster, ClusterError, KubeSession, KubeTargets, find_cluster
from stanch.kube.client import KubeClient
from stanch.kube.errors import KubeError
from stanch.kube.reflector import MOST_PAUSE_S, Change, Reflector
from tests.kube.apiserver import ApiServer, Running
from tests.kube.samples import (
    OWN,
    PATIENCE_S,
    discovering,
    pod,
    restarted,
    serving,
    terminated,
    until,
)


def instances(targets: KubeTargets) -> list[str]:
    return [target.instance for target in targets.targets()]


def test_pods_that_ask_for_it_are_targets_as_they_come_and_go() -> None:
    """Listed in pages, then watched; others are left alone, and those of other namespaces too."""
    with serving(page=2) as running:
        api = running.api
        for number in range(5):
            api.put("pods", pod(f"shop-{number}"))
        api.put("pods", pod("quiet", annotations={}))
        api.put("pods", pod("far", namespace="other"))
        with discovering(api) as targets:
            assert instances(targets) == [f"shop/shop-{number}" for number in range(5)]
            assert targets.error is None
            assert api.count("GET /api/v1/namespaces/shop/pods?limit=500&continue=") == 2
            api.put("pods", pod("shop-5"))
            api.delete("pods", "shop-0")
            until(lambda: instances(targets) == [f"shop/shop-{number}" for number in range(1, 6)])
            assert api.count("GET /api/v1/namespaces/shop/pods?limit") == 3


def test_all_namespaces() -> None:
    """Of several namespaces the service is named with its own."""
    with serving() as running:
        running.api.put("pods", pod("shop-0"))
        running.api.put("pods", pod("shop-0", namespace="other"))
        with discovering(running.api, "*") as targets:
            assert {(each.instance, each.service) for each in targets.targets()} == {
                ("shop/shop-0", "shop/shop"),
                ("other/shop-0", "other/shop"),
            }


def test_a_watch_that_breaks_resumes_where_it_was() -> None:
    """From the last bookmark, without another list, and what happened meanwhile is heard of."""
    with serving() as running:
        api = running.api
        api.put("pods", pod("shop-0"))
        with discovering(api) as targets:
            watch = "GET /api/v1/namespaces/shop/pods?allowWatchBookmarks=true"
            until(lambda: api.count(watch) == 1)
            for _ in range(3):
                api.put("nodes", {"metadata": {"name": "n1"}})
            api.bookmark()
            newest = api.version
            api.forget()  # versions before the bookmark cannot be resumed any more
            api.oldest = newest
            api.put("pods", pod("shop-1"))
            until(lambda: len(instances(targets)) == 2)
            assert api.count("GET /api/v1/namespaces/shop/pods?limit") in (1, 2)


def test_a_version_that_is_gone_is_listed_anew() -> None:
    """410 Gone: the new list is compared with what was known, and nothing is told twice."""
    with serving() as running:
        api = running.api
        for number in range(3):
            api.put("pods", pod(f"shop-{number}"))
        with discovering(api) as targets:
            until(lambda: api.count("GET /api/v1/namespaces/shop/pods?allowWatchBookmarks") == 1)
            running.stop()
            api.delete("pods", "shop-0")
            api.put("pods", pod("shop-3"))
            api.change("shop-1", lambda value: restarted(value, 1, terminated("a")))
            api.forget()
            running.start()
            until(lambda: instances(targets) == [f"shop/shop-{number}" for number in (1, 2, 3)])
            assert api.count("GET /api/v1/namespaces/shop/pods?limit") == 2
            ends = targets.take_endings()
            assert [(end.instance, end.oom_killed) for end in ends] == [
                ("shop/shop-1", True),
                ("shop/shop-0", None),
            ]
            assert targets.error is None


def test_an_outage_keeps_the_targets_and_is_told() -> None:
    """While the API server is gone nothing is lost, and the trouble is told; then it goes on."""
    with serving() as running:
        api = running.api
        api.put("pods", pod("shop-0"))
        with discovering(api) as targets:
            running.stop()
            until(lambda: targets.error is not None)
            assert "Kubernetes: the pods are not up to date since " in str(targets.error)
            assert instances(targets) == ["shop/shop-0"]
            api.busy = 2  # it starts up, and refuses at first
            running.start()
            api.put("pods", pod("shop-1"))
            until(lambda: len(instances(targets)) == 2 and targets.error is None)


def test_pauses_grow_to_a_bound_while_it_is_gone() -> None:
    """An hour of outage is about a hundred and twenty tries, not thousands."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 40:
            raise asyncio.CancelledError

    async def strive() -> None:
        client = KubeClient(Cluster("http://127.0.0.1:1"))
        reflector = Reflector(client, "/api/v1/pods", dict, _ignore, "the pods", pause=pause)
        try:
            await reflector.run()
        except asyncio.CancelledError:
            assert "not reached" in str(reflector.error)
        await client.close()

    asyncio.run(strive())
    assert pauses[0] < 1
    assert max(pauses) <= MOST_PAUSE_S
    assert all(pause >= MOST_PAUSE_S / 2 for pause in pauses[10:])


def _ignore(change: Change[dict[str, Any]]) -> None:
    pass


def test_a_server_that_ends_each_watch_at_once_is_not_asked_without_a_pause() -> None:
    """What it does wrong costs it no storm of requests."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 4:
            raise asyncio.CancelledError

    async def strive(url: str) -> None:
        client = KubeClient(Cluster(url))
        reflector = Reflector(client, "/api/v1/pods", dict, _ignore, "the pods", pause=pause)
        with pytest.raises(asyncio.CancelledError):
            await reflector.run()
        assert "it ends each watch at once" in str(reflector.error)
        await client.close()

    with serving(hasty=True) as running:
        asyncio.run(strive(running.api.url))
    assert len(pauses) == 4
    assert all(pause > 0.2 for pause in pauses)


def test_a_rotated_token_is_read_from_its_file(tmp_path: Path) -> None:
    """The old one is refused, and the trouble ends once the new one is there."""
    file = tmp_path / "token"
    file.write_text("first\n")
    with serving(token="first") as running:
        api = running.api
        api.put("pods", pod("shop-0"))
        with discovering(api, token_file=str(file)) as targets:
            assert instances(targets) == ["shop/shop-0"]
            api.token = "second"
            api.cut_watches()
            until(lambda: "refused with 401" in str(targets.error))
            file.write_text("second\n")
            api.put("pods", pod("shop-1"))
            until(lambda: len(instances(targets)) == 2 and targets.error is None)


def test_what_may_not_be_read_is_said_and_the_rest_works() -> None:
    """Nodes need a right of their own; without it there are targets all the same."""
    with serving(forbidden={"nodes"}) as running:
        running.api.put("pods", pod("shop-0"))
        with discovering(running.api) as targets:
            assert instances(targets) == ["shop/shop-0"]
            notes: list[str] = []
            until(lambda: notes.extend(targets.take_notes()) or notes)
            assert notes == ["nodes may not be listed here, so their memory pressure is not known"]
            assert targets.take_notes() == []
    with serving(forbidden={"pods"}) as running, discovering(running.api) as targets:
        assert "refused with 403: pods is forbidden" in str(targets.error)


def test_memory_pressure_and_unusable_annotations_are_noted_once() -> None:
    """When it begins and ends; and whose annotations cannot be used, and why."""
    with serving() as running:
        api = running.api
        api.put("nodes", _node("True"))
        odd = "stanch.dev/port is 'none'; expected a number or a port's name"
        api.put("pods", pod("odd", annotations={**OWN, "stanch.dev/port": "none"}))
        with discovering(api) as targets:
            notes: list[str] = []
            until(lambda: notes.extend(targets.take_notes()) or len(notes) == 2)
            assert targets.pressed("n1")
            assert sorted(notes) == [
                "node n1 is short of memory (MemoryPressure)",
                f"shop/odd asks to be watched and cannot be: {odd}",
            ]
            api.put("nodes", _node("False"))
            api.change("odd", lambda value: value["metadata"]["labels"].update(more="1"))
            until(lambda: targets.take_notes() == ["node n1 is no longer short of memory"])
            assert not targets.pressed("n1")


def _node(pressed: str) -> dict[str, Any]:
    conditions = [{"type": "MemoryPressure", "status": pressed}]
    return {"metadata": {"name": "n1"}, "status": {"conditions": conditions}}


def test_a_pod_that_flaps_is_one_target_with_many_ends() -> None:
    """A container that crashes again and again: the target stays, each end is told once."""
    with serving() as running:
        api = running.api
        api.put("pods", pod("shop-0"))
        with discovering(api) as targets:
            until(lambda: api.count("GET /api/v1/namespaces/shop/pods?allowWatchBookmarks") == 1)
            for number in range(1, 6):
                end = terminated(f"c{number}", 1, "Error")

                def crash(value: dict[str, Any], end: dict[str, Any] = end) -> None:
                    value["status"]["containerStatuses"][0]["state"] = {"terminated": end}
                    value["status"]["conditions"] = [{"type": "Ready", "status": "False"}]

                def again(value: dict[str, Any], n: int = number, end: Any = end) -> None:
                    restarted(value, n, end)

                api.change("shop-0", crash)
                api.change("shop-0", again)
            ends = []
            until(lambda: ends.extend(targets.take_endings()) or len(ends) >= 5)
            assert [end.identity for end in ends] == [f"containerd://c{n}" for n in range(1, 6)]
            assert instances(targets) == ["shop/shop-0"]


def authority(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that is its own authority, and a server's context with it."""
    key, certificate = directory / "key.pem", directory / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


def test_the_cluster_s_own_authority_is_trusted_and_no_other(tmp_path: Path) -> None:
    """As within a pod: address from the environment, CA, token and namespace from its files."""
    certificate, context = authority(tmp_path)
    (tmp_path / "ca.crt").write_bytes(certificate.read_bytes())
    (tmp_path / "token").write_text("secret")
    (tmp_path / "namespace").write_text("shop")
    running = Running(ApiServer(token="secret"), context)
    try:
        running.api.put("pods", pod("shop-0"))
        port = running.api.url.rpartition(":")[2]
        environment = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": port,
        }
        cluster = find_cluster(None, environment, tmp_path)
        assert cluster.namespace == "shop"
        with KubeSession(cluster) as session:
            targets = KubeTargets(session, ("shop",))
            targets.begin(PATIENCE_S)
            assert instances(targets) == ["shop/shop-0"]
        with (
            KubeSession(Cluster(cluster.server, token="secret")) as session,
            pytest.raises(KubeError, match="certificate"),
        ):
            session.call(session.client.get("/api/v1/pods"), PATIENCE_S)
    finally:
        running.stop()


KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: here
contexts:
- {{name: here, context: {{cluster: c, user: u, namespace: shop}}}}
clusters:
- {{name: c, cluster: {cluster}}}
users:
- {{name: u, user: {user}}}
"""


def kubeconfig(directory: Path, cluster: str, user: str = "{}") -> Path:
    """A kubeconfig in a file."""
    path = directory / "kubeconfig"
    path.write_text(KUBECONFIG.format(cluster=cluster, user=user))
    return path


def test_a_kubeconfig(tmp_path: Path) -> None:
    """Server, CA, token file and namespace of its current context; paths are relative to it."""
    user = "{tokenFile: token}"
    path = kubeconfig(tmp_path, "{server: 'https://h:6443/', certificate-authority: ca.pem}", user)
    (tmp_path / "token").write_text("t\n")
    cluster = find_cluster(path)
    assert (cluster.server, cluster.namespace) == ("https://h:6443", "shop")
    assert cluster.ca_file == str(tmp_path / "ca.pem")
    assert cluster.headers() == {"Authorization": "Bearer t"}
    assert find_cluster(None, {"KUBECONFIG": str(path)}, tmp_path / "no").server == cluster.server


@pytest.mark.parametrize(
    ("cluster", "user", "says"),
    [
        ("{server: 'https://h', insecure-skip-tls-verify: true}", "{}", "is refused"),
        ("{server: 'ftp://h'}", "{}", "expected https://"),
        ("{}", "{}", "'server' is missing"),
        ("{server: 'https://h'}", "{exec: {command: x}}", "needs a plug-in"),
        ("{server: 'http://h'}", "{token: t}", "not sent unencrypted"),
        ("{server: 'https://h', certificate-authority-data: '?'}", "{}", "base64"),
        ("{server: 'https://h'", "{}", "cannot read the kubeconfig"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(
    tmp_path: Path, cluster: str, user: str, says: str
) -> None:
    """Each is one sentence with the file's name."""
    path = kubeconfig(tmp_path, cluster, user)
    with pytest.raises(ClusterError, match=says) as caught:
        find_cluster(path)
    assert str(path) in str(caught.value)


def test_no_cluster_at_all(tmp_path: Path) -> None:
    """Neither a pod nor a kubeconfig."""
    with pytest.raises(ClusterError, match="--kubeconfig"):
        find_cluster(None, {"KUBECONFIG": str(tmp_path / "none")}, tmp_path)


@pytest.mark.parametrize(
    ("body", "says"),
    [(b"<html>", "something else than JSON"), (b"[]", "something else than an object")],
)
def test_an_answer_that_is_none(body: bytes, says: str) -> None:
    """What sits in between may answer anything."""
    from tests.collect.answers import Answer
    from tests.collect.answers import serving as answering

    answers: Mapping[str, Answer] = {"/api/v1/pods": Answer(body)}
    with answering(dict(answers)) as served, KubeSession(Cluster(served.url)) as session:
        with pytest.raises(KubeError, match=says):
            session.call(session.client.get("/api/v1/pods"), PATIENCE_S)
        with pytest.raises(KubeError, match="refused with 404"):
            session.call(session.client.get("/other"), PATIENCE_S)


def test_silence_is_not_waited_for_for_ever() -> None:
    """A watch that says nothing ends, and resumes, without a list or a trouble."""

    async def listen(url: str) -> list[object]:
        client = KubeClient(Cluster(url), silence_s=0.2)
        events = [event async for event in client.watch("/api/v1/pods", {"resourceVersion": "100"})]
        await client.close()
        return events

    with serving() as running:
        began = time.monotonic()
        assert asyncio.run(listen(running.api.url)) == [None]
        assert time.monotonic() - began < PATIENCE_S

"""`stanch watch kubernetes:` against an API server and a real endpoint: rows, deaths, leaders."""

import contextlib
import json
import time
from pathlib import Path

import pytest

from stanch.collect import TargetDefaults
from stanch.deaths.book import JournalBook, deaths
from stanch.deaths.death import Death
from stanch.journal import Journal
from stanch.kube import Cluster
from stanch.server.chronicle import Chronicle
from stanch.server.cluster import ClusterWatch
from stanch.server.watch import Watcher, WatchState
from tests.cli.command import stanch
from tests.cli.watched import STANCH, events, interrupt, lines_until
from tests.cli.watched import running as running_program
from tests.collect.answers import Served, python_answers, python_heap
from tests.collect.answers import serving as answering
from tests.kube.apiserver import ApiServer, stamp
from tests.kube.samples import OWN, pod, restarted, serving, terminated, until
from tests.kube.test_discovery import kubeconfig


def of(served: Served) -> dict[str, str]:
    """The annotations of a pod whose agent is that server."""
    return {**OWN, "stanch.dev/port": served.url.rpartition(":")[2]}


def on_record(data: Path) -> list[Death]:
    with Journal(data) as journal, journal.read() as transaction:
        return [death for _, death in deaths(transaction)][::-1]


class Watch:
    """A watch of a cluster, step by step."""

    def __init__(self, api: ApiServer, data: Path, lease: str = "") -> None:
        self.chronicle = Chronicle(JournalBook(data))
        self.cluster = ClusterWatch(Cluster(api.url, "shop"), ("",), TargetDefaults(), lease)
        self.watcher = Watcher(self.cluster.source, 1.0, witness=self.chronicle.witness)
        self._ending = contextlib.ExitStack()
        for part in (self.chronicle, self.cluster, self.watcher):
            self._ending.enter_context(part)
        self.deaths: list[Death] = []

    def step(self) -> WatchState:
        state = self.cluster.take(self.watcher.step(), self.chronicle)
        state = self.chronicle.take(state)
        self.deaths += state.deaths
        return state

    def close(self) -> None:
        self._ending.close()


def test_an_oom_kill_has_the_kubelet_s_cause_and_the_last_look_s_line(tmp_path: Path) -> None:
    """One record, whether the kubelet or the next look told first; told again after a restart of
    Stanch it stays one; a death while Stanch was away is written down when it is back."""
    with serving() as running, answering(python_answers(90_000_000)) as served:
        api = running.api
        api.put("pods", pod("shop-0", annotations=of(served)))
        watch = Watch(api, tmp_path)
        try:
            (row,) = watch.step().rows
            assert (row.service, row.instance, row.release) == ("shop", "shop/shop-0", "1.4.0")
            assert (row.owner, row.node, row.restarts) == ("Deployment shop", "n1", 0)
            assert row.limit_bytes == 256 * 1024**2
            api.change("shop-0", lambda value: restarted(value, 1, terminated("a")))
            until(lambda: watch.step() and watch.deaths)
            served.answers["/debug/pprof/heap"] = _another_life()
            for _ in range(3):
                watch.step()
            assert watch.step().rows[0].restarts == 1
        finally:
            watch.close()
        (death,) = on_record(tmp_path)
        assert (death.cause, death.sure, death.function) == ("oom", True, "remember")
        assert death.container == "containerd://a"
        # Away for a while, in which it crashes twice and the API server tells the last.
        api.change("shop-0", lambda value: restarted(value, 3, terminated("c", 1, "Error")))
        watch = Watch(api, tmp_path)
        try:
            until(lambda: watch.step() and watch.deaths)
            for _ in range(3):
                watch.step()
        finally:
            watch.close()
        assert [death.container for death in watch.deaths] == ["containerd://c"]
        assert {death.container: death.cause for death in on_record(tmp_path)} == {
            "containerd://a": "oom",
            "containerd://c": "crash",
        }


def _another_life() -> object:
    from tests.collect.answers import Answer

    return Answer(python_heap(1_000_000, age_s=1.0, pid=11))


def test_a_crash_loop_is_written_down_end_by_end(tmp_path: Path) -> None:
    """Lives of seconds under one pid, which the kubelet and the looks both see: each once."""
    from tests.collect.answers import Answer

    with serving() as running, answering(python_answers()) as served:
        api = running.api
        api.put("pods", pod("shop-0", annotations=of(served)))
        watch = Watch(api, tmp_path)
        try:
            watch.step()
            for number in range(1, 5):
                end = terminated(f"c{number}", 1, "Error")
                api.change("shop-0", lambda value, n=number, end=end: restarted(value, n, end))
                body = python_heap(1_000_000, age_s=0.01, pid=1)
                served.answers["/debug/pprof/heap"] = Answer(body)
                until(
                    lambda n=number: (
                        watch.step()
                        and f"containerd://c{n}" in {each.container for each in on_record(tmp_path)}
                    )
                )
                watch.step()
        finally:
            watch.close()
        told = [death.container for death in on_record(tmp_path)]
        assert [each for each in told if each] == [f"containerd://c{n}" for n in range(1, 5)]


def test_a_deployment_and_an_eviction_by_the_node(tmp_path: Path) -> None:
    """The causes are deploy, with the versions, and oom, with the kubelet's words."""
    with serving() as running, answering(python_answers()) as served:
        api = running.api
        api.put("pods", pod("shop-0", annotations=of(served)))
        api.put("pods", pod("shop-1", annotations=of(served)))
        watch = Watch(api, tmp_path)
        try:
            watch.step()
            newer = {"template": "99", "version": "1.5.0", "creationTimestamp": stamp(time.time())}
            api.put("pods", pod("shop-2", annotations={}, **newer))
            api.delete("pods", "shop-0")

            def put_out(value: dict[str, object]) -> None:
                value["status"] = {
                    "phase": "Failed",
                    "reason": "Evicted",
                    "message": "The node was low on resource: memory.",
                }

            api.change("shop-1", put_out)
            until(lambda: watch.step() and len(watch.deaths) == 2)
            assert watch.step().rows == ()
        finally:
            watch.close()
        told = {death.instance: (death.cause, death.how) for death in on_record(tmp_path)}
        assert told["shop/shop-0"] == ("deploy", "replaced by a deployment: 1.4.0 to 1.5.0")
        assert told["shop/shop-1"] == (
            "oom",
            "evicted by its node: The node was low on resource: memory.",
        )


def test_of_two_servers_one_leads(tmp_path: Path) -> None:
    """Both look and write down; the other acts and tells only when the first is gone."""
    with serving() as running:
        first = Watch(running.api, tmp_path / "a", "stanch")
        try:
            until(lambda: first.step() and first.cluster.may_act())
            second = Watch(running.api, tmp_path / "b", "stanch")
            try:
                notes = []
                until(lambda: notes.extend(second.step().notes) or notes)
                until(lambda: "looks on" in " ".join(notes) or notes.extend(second.step().notes))
                assert not second.cluster.may_act() and not second.cluster.may_tell
                assert first.cluster.may_tell
                first.close()
                until(lambda: second.step() and second.cluster.may_act())
                assert second.cluster.may_tell
            finally:
                second.close()
        finally:
            first.close()


def test_the_command_watches_a_cluster(tmp_path: Path) -> None:
    """From a kubeconfig: targets as JSON with release and owner, an outage as a trouble, deaths."""
    with serving() as running, answering(python_answers()) as served:
        api = running.api
        api.put("pods", pod("shop-0", annotations=of(served)))
        path = kubeconfig(tmp_path, f"{{server: '{api.url}'}}")
        data = tmp_path / "data"
        command = [*STANCH, "watch", "kubernetes:", "--kubeconfig", path, "--every", "200ms"]
        command += ["--json", "--data", data, "--lease", "stanch"]
        with running_program(*command) as program:
            lines_until(program, lambda line: '"verdict": "starting"' in line)
            running.stop()
            lines_until(program, lambda line: "Kubernetes: the pods are not up to date" in line)
            api.change("shop-0", lambda value: restarted(value, 1, terminated("a")))
            running.start()
            lines = lines_until(program, lambda line: '"event": "death"' in line)
            death = events(lines)[-1]["death"]
            states = [each for each in events(lines) if each["event"] == "state"]
            code, _ = interrupt(program)
        assert (death["cause"], death["instance"]) == ("oom", "shop/shop-0")
        (row,) = states[-1]["targets"]
        assert (row["release"], row["owner"]) == ("1.4.0", "Deployment shop")
        assert code == 0
        listed = stanch("deaths", "--data", data)
        assert " oom      shop shop/shop-0" in listed.out
        assert json.loads(stanch("deaths", "--data", data, "--json").out)["sure"] is True


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["http://h:1", "--lease", "x"], "need a target such as kubernetes:shop"),
        (["kubernetes:", "--kubeconfig", "/no/such"], "cannot read the kubeconfig /no/such"),
    ],
)
def test_a_wrong_use_is_one_sentence(arguments: list[str], complaint: str) -> None:
    """Exit code 2."""
    outcome = stanch("watch", *arguments)
    assert (outcome.code, complaint in outcome.err) == (2, True)
    assert len(outcome.err.splitlines()) == 1


def test_recycling_by_eviction_needs_a_cluster(tmp_path: Path) -> None:
    """The sentence names what is missing."""
    path = tmp_path / "recycle.toml"
    path.write_text('[[service]]\nservice = "shop"\nbackend = "kubernetes"\n')
    outcome = stanch("watch", "http://h:1", "--recycle", path, "--data", tmp_path / "data")
    assert outcome.code == 2
    assert "needs a target such as kubernetes:NAMESPACE" in outcome.err

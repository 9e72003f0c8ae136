"""Recycling by Kubernetes' eviction: budgets obeyed, never doubled, by the one that leads."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stanch.journal import Journal
from stanch.kube import Cluster, KubeSession
from stanch.recycle import RecyclePolicy, Recycler, Replica
from stanch.recycle.backends import RecycleError
from stanch.recycle.backends.eviction import EvictedPod, EvictionBackend
from stanch.recycle.book import Recycle, recycles
from tests.kube.apiserver import ApiServer, Budget, Object
from tests.kube.samples import PATIENCE_S, pod, serving, until

POLICY = RecyclePolicy("shop", spacing_s=0.0, drain_s=60.0, end_s=60.0, ready_s=60.0, quorum=0.5)


@dataclass
class Deployment:
    """Three pods of an API server whose owner makes another for each that goes."""

    api: ApiServer
    made: int = 0
    taken: list[tuple[str, str]] = field(default_factory=list)
    gathered: list[str] = field(default_factory=list)
    slow: bool = False
    known: dict[str, EvictedPod] = field(default_factory=dict)
    on_gather: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.api.on_evict = self.replace
        for _ in range(3):
            self.make()

    def make(self) -> None:
        self.api.put("pods", pod(f"shop-{self.made}"))
        self.made += 1

    def replace(self, leaving: Object) -> None:
        """What kubelet and ReplicaSet do: the old one goes, a new one comes."""
        self.make()
        if not self.slow:
            self.api.delete("pods", leaving["metadata"]["name"])

    def pod_of(self, instance: str) -> EvictedPod | None:
        if instance in self.known:
            return self.known[instance]
        namespace, name = instance.split("/")
        try:
            found = self.api.get("pods", name, namespace)
        except KeyError:
            return None
        return EvictedPod(namespace, name, found["metadata"]["uid"])

    def replicas(self) -> list[Replica]:
        """The first three leak and will die, the others are new."""
        with self.api.changed:
            names = sorted(self.api.objects["pods"])
        return [
            Replica(
                "shop",
                name,
                healthy=True,
                leaks=int(name[-1]) < 3,
                death_s=10.0 + int(name[-1]),
                leak="leak in shop",
                life=name,
            )
            for name in names
        ]

    def gather(self, service: str, instance: str) -> dict[str, object]:
        self.gathered.append(instance)
        if self.on_gather is not None:
            self.on_gather()
        return {}

    def in_flight(self, service: str, instance: str) -> float | None:
        return 7.0  # there always are some: waiting for none would be for ever

    def taken_out(self, service: str, instance: str, reason: str) -> None:
        self.taken.append((instance, reason))


@contextmanager
def deployed(leads: list[bool] | None = None) -> Iterator[tuple[Deployment, EvictionBackend]]:
    """Pods at an API server, and the back end that evicts them."""
    with serving() as running, KubeSession(Cluster(running.api.url)) as session:
        deployment = Deployment(running.api)
        backend = EvictionBackend(
            session,
            deployment.pod_of,
            lambda: leads is None or leads[0],
            time.monotonic,
            lambda _: time.sleep(0.02),
        )
        yield deployment, backend


def on_record(journal: Journal) -> list[Recycle]:
    with journal.read() as transaction:
        return recycles(transaction)[::-1]


def test_all_that_leak_are_evicted_one_after_the_other(tmp_path: Path) -> None:
    """Each once, in the order of their deaths, without a wait for requests that never end."""
    with deployed() as (deployment, backend), Journal(tmp_path) as journal:
        uids = [deployment.api.get("pods", f"shop-{n}")["metadata"]["uid"] for n in range(3)]
        recycler = Recycler(journal, [(POLICY, backend)], deployment)

        def all_are_done() -> bool:
            recycler.observe(deployment.replicas())
            return [each.step for each in on_record(journal)] == ["done"] * 3

        until(all_are_done)
        recycler.close()
        assert deployment.api.evicted == uids
        assert [instance for instance, _ in deployment.taken] == [
            f"shop/shop-{n}" for n in range(3)
        ]


def test_a_disruption_budget_is_obeyed_and_asked_again(tmp_path: Path) -> None:
    """429: put off without evidence or a failure, and done when the budget allows it; once."""
    with deployed() as (deployment, backend), Journal(tmp_path) as journal:
        deployment.api.budget = Budget(allowed=0)
        recycler = Recycler(journal, [(POLICY, backend)], deployment)

        def was_put_off_twice() -> bool:
            recycler.observe(deployment.replicas())
            return [each.step for each in on_record(journal)] == ["put off"] * 2

        until(was_put_off_twice)
        assert deployment.api.evicted == [] and deployment.gathered == []
        assert "its disruption budget does not allow it now" in on_record(journal)[0].about["error"]
        assert recycler.stopped == {}
        deployment.api.budget = Budget(allowed=1)

        def one_is_done() -> bool:
            recycler.observe(deployment.replicas())
            return [each.step for each in on_record(journal)].count("done") == 1

        until(one_is_done)
        recycler.close()
        assert len(deployment.api.evicted) == 1


def test_a_budget_that_is_used_up_between_asking_and_doing(tmp_path: Path) -> None:
    """What was expected of the pod is taken back, so another end of it is not called a recycle."""
    with deployed() as (deployment, backend), Journal(tmp_path) as journal:
        deployment.api.budget = Budget(allowed=1)

        def use_up() -> None:
            deployment.api.budget = Budget(allowed=0, retry_s=60)

        deployment.on_gather = use_up
        recycler = Recycler(journal, [(POLICY, backend)], deployment)

        def was_put_off() -> bool:
            recycler.observe(deployment.replicas())
            return [each.step for each in on_record(journal)] == ["put off"]

        until(was_put_off)
        recycler.close()
        first, last = deployment.taken
        assert first[1].startswith("at its limit in ") and last == ("shop/shop-0", "")
        assert deployment.api.evicted == []


def test_an_answer_that_was_lost_ends_no_second_pod() -> None:
    """It is put off; the pod that was meant is gone by then, and nothing else is done."""
    with deployed() as (deployment, backend):
        meant = deployment.pod_of("shop/shop-0")
        assert meant is not None
        deployment.api.lost = 1
        with pytest.raises(RecycleError, match="no eviction: not reached") as caught:
            backend.end("shop", "shop/shop-0", PATIENCE_S)
        assert caught.value.retry_s is not None
        assert deployment.api.evicted == [meant.uid]
        # A StatefulSet's next pod has the same name, and another uid.
        deployment.api.put("pods", pod("shop-0"))
        deployment.known["shop/shop-0"] = meant
        backend.end("shop", "shop/shop-0", PATIENCE_S)
        assert deployment.api.evicted == [meant.uid]
        assert "shop/shop-0" in deployment.api.objects["pods"]


def test_a_pod_that_stays_is_a_failure_that_says_what_to_set() -> None:
    """Its grace period is longer than the policy allows."""
    with deployed() as (deployment, backend):
        deployment.slow = True
        with pytest.raises(RecycleError, match=r"still there after 0\.2 s; set `end` above"):
            backend.end("shop", "shop/shop-0", 0.2)


def test_who_does_not_lead_evicts_nothing() -> None:
    """It asks nothing of the API server, and tries again later."""
    with deployed([False]) as (deployment, backend):
        for step in (backend.check, backend.end):
            with pytest.raises(RecycleError, match="another server leads") as caught:
                step("shop", "shop/shop-0", 5.0)
            assert caught.value.retry_s is not None
        assert deployment.api.asked == []


def test_what_is_no_pod_and_an_api_server_that_is_gone() -> None:
    """The one is a failure, the other is put off."""
    with serving() as running:
        deployment = Deployment(running.api)
        with KubeSession(Cluster(running.api.url)) as session:
            backend = EvictionBackend(
                session, deployment.pod_of, lambda: True, time.monotonic, time.sleep
            )
            with pytest.raises(RecycleError, match="is no pod that is known") as caught:
                backend.end("shop", "shop/none", 5.0)
            assert caught.value.retry_s is None
            running.stop()
            with pytest.raises(RecycleError, match="no eviction") as caught:
                backend.check("shop", "shop/shop-0", 5.0)
            assert caught.value.retry_s is not None

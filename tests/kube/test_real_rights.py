"""What Stanch may do at a real kube-apiserver: tokens, rights, the Lease, evictions.

It runs when STANCH_TEST_KUBE_APISERVER names the directory that `make kube` has filled.
"""

from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from stanch.kube import KubeError, KubeSession, Leadership
from stanch.kube.cluster import read_kubeconfig
from stanch.kube.eviction import BudgetError, evict, is_there
from tests.kube.access import (
    EVICTION,
    PLAIN,
    PODS,
    allow_evictions,
    documents,
    instances,
    named,
    session_of,
    status_of,
    watching,
)
from tests.kube.real import ADMIN, Object, RealServer, client_certificate
from tests.kube.samples import PATIENCE_S, pod, until

STANCH = "system:serviceaccount:stanch:stanch"
_BUDGETS = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets"


def test_a_token_that_is_rotated_is_taken_up(shop: RealServer, tmp_path: Path) -> None:
    """The old one is invalid once its secret is gone; Stanch goes on with what is in the file."""
    file = tmp_path / "token"
    old = shop.token("stanch", "stanch", secret="first")
    file.write_text(old)
    with session_of(shop, token_file=str(file)) as session, watching(session) as targets:
        assert targets.error is None
        file.write_text(shop.token("stanch", "stanch", secret="second"))
        shop.ask("DELETE", "/api/v1/namespaces/stanch/secrets/first")
        until(lambda: status_of(shop, "GET", PODS, old) == 401)
        session.call(session.client.get(PODS), PATIENCE_S)
        shop.pod(pod("shop-0"))
        until(lambda: instances(targets) == ["shop/shop-0"])
        file.write_text(old)
        with pytest.raises(KubeError) as refused:
            session.call(session.client.get(PODS), PATIENCE_S)
        assert refused.value.status == 401


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
        before = shop.ask("GET", path)["spec"]["leaseTransitions"]
        first_session.close()
        until(lambda: second.leads, lambda: second.error)
        assert second.term == (1, "x" * 150_000)
        spec = shop.ask("GET", path)["spec"]
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("second", before + 1)


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
        "metadata": named("shop", "shop"),
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
    assert status_of(server, method, path, token, body) == 403


def test_without_the_right_to_nodes_the_rest_works(shop: RealServer) -> None:
    """Their pressure is not known then, which is told once."""
    shop.namespace("poor")
    shop.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": named("shop", "poor"),
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

"""The manifests of deploy/ as a real kube-apiserver judges them.

It runs when STANCH_TEST_KUBE_APISERVER names the directory that `make kube` has filled.
"""

import pytest

from tests.kube.access import PLAIN, documents, named
from tests.kube.real import Object, RealServer, RefusedError, path_of


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
        "metadata": named("restricted", "stanch"),
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

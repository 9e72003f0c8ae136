"""A real kube-apiserver for those tests that want one; without its programs they skip."""

from collections.abc import Iterator

import pytest

from tests.kube.access import PLAIN, RIGHTS, documents
from tests.kube.real import VARIABLE, RealServer, programs, real_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server with the namespaces, accounts and rights of deploy/kubernetes/stanch.yaml."""
    where = programs()
    if where is None:
        pytest.skip(f"no real kube-apiserver: run `make kube` and set {VARIABLE}")
    with real_server(tmp_path_factory.mktemp("kube"), where) as one:
        for name in ("stanch", "shop", "cart"):
            one.namespace(name)
        for each in documents(PLAIN / "stanch.yaml"):
            if each["kind"] in RIGHTS:
                one.create(each)
        yield one


@pytest.fixture
def shop(server: RealServer) -> Iterator[RealServer]:
    """The server without pods before and after."""
    yield server
    for namespace in ("shop", "cart"):
        for each in server.ask("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]:
            server.remove(namespace, each["metadata"]["name"])

"""`stanch server kubernetes:`: its pods are targets, their ends are written down, one alarms."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cli.watched import STANCH, interrupt, lines_until
from tests.cli.watched import running as running_program
from tests.collect.answers import Answer, python_answers
from tests.collect.answers import serving as answering
from tests.kube.samples import pod, restarted, serving, terminated, until
from tests.kube.test_cluster_watch import of
from tests.kube.test_discovery import kubeconfig

pytest.importorskip("chdb", reason="needs the extra stanch[server]")


@contextmanager
def server(data: Path, config: Path, *more: str) -> Iterator[str]:
    """A server of the cluster, by its address."""
    command = [*STANCH, "server", "kubernetes:", *more, "--data", data, "--config", config]
    command += ["--listen", "127.0.0.1:0", "--every", "500ms"]
    with running_program(*command, stderr=sys.stderr) as program:
        (line,) = lines_until(program, lambda line: "http://" in line)
        yield line.split()[-1]
        interrupt(program)


def test_pods_are_targets_and_their_ends_are_on_record(tmp_path: Path) -> None:
    """Beside a list by HTTP; the page of targets shows both, the deaths the kubelet's word."""
    listed = b'[{"targets": ["127.0.0.1:1"], "labels": {"service": "gone"}}]'
    with (
        serving() as running,
        answering(python_answers()) as served,
        answering({"/list": Answer(listed)}) as lists,
    ):
        api = running.api
        api.put("pods", pod("shop-0", annotations=of(served)))
        config = tmp_path / "server.toml"
        path = kubeconfig(tmp_path, f"{{server: '{api.url}'}}")
        config.write_text(f'kubeconfig = "{path}"\nlease = "stanch"\n')
        data = tmp_path / "data"
        with server(data, config, f"sd+{lists.url}/list") as pages:
            until(lambda: "shop/shop-0" in httpx.get(f"{pages}targets").text)
            until(lambda: "cannot connect" in httpx.get(f"{pages}targets").text)
            api.change("shop-0", lambda value: restarted(value, 1, terminated("a")))
            until(lambda: httpx.get(f"{pages}api/v1/deaths").json()["deaths"])
            (death,) = httpx.get(f"{pages}api/v1/deaths").json()["deaths"]
            assert "this server leads" in httpx.get(f"{pages}settings").text
            assert api.get("leases", "stanch")["spec"]["holderIdentity"]
        assert (death["cause"], death["container"]) == ("oom", "containerd://a")

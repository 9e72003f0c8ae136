"""What /proc tells: of this very machine, and of trees made for the test."""

import os
import socket
from pathlib import Path

import pytest

from stanch.collect.procfs import (
    listener_of_port,
    listener_of_socket,
    local_process,
    memory_limit,
)


def test_finds_who_listens_on_a_port() -> None:
    """The pid of the process that owns a listening TCP socket is found."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listener_of_port(port) == os.getpid()
    assert listener_of_port(port) is None


def test_finds_who_listens_on_ipv6() -> None:
    """Likewise for a socket of the version 6 family."""
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with server:
        assert listener_of_port(server.getsockname()[1]) == os.getpid()


def test_finds_who_listens_on_a_unix_socket(tmp_path: Path) -> None:
    """The peer credentials of a unix socket are those of its listener."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert listener_of_socket(path) == os.getpid()
    assert listener_of_socket(path) is None


def test_reads_a_living_process() -> None:
    """This process has an executable, a start and some megabytes."""
    process = local_process(os.getpid())
    assert process is not None
    assert "python" in process.executable
    assert process.started > 0
    assert process.rss_bytes is not None
    assert 1e6 < process.rss_bytes < 1e12


def test_a_process_that_is_gone_is_none() -> None:
    """A pid that cannot be is nobody."""
    assert local_process(2**22 + 1) is None


def tree(root: Path, files: dict[str, str]) -> Path:
    """Write a tree of files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        pytest.param(
            {
                "proc/7/cgroup": "0::/kube/pod/shop\n",
                "sys/fs/cgroup/kube/pod/shop/memory.max": "max\n",
                "sys/fs/cgroup/kube/pod/memory.max": "268435456\n",
                "sys/fs/cgroup/kube/memory.max": "1073741824\n",
            },
            268435456,
            id="v2, limit of the pod",
        ),
        pytest.param(
            {
                "proc/7/cgroup": "4:memory:/docker/abc\n0::/\n",
                "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "134217728\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            134217728,
            id="v1",
        ),
        pytest.param(
            {
                "proc/7/cgroup": "4:memory:/on/the/host\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "134217728\n",
            },
            134217728,
            id="v1, path of the host not visible in the container",
        ),
        pytest.param({"proc/7/cgroup": "0::/../..\n"}, None, id="path that leads out"),
        pytest.param({"proc/7/cgroup": "nonsense\n"}, None, id="nonsense"),
        pytest.param({}, None, id="nothing"),
    ],
)
def test_reads_the_limit_of_both_cgroup_versions(
    tmp_path: Path, files: dict[str, str], limit: int | None
) -> None:
    """The smallest limit on the way up holds; no limit is None."""
    assert memory_limit(7, tree(tmp_path, files)) == limit

"""Real ClickHouse nodes on loopback, each a process that runs the server inside libchdb.so.

`make clickhouse` fetches the library. The nodes know each other as the cluster "three", one shard
each; there is no Keeper, so nothing is replicated. They end with the process that started them.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_ports

CLUSTER = "three"
PATIENCE_S = 120.0
_LIBRARY = Path(__file__).parents[2] / "build/clickhouse/libchdb.so"
_ASLEEP = (
    "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; SELECT sleepEachRow(1)"
    " FROM numbers(3600) SETTINGS max_block_size = 1 FORMAT Null"
)


@dataclass
class Node:
    """A node, its address for clients, and its process."""

    url: str
    process: "subprocess.Popen[bytes]"


def library() -> Path:
    """The library; skips the test where it was not fetched."""
    if not _LIBRARY.exists():
        pytest.skip("no build/clickhouse/libchdb.so; `make clickhouse` fetches it")
    return _LIBRARY


@contextmanager
def three_nodes(directory: Path) -> Iterator[list[Node]]:
    """Start three nodes that make a cluster; they are killed at the end."""
    path = library()
    ports = free_ports(6)
    shards = "".join(
        f"<shard><replica><host>127.0.0.1</host><port>{port}</port></replica></shard>"
        for port in ports[:3]
    )
    nodes: list[Node] = []
    try:
        for number, (tcp, http) in enumerate(zip(ports[:3], ports[3:], strict=True)):
            home = directory / f"node{number}"
            home.mkdir()
            (home / "config.xml").write_text(
                f"<clickhouse><remote_servers><{CLUSTER}>{shards}</{CLUSTER}></remote_servers>"
                "<max_server_memory_usage>1500000000</max_server_memory_usage></clickhouse>"
            )
            arguments = ["--config-file", home / "config.xml", "--path", home / "data"]
            arguments += ["--tcp_port", tcp, "--http_port", http, "--query", _ASLEEP]
            command = [sys.executable, "-m", "tests.store.clickhouse", path, *arguments]
            with (home / "log").open("wb") as log:
                process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)
            nodes.append(Node(f"http://127.0.0.1:{http}", process))
        for node in nodes:
            _wait_for(node)
        yield nodes
    finally:
        for node in nodes:
            node.process.kill()
            node.process.wait()


def _wait_for(node: Node) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"{node.url}/ping", timeout=5) as answer:
                assert answer.read() == b"Ok.\n"
                return
        except OSError:
            assert node.process.poll() is None, "a node has ended"
            assert time.monotonic() < until, "a node does not answer"
            time.sleep(0.2)


class _Answer(ctypes.Structure):
    _fields_ = (
        ("text", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("vector", ctypes.c_void_p),
        ("elapsed_s", ctypes.c_double),
        ("rows", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("error", ctypes.c_char_p),
    )


def _serve(path: str, arguments: list[str]) -> None:
    """Be a node until the query is over, or the parent dies."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    server = ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_DEEPBIND)
    texts = [b"clickhouse", *(argument.encode() for argument in arguments)]
    server.query_stable_v2.restype = ctypes.POINTER(_Answer)
    answer = server.query_stable_v2(len(texts), (ctypes.c_char_p * len(texts))(*texts))
    if answer and answer.contents.error:
        sys.exit(answer.contents.error.decode("utf-8", "replace"))


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:])

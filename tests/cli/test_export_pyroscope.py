"""`stanch export --pyroscope` to a real Pyroscope, and read back from it.

STANCH_TEST_PYROSCOPE names its program. Everything of it listens on loopback, keeps to the test's
directory, and ends with the test.
"""

import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from stanch.collect.received import Push, Receiver
from stanch.profile import Profile, parse
from stanch.profile.wire import bytes_field, number_field
from stanch.store.sqlstore import open_store
from tests.cli.command import stanch
from tests.cli.test_push_command import served
from tests.ports import free_ports
from tests.store.pprofs import heap_bytes

PROGRAM = os.environ.get("STANCH_TEST_PYROSCOPE", "")
PATIENCE_S = 240.0
TYPES = ("alloc_objects:count", "alloc_space:bytes", "inuse_objects:count", "inuse_space:bytes")
_ADDRESSES = (
    "distributor.ring.instance-addr",
    "ingester.lifecycler.addr",
    "store-gateway.sharding-ring.instance-addr",
    "compactor.ring.instance-addr",
    "query-scheduler.ring.instance-addr",
    "query-frontend.instance-addr",
    "overrides-exporter.ring.instance-addr",
    "segment-writer.lifecycler.addr",
    "server.http-listen-address",
    "server.grpc-listen-address",
    "memberlist.bind-addr",
)
_RINGS = ("", "compactor.", "distributor.", "overrides-exporter.", "query-scheduler.")


@contextmanager
def pyroscope(directory: Path) -> Iterator[str]:
    """A Pyroscope with its storage in the directory; gives its URL."""
    http, grpc, members = free_ports(3)
    options = dict.fromkeys(_ADDRESSES, "127.0.0.1")
    options |= {f"{ring}ring.store": "inmemory" for ring in _RINGS}
    options |= {
        "store-gateway.sharding-ring.store": "inmemory",
        "architecture.storage": "v1",
        "write-path": "ingester",
        "enable-query-backend": "false",
        "server.http-listen-port": str(http),
        "server.grpc-listen-port": str(grpc),
        "memberlist.bind-port": str(members),
        "pyroscopedb.data-path": str(directory / "database"),
        "storage.filesystem.dir": str(directory / "shared"),
        "self-profiling.disable-push": "true",
        "usage-stats.enabled": "false",
        "validation.reject-older-than": "0",
    }
    command = [PROGRAM, *(f"-{name}={value}" for name, value in options.items())]
    with (directory / "pyroscope.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
    url = f"http://127.0.0.1:{http}"
    try:
        until = time.monotonic() + PATIENCE_S
        while not _is_ready(url):
            told = (directory / "pyroscope.log").read_text(errors="replace")[-2000:]
            assert process.poll() is None, told
            assert time.monotonic() < until, told
            time.sleep(0.5)
        yield url
    finally:
        process.kill()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def merged(url: str, kind: str, service: str, since_s: float, until_s: float) -> Profile:
    """What Pyroscope has of a service in a range, added up (SelectMergeProfile)."""
    request = b"".join(
        (
            bytes_field(1, f"memory:{kind}:space:bytes".encode()),
            bytes_field(2, f'{{service_name="{service}"}}'.encode()),
            number_field(3, round(since_s * 1000)),
            number_field(4, round(until_s * 1000)),
        )
    )
    answer = httpx.post(
        f"{url}/querier.v1.QuerierService/SelectMergeProfile",
        content=request,
        headers={"Content-Type": "application/proto"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return parse(answer.content)


def by_function(profile: Profile, column: int) -> Counter[str]:
    """The total of each function, of one of the sample types."""
    totals: Counter[str] = Counter()
    for sample in profile.samples:
        functions = {line.function.name for at in sample.locations for line in at.lines}
        for name in functions:
            totals[name] += sample.values[column]
    return +totals


@pytest.mark.skipif(not PROGRAM, reason="STANCH_TEST_PYROSCOPE names no program of Pyroscope")
def test_what_is_exported_is_in_pyroscope(tmp_path: Path) -> None:
    """Two heaps of a service: what is alive has in Pyroscope, at its time, the totals per function
    that `stanch export` writes into a file, in bytes and objects. Of what was allocated Pyroscope
    keeps the growth from one profile to the next. The label of the service selects it."""
    now_s = int(time.time())
    heaps = {
        now_s - 1200: {"remember": 3_000_000, "index": 50_000},
        now_s - 600: {"remember": 4_000_000, "index": 50_000},
    }
    (tmp_path / "pyroscope").mkdir()
    with (
        pyroscope(tmp_path / "pyroscope") as there,
        open_store("chdb", tmp_path / "data") as store,
        served(store, tmp_path / "data") as url,
    ):
        receiver = Receiver(store, time.time)
        for unix_s, live in heaps.items():
            data = heap_bytes(live, time_s=unix_s)
            receiver.receive(Push(data=data, service="shop", instance="s-1"))
        store.flush()
        common = ["export", "--url", url, "--service", "shop", "--since", "30m", "--every", "1m"]
        written = stanch(*common, "--to", tmp_path / "out").out.splitlines()
        sent = stanch(*common, "--pyroscope", there)
        assert (sent.code, sent.err, len(sent.out.splitlines())) == (0, "", 2)
        assert len(written) == 2
        ours = [parse(Path(file).read_bytes()) for file in written]
        for profile, unix_s in zip(ours, heaps, strict=True):
            assert by_function(profile, 3)["remember"] == heaps[unix_s]["remember"]
            for column in (2, 3):
                theirs = merged(there, TYPES[column], "shop", unix_s - 200, unix_s + 200)
                assert by_function(theirs, 0) == by_function(profile, column), TYPES[column]
        for column in (0, 1):
            theirs = merged(there, TYPES[column], "shop", now_s - 1800, now_s)
            grown = by_function(ours[1], column) - by_function(ours[0], column)
            assert by_function(theirs, 0) == grown, TYPES[column]
            assert grown["remember"] > 0
        both = merged(there, TYPES[3], "shop", now_s - 1800, now_s)
        assert by_function(both, 0)["remember"] == 7_000_000
        assert not merged(there, TYPES[3], "cart", now_s - 1800, now_s).samples

"""The store on ClickHouse: the contract suite on three real nodes, and one of them killed.

STANCH_TEST_CLICKHOUSE_URL runs the suite on a real cluster instead (its name in
STANCH_TEST_CLICKHOUSE_CLUSTER); the database `stanch` there is dropped first.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.deaths.storebook import StoreBook
from stanch.store.blocks import blocks
from stanch.store.engine import init_cluster, open_http
from stanch.store.errors import StoreError
from stanch.store.history import Selection, TimeRange
from stanch.store.record import decode_record
from stanch.store.rows import decode_payloads
from stanch.store.schema import SAMPLES, TABLES, Cluster
from stanch.store.sqlstore import Taken, open_store
from stanch.store.wal import read_segment
from tests.cli.command import stanch
from tests.deaths.contract import check_containers, check_one_entry, in_store
from tests.store.clickhouse import CLUSTER, Node, three_nodes
from tests.store.contract import NOW, check_store, go_looks, growing_looks
from tests.store.looks import look
from tests.store.pprofs import heap_bytes

REAL = os.environ.get("STANCH_TEST_CLICKHOUSE_URL", "")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Three nodes with the tables on each."""
    with three_nodes(tmp_path_factory.mktemp("nodes")) as started:
        urls = ",".join(node.url for node in started)
        command = ["store", "init", "--cluster", CLUSTER, "--without-keeper", "--store", urls]
        for _ in range(2):
            assert stanch(*command).out.endswith(f"are in the cluster {CLUSTER}.\n")
        yield started


@pytest.fixture(scope="module")
def urls(request: pytest.FixtureRequest) -> str:
    """The addresses of the cluster to test."""
    if REAL:
        cluster = os.environ.get("STANCH_TEST_CLICKHOUSE_CLUSTER", "default")
        engine = open_http(REAL)
        engine.command(f"DROP DATABASE IF EXISTS stanch ON CLUSTER '{cluster}' SYNC")
        engine.close()
        init_cluster(REAL, Cluster(cluster))
        return REAL
    return ",".join(node.url for node in request.getfixturevalue("nodes"))


def test_gives_what_the_store_in_memory_gives(urls: str, tmp_path: Path) -> None:
    """The contract of stores holds on the cluster: series of several services are the same."""
    with open_store(urls, tmp_path, wall=lambda: NOW) as store:
        check_store(store, [*growing_looks(), *go_looks(), *growing_looks("other")], store.flush)


def test_rows_are_divided_and_read_together(urls: str, tmp_path: Path) -> None:
    """Services are on different shards; what is asked of one node covers them all."""
    with open_store(urls, tmp_path, wall=lambda: NOW) as store:
        for number in range(12):
            service = f"spread-{number}"
            one = look(1.0, service=service, instance=service, unix_s=NOW - 30)
            store.take(one, [Taken("heap", heap_bytes({f"f{number}": 1000 + number}))])
        store.flush()
        names = [f"spread-{number}" for number in range(12)]
        assert set(names) <= set(store.history.service_names())
        for number, service in enumerate(names):
            heap = store.history.profile(Selection(service, NOW))
            assert heap is not None
            assert sum(sample.values[3] for sample in heap.samples) == 1000 + number
        assert {row.service for row in store.history.service_summaries(NOW)} >= set(names)
        shards = store.engine.query(
            "SELECT uniqExact(_shard_num) FROM samples WHERE service LIKE 'spread-%'"
        )
        assert REAL or shards[0][0] > 1
        assert store.history.storage().rows > 12


def test_deaths_are_on_record_once(urls: str, tmp_path: Path) -> None:
    """The contract of books of deaths holds on the cluster too."""
    with open_store(urls, tmp_path, wall=time.time) as store:
        book = StoreBook(store)
        check_one_entry(book, lambda: in_store(store))
        check_containers(book, lambda: in_store(store))


def test_a_block_again_through_another_node_changes_nothing(urls: str, tmp_path: Path) -> None:
    """The token of a block reaches the same shard from whatever node, which passes it over."""
    with open_store(urls, tmp_path, wall=lambda: NOW) as store:
        one = look(1.0, service="again", instance="again", unix_s=NOW - 30)
        store.take(one, [Taken("heap", heap_bytes({"a": 1000, "b": 2000}))])
        (segment,) = (tmp_path / "wal").glob("*.wal")
        records = [decode_record(data) for data in read_segment(segment)]
        batch = [decode_payloads(record, set()) for record in records]
        inserted = [
            (table, block, f"{segment.stem}-{table.name}")
            for table, block in blocks(batch, keep_raw=True)
        ]
        store.flush()
    for url in urls.split(","):
        engine = open_http(url)
        for table, block, token in inserted:
            engine.insert(table, block, token)
        ((rows, live),) = engine.query(
            "SELECT count(), sum(live_bytes) FROM samples WHERE service = 'again'"
        )
        engine.close()
        assert (rows, live) == (2, 3000)
    assert SAMPLES in {table for table, _, _ in inserted}


def test_a_killed_node(nodes: list[Node], tmp_path: Path) -> None:
    """With a node gone the others are asked; what has its shard there waits in the log for it."""
    if REAL:
        pytest.skip("nodes of a real cluster are not killed")
    order = [nodes[1], nodes[0], nodes[2]]
    urls = ",".join(node.url for node in order)
    with open_store(urls, tmp_path, wall=time.time) as store:
        services = [f"kill-{number}" for number in range(9)]

        def take(number: int) -> None:
            for service in services:
                one = look(float(number), service=service, instance=service, unix_s=time.time())
                store.take(one, [Taken("heap", heap_bytes({"a": 1000 + number}))])

        take(1)
        store.flush()
        order[0].process.kill()
        order[0].process.wait()
        # The one that is asked first does not answer, so the next one is.
        assert store.engine.query("SELECT 1") == [(1,)]
        take(2)
        assert not store.intake.flush(5.0)
        assert store.intake.waiting > 0
        assert store.intake.failing is not None
        with pytest.raises(StoreError):
            store.history.profiles(services[0], TimeRange(0, time.time()))
            store.history.service_names()
    assert list((tmp_path / "wal").glob("*.wal"))


def test_the_statements_can_be_read_first() -> None:
    """Replicated and on the whole cluster, unless it has no Keeper."""
    shown = stanch("store", "init", "--cluster", "prod", "--print").out
    assert shown.count("CREATE TABLE IF NOT EXISTS") == 2 * len(TABLES)
    assert "ON CLUSTER 'prod'" in shown and "Replicated" in shown
    alone = stanch("store", "init", "--cluster", "prod", "--print", "--without-keeper").out
    assert "ON CLUSTER" not in alone and "Replicated" not in alone


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--store is missing"),
        (["--store", "ftp://h"], "is no address of a store"),
        (["--store", "http://127.0.0.1:1"], "127.0.0.1"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_one_sentence(
    arguments: list[str], complaint: str
) -> None:
    """Exit code 2."""
    outcome = stanch("store", "init", "--cluster", "c", *arguments)
    assert (outcome.code, complaint in outcome.err) == (2, True)
    assert len(outcome.err.splitlines()) == 1

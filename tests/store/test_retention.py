"""What is dropped: what is old, what is too much, and what must go when the disk is nearly full."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stanch.store import Look, ProcessLook
from stanch.store.history import TimeRange
from stanch.store.retention import Retention, RetentionBounds
from stanch.store.sqlstore import SqlStore, Taken, open_store
from tests.store.pprofs import heap_bytes

NOW = 1_800_000_000.0
HOUR_S = 3600.0
GIB = 1024**3
PLENTY = RetentionBounds(free_bytes=0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    """A profile every three hours of two days, each with some random bytes that do not pack."""
    with open_store("chdb", tmp_path, wall=lambda: NOW) as opened:
        for number in range(16):
            unix_s = NOW - 3 * HOUR_S * (16 - number) + 600
            process = ProcessLook(1, None, 60.0 + 3 * HOUR_S * number, rss_bytes=1e6)
            heap = {os.urandom(8).hex(): 1000 for _ in range(200)}
            look = Look("shop", "shop-1", 0.0, unix_s, "python", (process,))
            opened.take(look, [Taken("heap", heap_bytes(heap))])
        opened.flush()
        yield opened


def retention(
    store: SqlStore, bounds: RetentionBounds, free: Callable[[], int] = lambda: 100 * GIB
) -> Retention:
    """The retention of a store whose disk has so much room."""
    return Retention(store.engine, bounds, wall=lambda: NOW, notice=store.notice, free=free)


def kept(store: SqlStore) -> int:
    """How many profiles are listed."""
    return len(store.history.profiles("shop", TimeRange(0.0, NOW)))


def hours(store: SqlStore) -> set[str]:
    """The partitions of samples that there are."""
    rows = store.engine.query(
        "SELECT DISTINCT partition_id FROM system.parts WHERE table = 'samples' AND active"
    )
    return {row[0] for row in rows}


def test_old_partitions_go(store: SqlStore) -> None:
    """What is older than its age goes by whole partitions; raw profiles go after an hour."""
    assert kept(store) == 16
    raw = [row.has_raw for row in store.history.profiles("shop", TimeRange(0.0, NOW))]
    assert all(raw)
    tending = retention(store, replace(PLENTY, age_s=24 * HOUR_S))
    assert tending.tend() > 0
    assert 8 <= kept(store) <= 10
    oldest = min(row.unix_s for row in store.history.profiles("shop", TimeRange(0.0, NOW)))
    assert oldest >= NOW - 30 * HOUR_S
    assert not any(row.has_raw for row in store.history.profiles("shop", TimeRange(0.0, NOW)))
    assert tending.tend() == 0
    assert store.history.storage().notices == ()


def test_the_oldest_goes_when_there_is_too_much(store: SqlStore) -> None:
    """Above the bound in bytes the oldest partitions go, each with a notice."""
    ((size,),) = store.engine.query(
        "SELECT sum(bytes_on_disk) FROM system.parts WHERE database = 'stanch' AND active"
    )
    before = hours(store)
    retention(store, replace(PLENTY, max_bytes=size // 2, raw_age_s=1e9)).tend()
    after = hours(store)
    assert after < before
    assert max(before) in after
    assert min(before) not in after
    notices = store.history.storage().notices
    assert notices
    assert "dropped the oldest partition" in notices[0]


def test_below_the_floor_the_newest_stays(store: SqlStore) -> None:
    """However little room there is, the newest hours are kept, and new looks are taken."""
    tending = retention(store, RetentionBounds(free_bytes=GIB), free=lambda: 0)
    tending.tend()
    assert len(hours(store)) == 1
    assert "0 bytes are free" not in store.history.storage().notices[-1] or kept(store) >= 1
    process = ProcessLook(1, None, 1e6, rss_bytes=1e6)
    look = Look("shop", "shop-1", 0.0, NOW - 1, "python", (process,))
    assert store.take(look, [Taken("heap", heap_bytes({"new": 5}))])
    store.flush()
    assert store.history.profiles("shop", TimeRange(NOW - 10, NOW))


def test_only_as_much_goes_as_is_needed(store: SqlStore) -> None:
    """Dropping stops when there is room again: the files of a dropped partition go at once."""
    ((size,),) = store.engine.query(
        "SELECT sum(bytes_on_disk) FROM system.parts"
        " WHERE table IN ('samples', 'memory', 'profiles') AND active"
    )
    before, used = hours(store), _used(store)
    bounds = RetentionBounds(free_bytes=GIB, raw_age_s=1e9)
    retention(store, bounds, free=lambda: GIB - size // 10 + used - _used(store)).tend()
    assert len(before) - 2 <= len(hours(store)) < len(before)


def _used(store: SqlStore) -> int:
    """Bytes of all files of the tables."""
    assert store.engine.directory is not None
    files = (store.engine.directory / "chdb" / "store").rglob("*.bin")
    return sum(file.stat().st_size for file in files)


def test_raw_profiles_have_a_bound_of_their_own(store: SqlStore) -> None:
    """Raw profiles beyond their bytes go, oldest first; while they are too many none is kept."""
    tending = retention(store, replace(PLENTY, raw_age_s=1e9, raw_bytes=1))
    tending.tend()
    rows = store.history.profiles("shop", TimeRange(0.0, NOW))
    assert sum(row.has_raw for row in rows) == 1
    assert rows[0].has_raw
    assert not tending.keeps_raw()


def test_tends_by_itself(store: SqlStore) -> None:
    """A thread does it every so often, until it is closed."""
    tending = retention(store, replace(PLENTY, age_s=24 * HOUR_S))
    tending.start(0.05)
    until = time.monotonic() + 60
    while kept(store) == 16:
        assert time.monotonic() < until
        time.sleep(0.05)
    tending.close()

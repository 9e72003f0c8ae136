"""The way in while the tables do not keep up: memory stays bounded, and nothing is lost."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from stanch.store.errors import StoreFullError
from stanch.store.intake import IntakeBounds
from stanch.store.sqlstore import SqlStore, open_store
from tests.store.looks import PROCESS, heap, look

EACH = IntakeBounds(rows=1, seconds=3600.0, waiting_bytes=6_000)
"""Each look is a segment of its own, and about ten of them may wait."""


def take(store: SqlStore, second: int) -> None:
    """Give the store a look with a heap."""
    process = replace(PROCESS, age_s=float(second), heap=(heap("kept", 1000.0 * second),))
    store.add(look(float(second), process, unix_s=time.time()))


def test_what_the_tables_refuse_waits_on_the_disk(tmp_path: Path) -> None:
    """Segments pile up on the disk and not in memory until a bound, where senders are refused;
    when the tables take again, each is inserted once."""
    taken = 0
    with open_store("chdb", tmp_path, bounds=EACH) as store:
        store.engine.command("RENAME TABLE stanch.samples TO stanch.away")
        with pytest.raises(StoreFullError, match="wait to be stored"):
            for second in range(1, 1000):
                take(store, second)
                taken += 1
        assert taken > 4
        assert store.intake.waiting <= 2
        assert len(list((tmp_path / "wal").glob("*.wal"))) == taken
        assert store.intake.failing is not None
        store.engine.command("RENAME TABLE stanch.away TO stanch.samples")
        store.flush()
        ((profiles, names),) = store.engine.query(
            "SELECT count(), uniqExact(profile) FROM profiles"
        )
        assert (profiles, names) == (taken, taken)
        ((rows,),) = store.engine.query("SELECT count() FROM samples")
        assert rows == taken


def test_a_segment_is_closed_when_it_is_full(tmp_path: Path) -> None:
    """Also without a flush and long before its time."""
    with open_store("chdb", tmp_path, bounds=EACH) as store:
        take(store, 1)
        deadline_s = time.monotonic() + 60
        while store.intake.inserted_rows < 1:
            assert time.monotonic() < deadline_s, "it was not inserted"
            time.sleep(0.02)
        assert store.intake.waiting == 0

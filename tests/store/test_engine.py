"""The embedded engine: one owner, no older version, a memory cap, errors in words."""

import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stanch.store.engine import open_chdb, open_http
from stanch.store.errors import StoreError
from stanch.store.schema import DATABASE, MEMORY, TABLES
from stanch.store.sqlstore import open_store
from tests.store.looks import look

_OPEN = """
import sys
from pathlib import Path
from stanch.store.engine import open_chdb
from stanch.store.errors import StoreError
try:
    open_chdb(Path(sys.argv[1])).close()
except StoreError as error:
    print(error)
"""


def opened_elsewhere(directory: Path) -> str:
    """What another process is told that opens the directory."""
    command = [sys.executable, "-c", _OPEN, str(directory)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_one_process_owns_a_directory(tmp_path: Path) -> None:
    """A second process is refused while the first has the directory, and let in afterwards."""
    engine = open_chdb(tmp_path)
    try:
        assert "another process uses the data directory" in opened_elsewhere(tmp_path)
    finally:
        engine.close()
    assert opened_elsewhere(tmp_path) == ""
    with pytest.raises(StoreError, match="closed"):
        engine.query("SELECT 1")


def test_merged_parts_are_synced(tmp_path: Path) -> None:
    """In every table, also of a store that an earlier version has made; and a merge does it."""
    setting = "min_rows_to_fsync_after_merge = 1"
    engine = open_chdb(tmp_path)
    engine.command(f"ALTER TABLE {DATABASE}.memory RESET SETTING {setting.partition(' ')[0]}")
    engine.close()
    engine = open_chdb(tmp_path)
    try:
        shown = "SELECT name, engine_full FROM system.tables WHERE database = currentDatabase()"
        tables = dict(engine.query(shown))
        assert set(tables) == {table.name for table in TABLES}
        assert all(setting in text for text in tables.values()), tables

        def synced() -> int:
            ((count,),) = engine.query(
                "SELECT sum(value) FROM system.events WHERE event = 'FileSync'"
            )
            return int(count)

        insert = f"INSERT INTO {DATABASE}.memory (service, time) VALUES"
        for second in (1_800_000_000, 1_800_000_001):
            engine.command(f"{insert} ('shop', {second})")
        before = synced()
        engine.command(f"OPTIMIZE TABLE {DATABASE}.memory FINAL")
        assert synced() > before
    finally:
        engine.close()


def test_an_older_engine_is_refused(tmp_path: Path) -> None:
    """The version that wrote last is remembered; an older one names what to install."""
    open_chdb(tmp_path).close()
    file = tmp_path / "engine-version"
    version = file.read_text().strip()
    assert version[0].isdigit()
    file.write_text("999.1.0\n")
    with pytest.raises(StoreError, match=r"install chdb-core 999\.1\.0 or later"):
        open_chdb(tmp_path)
    file.write_text("1.0\n")
    open_chdb(tmp_path).close()
    assert file.read_text().strip() == version


def test_a_directory_of_an_earlier_version_is_brought_up(tmp_path: Path) -> None:
    """Columns that its tables lack are added when it is opened, and its rows stay."""
    with open_store("chdb", tmp_path) as store:
        store.add(look(1.0, unix_s=time.time()))
        store.flush()
        for column in MEMORY.added:
            store.engine.command(f"ALTER TABLE memory DROP COLUMN {column}")
    with open_store("chdb", tmp_path) as store:
        ((files, rss),) = store.engine.query("SELECT open_fds, rss_bytes FROM memory")
        assert math.isnan(files)
        assert rss == 50e6
        (life,) = store.series("shop").lives
        assert life.max_fds is None


def test_a_query_beyond_the_memory_cap_fails_alone(tmp_path: Path) -> None:
    """What would take too much memory is an error in words, and the next query works."""
    engine = open_chdb(tmp_path, memory_bytes=700_000_000)
    try:
        hungry = "SELECT length(groupArray(number)) FROM numbers(400000000)"
        with pytest.raises(StoreError, match=r"(?i)memory"):
            engine.query(hungry)
        assert engine.query("SELECT 1") == [(1,)]
    finally:
        engine.close()


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    """A file in its place, and an address that is none, are errors with the remedy."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="data directory"):
        open_chdb(tmp_path / "file")
    with pytest.raises(StoreError, match="expected chdb:///DIRECTORY or http"):
        open_store("mysql://x", tmp_path)
    with pytest.raises(StoreError, match="no node of the store answers"):
        open_http("http://127.0.0.1:9")


def test_a_bad_statement_is_one_sentence(tmp_path: Path) -> None:
    """The engine's errors come as StoreError."""
    engine = open_chdb(tmp_path)
    try:
        with pytest.raises(StoreError, match=r"the store failed: .*nothing_of_this_name"):
            engine.query("SELECT * FROM nothing_of_this_name")
    finally:
        engine.close()

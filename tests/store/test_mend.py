"""A token of which the rows are nowhere, as a kill between the two leaves it, loses nothing."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from stanch.store.blocks import blocks
from stanch.store.engine import open_chdb
from stanch.store.record import Record, decode_record
from stanch.store.rows import decode_payloads
from stanch.store.sqlstore import open_store
from stanch.store.wal import read_segment

PROFILES = 20
KILLED = """
import os, signal, sys, time
from pathlib import Path
from stanch.store import Look, ProcessLook
from stanch.store.intake import IntakeBounds
from stanch.store.sqlstore import Taken, open_store
from tests.store.pprofs import heap_bytes
store = open_store("chdb", Path(sys.argv[1]), bounds=IntakeBounds(seconds=3600.0))
for number in range(int(sys.argv[2])):
    data = heap_bytes({f"f{number}": 1000 + number}, time_s=number)
    look = Look("shop", "shop-1", number, time.time(), "python", (ProcessLook(1, None, 60.0),))
    store.take(look, [Taken("heap", data)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_tokens_without_rows(tmp_path: Path) -> None:
    """Every profile is there once although the engine knows the token of each of its blocks."""
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(PROFILES)])
    assert killed.returncode == -signal.SIGKILL
    segments = list(tmp_path.rglob("*.wal"))
    assert segments
    engine = open_chdb(tmp_path)
    for path in segments:
        # Other rows under the tokens, since there is no way to have a token alone.
        records = [decode_record(data) for data in read_segment(path)]
        others = [decode_payloads(_another(record), set()) for record in records]
        for table, block in blocks(others, keep_raw=True):
            engine.insert(table, block, f"{path.stem}-{table.name}")
    engine.close()
    for _ in range(2):
        with open_store("chdb", tmp_path) as store:
            store.flush()
            for table in ("samples", "profiles", "memory", "raw"):
                ((rows,),) = store.engine.query(
                    f"SELECT count() FROM {table} WHERE service = 'shop'"
                )
                assert (table, rows) == (table, PROFILES)
            assert "shop" in store.history.service_names()


def _another(record: Record) -> Record:
    """The same of another service."""
    payloads = tuple(replace(each, name=each.name[::-1]) for each in record.payloads)
    return replace(record, service="other", lives=(), payloads=payloads)

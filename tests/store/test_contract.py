"""The contract of stores, on chDB: the same looks give the same series as in memory."""

from pathlib import Path

import pytest

from stanch.store import Look
from stanch.store.sqlstore import open_store
from tests.store.contract import NOW, check_store, go_looks, growing_looks


@pytest.mark.parametrize("looks", [growing_looks(), go_looks()], ids=["python", "go"])
def test_gives_what_the_store_in_memory_gives(tmp_path: Path, looks: list[Look]) -> None:
    """Lives, deaths, heaps, births and counts are those of the same looks in memory."""
    with open_store("chdb", tmp_path, wall=lambda: NOW) as store:
        check_store(store, looks, store.flush)

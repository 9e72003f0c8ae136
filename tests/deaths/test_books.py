"""The contract of books of deaths, on a journal and on a store; and what moves from one to the
other."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stanch.deaths import Death
from stanch.deaths.book import (
    DeathBook,
    JournalBook,
    death_by_number,
    deaths,
    profile_of,
)
from stanch.deaths.storebook import StoreBook, death_of, move_journal, take_up_lives
from stanch.journal import Journal
from stanch.store import Look, ProcessLook
from stanch.store.sqlstore import Taken, open_store
from tests.deaths.contract import Written, check_containers, check_one_entry, in_store
from tests.deaths.test_cause import AT, DEATH
from tests.store.pprofs import heap_bytes

MIB = 1024.0 * 1024.0


def in_journal(directory: Path) -> list[tuple[Death, bytes | None]]:
    """What a journal has, the newest first."""
    with Journal(directory) as journal, journal.read() as transaction:
        return [(death, profile_of(transaction, number)) for number, death in deaths(transaction)]


@pytest.fixture(params=["journal", "store"])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[DeathBook, Written]]:
    """A book, and how to read what is in it."""
    if request.param == "journal":
        with contextlib.closing(JournalBook(tmp_path)) as journal:
            yield journal, lambda: in_journal(tmp_path)
        return
    with open_store("chdb", tmp_path) as store:
        yield StoreBook(store), lambda: in_store(store)


def test_two_words_about_one_death_are_one_entry(book: tuple[DeathBook, Written]) -> None:
    """See the contract."""
    check_one_entry(*book)


def test_containers_are_known(book: tuple[DeathBook, Written]) -> None:
    """See the contract."""
    check_containers(*book)


def test_what_an_earlier_server_wrote_is_moved(tmp_path: Path) -> None:
    """Deaths of its journal go into the store, once; lives at their limit become deaths, under the
    names that links have; the last profile of an instance can be read."""
    with contextlib.closing(JournalBook(tmp_path)) as old:
        for number in range(3):
            death = replace(DEATH, key=str(number), died_unix=AT + 1000.0 * number)
            old.record(death, b"profile")
    with open_store("chdb", tmp_path, wall=lambda: AT) as store:
        new = StoreBook(store)
        with Journal(tmp_path) as journal:
            assert move_journal(journal, new) == 3
            assert move_journal(journal, new) == 0
            with journal.read() as transaction:
                assert death_by_number(transaction, 1) is None
        assert [(death.key, profile) for death, profile in in_store(store)] == [
            (str(number), b"profile") for number in (2, 1, 0)
        ]
        assert take_up_lives(store, new) == 0
    with open_store("chdb", tmp_path / "other", wall=lambda: AT) as store:
        for at_s, pid in ((0.0, 1), (15.0, 1), (30.0, 2)):
            process = ProcessLook(pid, 60.0 + at_s, rss_bytes=95 * MIB)
            look = Look("shop", "s-1", at_s, AT - 60 + at_s, "python", (process,), 100 * MIB)
            data = heap_bytes({"remember": int(at_s + 1) * 1000}, age_s=60.0 + at_s)
            store.take(look, [Taken("heap", data)])
        store.flush()
        new = StoreBook(store)
        assert take_up_lives(store, new) == 1
        assert take_up_lives(store, new) == 0
        (life,) = store.history.killed_lives()
        row = store.history.death(life.life)
        assert row is not None
        death = death_of(row)
        assert (death.cause, death.sure, death.pids, death.instance) == ("oom", False, (1,), "s-1")
        assert death.memory_bytes == 95 * MIB
        assert new.last_profile("shop", "s-1", AT - 60 + 15.0) is not None
        assert new.last_profile("shop", "s-2", AT) is None

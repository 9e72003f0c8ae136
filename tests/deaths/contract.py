"""What every book of deaths must do, whatever it is kept in."""

from collections.abc import Callable
from dataclasses import replace

from stanch.deaths import Death, Forecast
from stanch.deaths.book import MAX_PROFILE_BYTES, DeathBook
from stanch.deaths.storebook import death_of
from stanch.store.history import TimeRange
from stanch.store.sqlstore import SqlStore
from tests.deaths.test_cause import AT, DEATH

ALL = TimeRange(0.0, 4e9)
Written = Callable[[], list[tuple[Death, bytes | None]]]


def in_store(store: SqlStore) -> list[tuple[Death, bytes | None]]:
    """What a store has, the newest first."""
    rows = store.history.deaths(ALL)
    return [(death_of(row), store.history.death_profile(row.death)) for row in rows]


def check_one_entry(written: DeathBook, read: Written) -> None:
    """Two words about one death are one entry: by key, by process, or by time where no process is
    named; a later death is another, and a box's profile replaces that of the last look."""
    forecast = Forecast(AT - 60, "leak", AT - 5, AT, AT + 5)
    written.record(replace(DEATH, forecast=forecast), b"looked at")
    told = Death("x", "shop", "shop-1", (), "oom", "killed", True, AT + 2.0)
    assert written.record(told).sure
    assert read() == [(written.record(told), b"looked at")]
    both = written.record(replace(DEATH, key="y", profile_from="table"), b"black box")
    assert (both.key, both.forecast, both.requests) == (DEATH.key, forecast, DEATH.requests)
    assert read() == [(both, b"black box")]
    written.record(replace(DEATH, key="z", pids=(8,), died_unix=AT + 20))
    written.record(replace(told, key="w", died_unix=AT + 900))
    written.record(replace(told, key="v", instance="shop-2", died_unix=AT + 5))
    assert [each.key for each, _ in read()] == ["w", "z", "v", DEATH.key]
    huge = replace(DEATH, key="huge", died_unix=AT + 9000)
    written.record(huge, b"x" * (MAX_PROFILE_BYTES + 1))
    assert read()[0] == (huge, None)


def check_containers(written: DeathBook, read: Written) -> None:
    """Each container's end is one, whatever is told of others within the same minute."""
    for name in ("a", "b", "a"):
        death = Death(f"k{name}", "shop", "box-1", (), "oom", "killed", True, AT, container=name)
        written.record(death)
    assert written.has_container("shop", "box-1", "a")
    assert not written.has_container("shop", "shop-2", "a")
    assert sorted(death.container for death, _ in read() if death.container) == ["a", "b"]

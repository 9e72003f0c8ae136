"""Why a process ended, and how two words about one death are put together."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from stanch.deaths import Cause, Death, Evidence, Forecast, cause_of, deaths, profile_of, record
from stanch.deaths.book import MAX_PROFILE_BYTES, death_by_number
from stanch.deaths.death import death_from_json, death_to_json, joined
from stanch.deaths.telling import death_facts, death_title, forecast_text
from stanch.journal import Journal

AT = 1.7e9
DEATH = Death(
    key="shop/shop-1/7/1",
    service="shop",
    instance="shop-1",
    pids=(7,),
    cause="oom",
    how="at its memory limit when it was last seen, so most likely killed",
    sure=False,
    died_unix=AT,
    uptime_s=85.0,
    memory_bytes=155.0 * 1024 * 1024,
    limit_bytes=160.0 * 1024 * 1024,
    requests=1700.0,
    in_flight=3.0,
    forecast=Forecast(AT - 40, "leak (confirmed) in shop", AT - 4, AT - 1, AT + 5),
    file="/srv/shop/sessions.py",
    line=41,
    function="remember",
    place_bytes=90.0 * 1024 * 1024,
    live_bytes=100.0 * 1024 * 1024,
    profile_from="scrape",
    profile_age_s=2.0,
)


@pytest.mark.parametrize(
    ("evidence", "cause", "sure"),
    [
        (Evidence(), "unknown", False),
        (Evidence(oom_killed=True, clean=True, status=0), "oom", True),
        (Evidence(oom_killed=True, recycled="growing"), "oom", True),
        (Evidence(recycled="growing", status=-15), "recycle", True),
        (Evidence(deployed="a to b"), "deploy", True),
        (Evidence(status=0), "exit", True),
        (Evidence(status=1), "crash", True),
        (Evidence(status=-signal.SIGTERM), "exit", True),
        (Evidence(status=143), "exit", True),
        (Evidence(status=-signal.SIGSEGV), "crash", True),
        (Evidence(status=139, near_limit=True), "crash", True),
        (Evidence(status=-signal.SIGKILL), "crash", True),
        (Evidence(status=-signal.SIGKILL, near_limit=True), "oom", False),
        (Evidence(status=137, near_limit=True), "oom", False),
        (Evidence(status=-63), "crash", True),
        (Evidence(clean=True, near_limit=True), "exit", True),
        (Evidence(clean=False, near_limit=True), "oom", False),
        (Evidence(near_limit=True), "oom", False),
        (Evidence(clean=False), "crash", False),
        (Evidence(clean=False, near_limit=False), "crash", False),
    ],
)
def test_the_cause_follows_from_the_evidence(evidence: Evidence, cause: Cause, sure: bool) -> None:
    """What the kernel and a parent know goes before what can be inferred."""
    found, how, is_sure = cause_of(evidence)
    assert (found, is_sure) == (cause, sure)
    assert how


def test_evidence_is_joined_with_its_own_word_first() -> None:
    """What one side knows is kept, what it does not is taken from the other."""
    one = Evidence(status=0, recycled="growing")
    other = Evidence(oom_killed=True, status=1, clean=False, near_limit=True, deployed="a to b")
    assert one | other == Evidence(True, 0, False, True, "growing", "a to b")


def test_a_sure_word_replaces_a_likely_one() -> None:
    """And not the other way round; what was unknown is filled in."""
    told = Death("k", "shop", "shop-1", (), "crash", "ended by SIGSEGV", True, AT, limit_bytes=1.0)
    both = joined(DEATH, told)
    assert (both.cause, both.how, both.sure) == ("crash", "ended by SIGSEGV", True)
    assert (both.place, both.pids, both.limit_bytes) == (DEATH.place, (7,), DEATH.limit_bytes)
    later = joined(DEATH, replace(told, died_unix=AT + 20))
    assert (later.died_unix, later.uptime_s, later.profile_age_s) == (AT + 20, 105.0, 22.0)
    assert joined(told, DEATH).cause == "crash"
    assert joined(told, DEATH).memory_bytes == DEATH.memory_bytes
    assert joined(told, DEATH).place == DEATH.place


def test_the_black_box_replaces_the_last_look() -> None:
    """A profile of the table is newer than one that was scraped."""
    table = replace(DEATH, function="forget", profile_from="table", profile_age_s=0.1)
    assert joined(DEATH, table).function == "forget"
    assert joined(table, DEATH).function == "forget"


def test_a_death_is_the_same_after_json() -> None:
    """With and without a forecast."""
    for death in (DEATH, replace(DEATH, forecast=None)):
        assert death_from_json(death_to_json(death)) == death


def test_two_words_about_one_death_are_one_entry(tmp_path: Path) -> None:
    """By key, by process, or by time where no process is named; a later death is another."""
    with Journal(tmp_path) as journal, journal.write() as transaction:
        record(transaction, DEATH, b"looked at")
        told = Death("x", "shop", "shop-1", (), "oom", "killed", True, AT + 2.0)
        assert record(transaction, told).sure
        record(transaction, replace(DEATH, key="y", profile_from="table"), b"black box")
        ((number, death),) = deaths(transaction)
        assert death.sure
        assert profile_of(transaction, number) == b"black box"
        record(transaction, replace(DEATH, key="z", pids=(8,), died_unix=AT + 20))
        record(transaction, replace(told, key="w", died_unix=AT + 900))
        record(transaction, replace(told, key="v", instance="shop-2"))
        assert [each.key for _, each in deaths(transaction)] == ["w", "z", "v", DEATH.key]
        assert len(deaths(transaction, "shop")) == 4
        assert deaths(transaction, "cart") == []
        assert death_by_number(transaction, 99) is None


def test_the_book_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest deaths go, profiles before them, and a huge profile is not taken in."""
    monkeypatch.setattr("stanch.deaths.book.MOST_DEATHS", 5)
    monkeypatch.setattr("stanch.deaths.book.MOST_PROFILES", 2)
    with Journal(tmp_path) as journal, journal.write() as transaction:
        for number in range(8):
            later = AT + 1000 * number
            record(transaction, replace(DEATH, key=str(number), died_unix=later), b"profile")
        found = deaths(transaction)
        assert [death.key for _, death in found] == ["7", "6", "5", "4", "3"]
        kept = [profile_of(transaction, number) is not None for number, _ in found]
        assert kept == [True, True, False, False, False]
        huge = b"x" * (MAX_PROFILE_BYTES + 1)
        record(transaction, replace(DEATH, key="huge", died_unix=AT + 9000), huge)
        number, _ = deaths(transaction)[0]
        assert profile_of(transaction, number) is None


def test_a_death_in_words() -> None:
    """Who, how, with what, and what had been foretold."""
    assert death_title(DEATH).startswith("shop shop-1 (pid 7): at its memory limit")
    assert death_facts(DEATH) == (
        "memory 155 MiB of 160 MiB, up for 85 s, 1,700 requests served, 3 in flight, "
        "90.0 MiB of 100 MiB live from shop/sessions.py:41 remember"
    )
    said = forecast_text(DEATH)
    assert said.startswith("foretold 40 s before for ")
    assert said.endswith("it came 1 s later, within what was said")
    assert forecast_text(replace(DEATH, forecast=None)) == ""
    native = replace(DEATH, taken_by="parse in libx.so")
    assert native.place == "shop/sessions.py:41 remember, parse in libx.so"

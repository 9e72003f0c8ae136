"""What servers that share a store know of each other's alarms, marks and maintenance windows."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stanch.alert.configuration import AlarmConfiguration, ReceiverSpec
from stanch.alert.silences import Marked, add_window, marks, remove_mark, set_mark, windows
from stanch.journal import Journal
from stanch.server.alarming import Alarming
from stanch.server.sharedalarms import SharedAlarms
from stanch.server.watch import TargetRow, WatchState
from stanch.store.engine import Engine, open_chdb
from stanch.store.series import ServiceSeries
from tests.alert.samples import Hook, Posted, leak, webhook


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """The tables; what is in them is the same on a cluster."""
    opened = open_chdb(tmp_path / "store")
    yield opened
    opened.close()


@dataclass
class Side:
    """One server's alarms: its journal, and what it has in the store."""

    alarming: Alarming
    journal: Journal

    def observe(self) -> None:
        """Look at a shop that leaks."""
        row = TargetRow("shop", "shop-1", "leak")
        self.alarming.take(WatchState(1, time.time(), 1.0, (row,)), [leak()])


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A local webhook."""
    with webhook() as served:
        yield served


@pytest.fixture
def sides(engine: Engine, tmp_path: Path, hook: Hook) -> Iterator[tuple[Side, Side]]:
    """Two servers that tell the same webhook."""
    configuration = AlarmConfiguration(receivers=(ReceiverSpec("hook", "webhook", hook.url),))

    def side(name: str) -> Side:
        directory = tmp_path / name
        shared = SharedAlarms(engine, directory, lambda: True)
        alarming = Alarming(
            configuration, directory, series=lambda name: ServiceSeries(name, (), ()), shared=shared
        )
        return Side(alarming, Journal(directory))

    one, two = side("one"), side("two")
    with one.alarming, two.alarming, one.journal, two.journal:
        yield one, two


def news(hook: Hook) -> list[str]:
    """What came, each message of it."""
    return [posted.body["news"] for posted in hook.posted]


def test_who_takes_over_tells_nothing_again(sides: tuple[Side, Side], hook: Hook) -> None:
    """What one has told, and delivered, the other goes on with; so it is with what came after."""
    one, two = sides
    one.alarming.shift((), ("shop",))
    one.observe()
    hook.wait_for(1)
    one.alarming.shift(("shop",), ())
    two.alarming.shift((), ("shop",))
    two.observe()
    two.alarming.shift(("shop",), ())
    one.alarming.shift((), ("shop",))
    one.observe()
    assert not [alarm for alarm in two.alarming.desk.alarms if alarm.service == "shop"]
    (alarm,) = one.alarming.desk.alarms
    assert (alarm.told, alarm.told_stage, alarm.status) == (1, "confirmed", "firing")
    assert news(hook) == ["firing"]


def test_what_was_not_delivered_is_told_by_who_takes_over(
    sides: tuple[Side, Side], hook: Hook
) -> None:
    """A message that waits is taken back by the one that loses the service, and the other tells."""
    one, two = sides
    tries = threading.Semaphore(0)
    is_down = True

    def answer(posted: Posted) -> int:
        tries.release()
        return 503 if is_down else 200

    hook.answer = answer
    one.alarming.shift((), ("shop",))
    one.observe()
    assert tries.acquire(timeout=60)
    one.alarming.shift(("shop",), ())
    is_down = False
    hook.posted.clear()
    two.alarming.shift((), ("shop",))
    two.observe()
    hook.wait_for(1)
    with one.journal.read() as transaction:
        waiting = transaction.execute("SELECT count(*) FROM outbox WHERE state != 'sent'")
        assert waiting.fetchone()[0] == 0
    assert news(hook) == ["firing"]


def test_what_an_earlier_process_left_is_not_told_beside_the_new_owner(
    sides: tuple[Side, Side], hook: Hook
) -> None:
    """At its start a server gives up what it had, but for what is its own."""
    one, two = sides
    one.observe()
    hook.wait_for(1)
    one.alarming.shift((), ())
    assert not one.alarming.desk.alarms
    two.alarming.shift((), ("shop",))
    two.observe()
    assert news(hook) == ["firing"]


MARK = Marked(leak().fingerprint, "known", "ticket 7", "ann", 1.7e9, 1000.0)


def test_marks_and_windows_hold_everywhere(sides: tuple[Side, Side]) -> None:
    """Set at one, seen at the other, taken away there, gone at the first; nothing comes back."""
    one, two = sides
    with one.journal.write() as transaction:
        set_mark(transaction, MARK)
        add_window(transaction, "pay*", 1.7e9, 1.8e9, note="move")
    one.alarming.shift((), ())
    two.alarming.shift((), ())
    with two.journal.write() as transaction:
        assert marks(transaction) == {MARK.fingerprint: MARK}
        assert [(one.id, one.service, one.note) for one in windows(transaction)] == [
            (1, "pay*", "move")
        ]
        remove_mark(transaction, MARK.fingerprint)
    for side in (two, one, two):
        side.alarming.shift((), ())
        with side.journal.read() as transaction:
            assert len(windows(transaction)) == 1
    for side in (one, two):
        with side.journal.read() as transaction:
            assert marks(transaction) == {}


def test_windows_that_were_set_at_once_are_both_kept(sides: tuple[Side, Side]) -> None:
    """The second to be shared gets another number."""
    one, two = sides
    for side, service in ((one, "pay*"), (two, "shop")):
        with side.journal.write() as transaction:
            assert add_window(transaction, service, 1.7e9, 1.8e9) == 1
    for side in (one, two, one):
        side.alarming.shift((), ())
    for side in (one, two):
        with side.journal.read() as transaction:
            assert {window.service: window.id for window in windows(transaction)} == {
                "pay*": 1,
                "shop": 2,
            }


def test_a_marked_alarm_stays_quiet_at_the_next_server(
    sides: tuple[Side, Side], hook: Hook
) -> None:
    """It was told, then marked; who takes over says that it is marked, and no more."""
    one, two = sides
    one.alarming.shift((), ("shop",))
    one.observe()
    hook.wait_for(1)
    with one.journal.write() as transaction:
        set_mark(transaction, Marked(leak().fingerprint, "wontfix", "", "ann", 1.7e9, None))
    one.alarming.shift(("shop",), ())
    two.alarming.shift((), ("shop",))
    two.observe()
    hook.wait_for(2)
    two.observe()
    assert news(hook) == ["firing", "marked"]

"""The desk: conditions in, journal and outbox out; marks, windows and restarts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from stanch.alert import AlarmDesk, Condition, Policy
from stanch.alert.desk import Illustration
from stanch.alert.handover import Handover, handover_from_json, handover_to_json
from stanch.alert.outbox import counts, note_sent, take_next
from stanch.alert.silences import (
    DAY_S,
    Marked,
    SilenceError,
    Window,
    add_window,
    remove_mark,
    remove_window,
    set_mark,
    windows,
)
from stanch.journal import Journal, JournalError
from tests.alert.samples import leak

BEGIN = 1.7e9
SHOP = leak()


@dataclass
class Shift:
    """A desk under a clock that the test sets; `restart` is a new process on the same journal."""

    directory: Path
    policy: Policy = field(default_factory=lambda: Policy(resolve_after_s=30.0))
    now: float = BEGIN
    harmless: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.journal = Journal(self.directory)
        self.desk = AlarmDesk(
            self.journal,
            self.policy,
            lambda service: ["all", "shop only"] if service == "shop" else ["all"],
            harmless=lambda service: self.harmless.get(service),
            illustrate=lambda condition: Illustration(f"http://stanch/{condition.service}", "cG5n"),
        )

    def look(self, *conditions: Condition, after: float = 5.0, services: str = "shop cart") -> None:
        self.now += after
        messages = self.desk.observe(self.now, conditions, services.split())
        self.told += [f"{message.news} {message.alarm.service}" for message in messages]

    def deliver(self) -> None:
        """Let all receivers have all that waits for them."""
        with self.journal.write() as transaction:
            for receiver in ("all", "shop only"):
                while (message := take_next(transaction, receiver, self.now)) is not None:
                    note_sent(transaction, message, self.now)

    def hand_over(self, next_one: "Shift") -> None:
        """Let another server, with a journal of its own, go on from here."""
        left = handover_to_json(self.desk.leave())
        next_one.now = self.now
        next_one.desk.take_up(handover_from_json(left), self.now)

    def waiting(self) -> dict[str, int]:
        with self.journal.read() as transaction:
            return {each.receiver: each.waiting for each in counts(transaction)}

    def status(self, condition: Condition = SHOP) -> str:
        found = {alarm.fingerprint: alarm.status for alarm in self.desk.alarms}
        return found.get(condition.fingerprint, "none")


@pytest.fixture
def shift(tmp_path: Path) -> Iterator[Shift]:
    """A desk that has just begun."""
    shift = Shift(tmp_path)
    yield shift
    shift.journal.close()


def test_each_leak_goes_to_those_who_want_to_know_of_its_service(shift: Shift) -> None:
    """One message for each receiver of the service, however often it is seen."""
    for _ in range(20):
        shift.look(SHOP, leak("cart"))
    assert shift.told == ["firing shop", "firing cart"]
    assert shift.waiting() == {"all": 2, "shop only": 1}
    alarm = next(alarm for alarm in shift.desk.alarms if alarm.service == "shop")
    assert (alarm.link, alarm.picture) == ("http://stanch/shop", "cG5n")


def test_replicas_are_one_alarm(shift: Shift) -> None:
    """The same cause from several findings, as of replicas judged apart, is told once."""
    shift.look(SHOP, replace(SHOP, instances=("shop-9",)))
    assert shift.told == ["firing shop"]


def test_a_restart_tells_nothing_again_and_ends_nothing(shift: Shift) -> None:
    """A new process that does not see the leak yet keeps its alarm for as long as any gap."""
    shift.look(SHOP)
    shift.look(after=20.0)  # unseen for 20 s when the process ends
    shift.journal.close()
    shift.restart()
    shift.look(after=3600.0)
    shift.look(after=25.0)
    assert shift.status() == "firing"
    shift.look(SHOP)
    assert shift.told == ["firing shop"]
    shift.look()
    shift.look(after=30.0)
    assert shift.told == ["firing shop", "resolved shop"]


@pytest.mark.parametrize("verdict", ["known", "wontfix"])
def test_marks_survive_restarts(shift: Shift, verdict: str) -> None:
    """A marked leak is told no more, also by the next process and when it comes back."""
    shift.look(SHOP)
    mark = Marked(SHOP.fingerprint, verdict, "ticket 7", "ann", BEGIN, SHOP.rate)  # type: ignore[arg-type]
    with Journal(shift.directory) as other, other.write() as transaction:
        set_mark(transaction, mark)
    shift.look(SHOP)
    shift.journal.close()
    shift.restart()
    shift.look(SHOP)
    shift.look()
    shift.look(after=30.0)
    shift.look(SHOP)
    assert shift.told == ["firing shop", "marked shop"]
    assert shift.status() == "firing"
    assert "ticket 7" in shift.desk.alarms[0].quiet
    with Journal(shift.directory) as other, other.write() as transaction:
        assert remove_mark(transaction, SHOP.fingerprint)
        assert not remove_mark(transaction, SHOP.fingerprint)
    shift.look(SHOP)
    assert shift.told == ["firing shop", "marked shop", "firing shop"]


def test_a_known_leak_that_doubles_is_told_and_one_that_nobody_fixes_is_not(shift: Shift) -> None:
    """Known holds for the leak as it was judged; won't fix holds for good."""
    faster = replace(SHOP, rate=3 * (SHOP.rate or 0))
    with shift.journal.write() as transaction:
        set_mark(transaction, Marked(SHOP.fingerprint, "known", "", "", BEGIN, SHOP.rate))
    shift.look(SHOP)
    assert shift.told == []
    shift.look(faster)
    assert shift.told == ["firing shop"]
    with shift.journal.write() as transaction:
        set_mark(transaction, Marked(SHOP.fingerprint, "wontfix", "", "", BEGIN, SHOP.rate))
    shift.look(faster)
    shift.look(faster)
    assert shift.told == ["firing shop", "marked shop"]


def test_a_maintenance_window_holds_back(shift: Shift) -> None:
    """Within the window of its services nothing is told; after it, what is still there."""
    with shift.journal.write() as transaction:
        add_window(transaction, "sh*", BEGIN, BEGIN + 60.0, note="move")
    shift.look(SHOP, leak("cart"))
    assert shift.told == ["firing cart"]
    assert shift.status() == "firing"
    shift.look(SHOP, leak("cart"), after=60.0)
    assert shift.told == ["firing cart", "firing shop"]


def test_recycling_that_keeps_a_leak_harmless_keeps_it_quiet(shift: Shift) -> None:
    """As long as recycling prevents the harm nothing is told; when it stops, the leak is."""
    shift.harmless["shop"] = "recycled in time"
    shift.look(SHOP)
    assert (shift.told, shift.status()) == ([], "firing")
    del shift.harmless["shop"]
    shift.look(SHOP)
    assert shift.told == ["firing shop"]


def test_a_journal_that_cannot_be_written_loses_nothing(shift: Shift, tmp_path: Path) -> None:
    """What could not be written is told when it can be again, once."""
    shift.journal.close()
    with pytest.raises(JournalError):
        shift.look(SHOP)
    assert shift.status() == "none"
    alarms = shift.desk.alarms
    shift.restart()
    assert shift.desk.alarms == alarms == ()
    shift.look(SHOP)
    assert shift.told == ["firing shop"]
    assert shift.waiting() == {"all": 1, "shop only": 1}


def test_the_number_of_alarms_is_bounded(shift: Shift, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest that are over are forgotten, never one that fires."""
    monkeypatch.setattr("stanch.alert.desk._MOST_ALARMS", 10)
    shift.look(*(leak(cause=f"cause {number}") for number in range(15)))
    assert len(shift.desk.alarms) == 15
    shift.look(SHOP)
    assert len(shift.desk.alarms) == 16
    shift.look(SHOP, after=60.0)
    assert len(shift.desk.alarms) == 10
    assert shift.status() == "firing"
    shift.journal.close()
    shift.restart()
    assert len(shift.desk.alarms) == 10


@pytest.mark.parametrize(
    ("begins", "ends", "every", "at", "holds"),
    [
        (0, 3600, None, -1, False),
        (0, 3600, None, 0, True),
        (0, 3600, None, 3599, True),
        (0, 3600, None, 3600, False),
        (0, 3600, None, DAY_S + 10, False),
        (0, 3600, DAY_S, DAY_S + 10, True),
        (0, 3600, DAY_S, DAY_S + 3600, False),
        (0, 3600, DAY_S, -DAY_S + 10, False),
        (0, 3600, 7 * DAY_S, DAY_S + 10, False),
        (0, 3600, 7 * DAY_S, 70 * DAY_S + 10, True),
    ],
)
def test_when_a_window_is_open(
    begins: float, ends: float, every: float | None, at: float, holds: bool
) -> None:
    """From its beginning to its end, and again if it comes again, but never before."""
    window = Window(1, "shop", BEGIN + begins, BEGIN + ends, every, "", "")
    assert window.holds("shop", BEGIN + at) is holds
    assert not window.holds("cart", BEGIN + at)


@pytest.mark.parametrize(
    ("ends", "every", "says"), [(0.0, None, "after it begins"), (7200.0, 3600.0, "come again")]
)
def test_windows_that_cannot_be_are_refused(
    shift: Shift, ends: float, every: float | None, says: str
) -> None:
    """No end before the beginning, no return before the end."""
    with pytest.raises(SilenceError, match=says), shift.journal.write() as transaction:
        add_window(transaction, "shop", BEGIN, BEGIN + ends, every)


def test_windows_are_listed_and_removed(shift: Shift) -> None:
    """A window has a number, by which it goes."""
    make: Callable[..., int] = add_window
    with shift.journal.write() as transaction:
        late = make(transaction, "shop", BEGIN + 50, BEGIN + 60)
        early = make(transaction, "*", BEGIN, BEGIN + 10, DAY_S, "backup", "ann")
        assert [window.id for window in windows(transaction)] == [early, late]
        assert remove_window(transaction, late)
        assert not remove_window(transaction, late)
        assert windows(transaction) == [
            Window(early, "*", BEGIN, BEGIN + 10, DAY_S, "backup", "ann")
        ]


@pytest.fixture
def successor(tmp_path: Path) -> Iterator[Shift]:
    """A desk on another journal."""
    shift = Shift(tmp_path / "successor")
    yield shift
    shift.journal.close()


def test_who_takes_over_tells_nothing_again(shift: Shift, successor: Shift) -> None:
    """What was told is told once; what is over is told by whoever leads then, and so on."""
    shift.look(SHOP)
    shift.deliver()
    shift.hand_over(successor)
    successor.look(SHOP, leak("cart"))
    assert successor.told == ["firing cart"]
    successor.look(leak("cart"))
    successor.look(leak("cart"), after=31.0)
    assert successor.told == ["firing cart", "resolved shop"]
    successor.deliver()
    successor.hand_over(shift)
    shift.look(leak("cart"), after=60.0)
    shift.look(leak("cart"), after=60.0)
    assert shift.told == ["firing shop"]
    assert shift.status() == "resolved"
    shift.look(SHOP)
    assert shift.told == ["firing shop", "firing shop"]  # it came back


def test_what_was_not_delivered_is_told_again_by_the_next(shift: Shift, successor: Shift) -> None:
    """A message that may never have arrived is rather told twice; it stays in the outbox too."""
    shift.look(SHOP)
    shift.hand_over(successor)
    successor.look(SHOP)
    assert successor.told == ["firing shop"]
    successor.deliver()
    successor.hand_over(shift)
    assert shift.waiting() == {"all": 1, "shop only": 1}
    shift.look(SHOP)
    assert shift.told == ["firing shop"]


def test_marks_and_windows_go_with_the_lead(shift: Shift, successor: Shift) -> None:
    """A leak that somebody knows, and a service under maintenance, stay quiet afterwards."""
    known = Marked(SHOP.fingerprint, "wontfix", "old", "me", BEGIN, None)
    with shift.journal.write() as transaction:
        set_mark(transaction, known)
        add_window(transaction, "cart", BEGIN, BEGIN + DAY_S)
    with successor.journal.write() as transaction:
        set_mark(transaction, replace(known, fingerprint=leak("pricing").fingerprint))
    shift.hand_over(successor)
    successor.look(SHOP, leak("cart"), leak("pricing"), services="shop cart pricing")
    assert successor.told == ["firing pricing"]


def test_what_is_left_is_the_same_until_something_is_told(shift: Shift, successor: Shift) -> None:
    """Numbers of mere looks and reasons for quiet do not change it, so no Lease is written."""
    shift.look(SHOP)
    shift.deliver()
    left = handover_to_json(shift.desk.leave())
    for number in range(1, 10):
        seen = replace(
            SHOP,
            rate=(SHOP.rate or 0.0) * (1 + number / 100),
            death_unix=BEGIN + number,
            first_to_die=f"shop-{number}",
            instances=(f"shop-{number}",),
            text=f"look {number}",
        )
        shift.harmless["shop"] = f"recycled {number} times"
        shift.look(*([seen] if number % 3 else []))
        assert handover_to_json(shift.desk.leave()) == left
    assert shift.told == ["firing shop"]
    shift.hand_over(successor)
    (taken,) = successor.desk.alarms
    assert shift.now - 3600.0 <= taken.seen_unix <= shift.now
    successor.look(SHOP)
    assert successor.told == []
    shift.look(SHOP, leak("cart"))
    shift.deliver()
    assert handover_to_json(shift.desk.leave()) != left


def test_who_takes_over_knows_best_what_it_sees_itself(shift: Shift, successor: Shift) -> None:
    """Those who look on follow the same leaks; from the leader they take what was told."""
    shift.look(SHOP)
    shift.deliver()
    mine = replace(SHOP, rate=3.0, instances=("shop-9",), text="seen here")
    successor.look(mine)
    with successor.journal.write() as transaction:  # those who look on tell nobody
        transaction.execute("DELETE FROM outbox")
    shift.hand_over(successor)
    (taken,) = successor.desk.alarms
    assert (taken.rate, taken.instances, taken.text) == (3.0, ("shop-9",), "seen here")
    assert (taken.told, taken.told_rate) == (1, SHOP.rate)


def test_a_handover_is_bounded_and_keeps_the_oldest(shift: Shift) -> None:
    """What does not fit is left out, and would be told again; texts and pictures never go along."""
    shift.look(SHOP)
    (alarm,) = shift.desk.alarms
    alarms = tuple(
        replace(alarm, fingerprint=f"{number:04}", told_unix=float(number), text="x" * 1000)
        for number in range(1000)
    )
    text = handover_to_json(Handover(alarms))
    assert 150_000 < len(text) <= 200_000
    kept = handover_from_json(text).alarms
    assert [one.fingerprint for one in kept] == [f"{number:04}" for number in range(len(kept))]
    for broken in ("", "[]", "null", '{"alarms": [1], "marks": [], "windows": []}'):
        with pytest.raises(ValueError, match=r"expected|Expecting"):
            handover_from_json(broken)

"""Alarms of servers that share a store: what was told, and what keeps them quiet, stands in it.

What receivers have taken is written into the store at once, so the server that takes a service over
goes on from there. A message that is under way when its server is killed is told again by the
next one: rather twice than never. Marks and maintenance windows that are set at one server hold at
all of them; of two changes of the same one the later holds.
"""

import json
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stanch.alert.alarm import Alarm, alarm_from_json
from stanch.alert.desk import AlarmDesk, stored_alarms
from stanch.alert.handover import told_to_json
from stanch.alert.outbox import undelivered
from stanch.alert.silences import Marked, Window, marks, replace_silences, windows
from stanch.journal import Journal, Transaction
from stanch.store.engine import Engine
from stanch.store.sqlshared import (
    ToldRow,
    read_silences,
    read_told,
    write_silences,
    write_told,
)

_SENT_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.1
_MARK, _WINDOW = "mark ", "window "


class SharedAlarms:
    """Between one server's journal and the store. Close it. `publish` is for any thread, the rest
    for the one that tells.

    may_tell: whether this server is to tell people anything now.
    """

    def __init__(
        self,
        engine: Engine,
        directory: Path,
        may_tell: Callable[[], bool],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Raises JournalError."""
        self._engine = engine
        self._journal = Journal(directory)
        self._wall = wall
        self.may_tell = may_tell
        self._publishing = threading.Lock()
        self._published: dict[str, str] = {}  # guarded by _publishing

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def publish(self) -> None:
        """Write down what receivers have taken. Raises JournalError and StoreError; the next call
        makes up for it."""
        with self._publishing:
            with self._journal.read() as transaction:
                waiting = undelivered(transaction)
                told = {
                    alarm.fingerprint: alarm
                    for alarm in stored_alarms(transaction)
                    if alarm.told and alarm.fingerprint not in waiting
                }
            documents = {name: told_to_json(alarm) for name, alarm in told.items()}
            fresh = [name for name in told if documents[name] != self._published.get(name)]
            write_told(
                self._engine,
                [
                    ToldRow(told[name].service, name, _version(told[name]), documents[name])
                    for name in fresh
                ],
            )
            self._published.update((name, documents[name]) for name in fresh)

    def take_over(self, desk: AlarmDesk, services: Collection[str]) -> None:
        """Go on with what other servers have told of services.

        Raises JournalError and StoreError.
        """
        if services:
            rows = read_told(self._engine, services)
            with self._publishing:
                self._published.update((row.fingerprint, row.document) for row in rows)
            desk.take_over(services, [alarm_from_json(row.document) for row in rows], self._wall())

    def give_up(self, desk: AlarmDesk, services: Collection[str]) -> None:
        """Leave services to another server: what was not delivered is that one's to tell.

        A message that is just being sent is waited for, for some seconds. Raises JournalError and
        StoreError.
        """
        until_s = time.monotonic() + _SENT_WITHIN_S
        while services and desk.give_up(services) and time.monotonic() < until_s:
            self.publish()
            time.sleep(_LOOK_EVERY_S)

    def share_silences(self) -> None:
        """Tell the others which marks and windows were set or removed here, and take theirs.

        Raises JournalError and StoreError.
        """
        common = read_silences(self._engine)
        with self._journal.read() as transaction:
            here, before = _silences(transaction), _shared(transaction)
        changed = {
            name: here.get(name, "")
            for name in sorted(here.keys() | before.keys())
            if here.get(name) != before.get(name)
        }
        changed = _with_own_numbers(changed, before, common)
        write_silences(self._engine, changed)
        common |= changed
        now = {name: document for name, document in common.items() if document}
        if now == here == before:
            return
        with self._journal.write() as transaction:
            if _silences(transaction) != here:
                return  # Somebody has just changed them; the next round sees to it.
            replace_silences(
                transaction,
                [Marked(**_read(text)) for name, text in now.items() if name.startswith(_MARK)],
                [
                    Window(**_read(text) | {"id": int(name.removeprefix(_WINDOW))})
                    for name, text in now.items()
                    if name.startswith(_WINDOW)
                ],
            )
            transaction.execute("DELETE FROM shared")
            transaction.executemany("INSERT INTO shared VALUES (?, ?)", now.items())


def _version(alarm: Alarm) -> int:
    """Rises with each message of an alarm, through all its episodes."""
    return alarm.episode << 32 | alarm.told


def _silences(transaction: Transaction) -> dict[str, str]:
    """The journal's marks and windows as documents by name; a window's number is its name."""
    found = {f"{_MARK}{name}": _text(asdict(one)) for name, one in marks(transaction).items()}
    for window in windows(transaction):
        values = asdict(window)
        found[f"{_WINDOW}{values.pop('id')}"] = _text(values)
    return found


def _shared(transaction: Transaction) -> dict[str, str]:
    """The marks and windows as they were when they were last shared."""
    return {row["name"]: row["body"] for row in transaction.execute("SELECT * FROM shared")}


def _with_own_numbers(
    changed: Mapping[str, str], before: Mapping[str, str], common: Mapping[str, str]
) -> dict[str, str]:
    """What has changed, with a new window under a number that no other server has given away."""
    numbers = [int(name.removeprefix(_WINDOW)) for name in common if name.startswith(_WINDOW)]
    following = max(numbers, default=0)
    named = {}
    for name, document in changed.items():
        is_new = name.startswith(_WINDOW) and name not in before
        if is_new and common.get(name, "") not in ("", document):
            following += 1
            name = f"{_WINDOW}{following}"
        named[name] = document
    return named


def _text(values: Mapping[str, object]) -> str:
    return json.dumps(values, sort_keys=True)


def _read(text: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(text)
    return values

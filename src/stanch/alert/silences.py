"""What keeps alarms quiet: marks that people set on a leak, and maintenance windows.

Both lie in the journal, so they survive restarts, and `stanch alarms` changes them while a server
runs. A mark is on a cause, not on an episode: it holds when the leak comes back.
"""

import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from stanch.alert.alarm import Alarm
from stanch.alert.lifecycle import Quiet
from stanch.journal import Transaction

Mark: TypeAlias = Literal["known", "wontfix"]
MARKS: tuple[Mark, ...] = get_args(Mark)

KNOWN_FACTOR = 2.0
"""A leak marked as known is told again when it grows so many times as fast as when marked."""
DAY_S = 86_400.0
_MOST_WINDOWS = 1000


class SilenceError(ValueError):
    """A mark or window that cannot be; the text says why."""


@dataclass(frozen=True, slots=True)
class Marked:
    """A mark on a cause. rate: of the leak when it was marked, in bytes per second."""

    fingerprint: str
    verdict: Mark
    note: str
    by: str
    at_unix: float
    rate: float | None


@dataclass(frozen=True, slots=True)
class Window:
    """A maintenance window of services whose names match `service` (a glob, such as "pay*").

    every_s: the window comes again each so many seconds from its beginning, in UTC; None for once.
    """

    id: int
    service: str
    begins_unix: float
    ends_unix: float
    every_s: float | None
    note: str
    by: str

    def holds(self, service: str, now_unix: float) -> bool:
        """Whether it is open for a service now."""
        if not fnmatch.fnmatchcase(service, self.service):
            return False
        since_s = now_unix - self.begins_unix
        if self.every_s is not None and since_s >= 0:
            since_s %= self.every_s
        return 0 <= since_s < self.ends_unix - self.begins_unix


def set_mark(transaction: Transaction, mark: Marked) -> None:
    """Mark a cause, instead of an earlier mark."""
    transaction.execute(
        "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?, ?)",
        (mark.fingerprint, mark.verdict, mark.note, mark.by, mark.at_unix, mark.rate),
    )


def remove_mark(transaction: Transaction, fingerprint: str) -> bool:
    """Take a mark away; return whether there was one."""
    found = transaction.execute("DELETE FROM marks WHERE fingerprint = ?", (fingerprint,))
    return found.rowcount > 0


def marks(transaction: Transaction) -> dict[str, Marked]:
    """Return all marks by fingerprint."""
    return {row["fingerprint"]: Marked(**row) for row in transaction.execute("SELECT * FROM marks")}


def add_window(
    transaction: Transaction,
    service: str,
    begins_unix: float,
    ends_unix: float,
    every_s: float | None = None,
    note: str = "",
    by: str = "",
) -> int:
    """Add a window and return its number. Raises SilenceError."""
    length_s = ends_unix - begins_unix
    if not length_s > 0:
        raise SilenceError("a window must end after it begins")
    if every_s is not None and every_s < length_s:
        raise SilenceError(f"a window of {length_s:g} s cannot come again every {every_s:g} s")
    count = transaction.execute("SELECT count(*) FROM windows").fetchone()[0]
    if count >= _MOST_WINDOWS:
        raise SilenceError(f"there are {count} windows already; remove some")
    row = (service, begins_unix, ends_unix, every_s, note, by)
    sql = "INSERT INTO windows (service, begins_unix, ends_unix, every_s, note, by)"
    return int(transaction.execute(f"{sql} VALUES (?, ?, ?, ?, ?, ?)", row).lastrowid or 0)


def remove_window(transaction: Transaction, number: int) -> bool:
    """Take a window away; return whether there was one."""
    return transaction.execute("DELETE FROM windows WHERE id = ?", (number,)).rowcount > 0


def windows(transaction: Transaction) -> list[Window]:
    """Return all windows in the order of their beginnings."""
    rows = transaction.execute("SELECT * FROM windows ORDER BY begins_unix, id")
    return [Window(**row) for row in rows]


def replace_silences(
    transaction: Transaction, marked: Iterable[Marked], open_windows: Iterable[Window]
) -> None:
    """Let these be all marks and windows."""
    transaction.execute("DELETE FROM marks")
    transaction.execute("DELETE FROM windows")
    for mark in marked:
        set_mark(transaction, mark)
    for window in open_windows:
        row = (
            window.id,
            window.service,
            window.begins_unix,
            window.ends_unix,
            window.every_s,
            window.note,
            window.by,
        )
        sql = "INSERT INTO windows (id, service, begins_unix, ends_unix, every_s, note, by)"
        transaction.execute(f"{sql} VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def quiet_of(
    alarm: Alarm,
    marked: Marked | None,
    open_windows: Iterable[Window],
    harmless: Callable[[str], str | None],
    now_unix: float,
) -> Quiet | None:
    """Return why an alarm is to be quiet now, None when it is to be told.

    harmless: says of a service why its leaks do no harm now, such as that it is being recycled.
    """
    if marked is not None and not _is_worse(alarm, marked):
        about = f": {marked.note}" if marked.note else ""
        verdict = "won't fix" if marked.verdict == "wontfix" else "known"
        who = f" by {marked.by}" if marked.by else ""
        return Quiet(f"marked {verdict}{who}{about}", by_mark=True)
    for window in open_windows:
        if window.holds(alarm.service, now_unix):
            return Quiet(f"maintenance window {window.id}{f': {window.note}' * bool(window.note)}")
    reason = harmless(alarm.service)
    return Quiet(reason) if reason else None


def _is_worse(alarm: Alarm, marked: Marked) -> bool:
    """Whether a known leak has become another than the one that somebody judged."""
    if marked.verdict == "wontfix" or marked.rate is None or alarm.rate is None:
        return False
    return alarm.rate >= KNOWN_FACTOR * marked.rate > 0

"""The book of deaths: what a witness writes into, and that of a journal.

A journal keeps the newest deaths, of which the last have their profiles. The book of a server is in
its store (`storebook.py`).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from stanch.deaths.death import Death, death_from_json, death_to_json, joined
from stanch.journal import Journal, JournalError, Transaction

MOST_DEATHS = 10_000
MOST_PROFILES = 500
MAX_PROFILE_BYTES = 8 * 1024 * 1024
SAME_DEATH_S = 120.0
"""Two words about the end of the same instance within so long are about one death, when they do not
name different processes."""


_Name = TypeVar("_Name")


class BookError(Exception):
    """A book cannot be read or written; the text names it and the remedy."""


class DeathBook(Protocol):
    """Where deaths are written down, each once. May be used from several threads."""

    def record(self, death: Death, profile: bytes | None = None) -> Death:
        """Write a death down, or add to what is written of it; return what is written now.

        profile: what it held, pprof, gzip. Durable when this returns. Raises BookError.
        """

    def has_container(self, service: str, instance: str, container: str) -> bool:
        """Whether the end of a container is among the newest of its instance. Raises BookError."""

    def close(self) -> None:
        """Let go of what belongs to the book alone."""


class JournalBook:
    """The book in the journal of a data directory."""

    def __init__(self, directory: Path) -> None:
        """Raises JournalError."""
        self._journal = Journal(directory)

    def record(self, death: Death, profile: bytes | None = None) -> Death:
        """See DeathBook."""
        try:
            with self._journal.write() as transaction:
                return record(transaction, death, profile)
        except JournalError as error:
            raise BookError(str(error)) from error

    def has_container(self, service: str, instance: str, container: str) -> bool:
        """See DeathBook."""
        try:
            with self._journal.read() as transaction:
                rows = transaction.execute(
                    "SELECT body FROM deaths WHERE service = ? AND instance = ?"
                    " ORDER BY id DESC LIMIT 200",
                    (service, instance),
                )
                return any(death_from_json(row["body"]).container == container for row in rows)
        except JournalError as error:
            raise BookError(str(error)) from error

    def close(self) -> None:
        """See DeathBook."""
        self._journal.close()


def record(transaction: Transaction, death: Death, profile: bytes | None = None) -> Death:
    """Write a death down, or add to what is written of it; return what is written now.

    profile: pprof, gzip; one beyond MAX_PROFILE_BYTES is left out.
    """
    if profile is not None and len(profile) > MAX_PROFILE_BYTES:
        profile = None
    number, known = _same(transaction, death)
    if number is None or known is None:
        row = (death.key, death.service, death.instance, death.cause, death.died_unix)
        transaction.execute(
            "INSERT INTO deaths (key, service, instance, cause, died_unix, body, profile)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*row, death_to_json(death), profile),
        )
        _forget_oldest(transaction)
        return death
    now = joined(known, death)
    kept = profile if now.profile_from == death.profile_from else None
    transaction.execute(
        "UPDATE deaths SET cause = ?, died_unix = ?, body = ?, profile = coalesce(?, profile)"
        " WHERE id = ?",
        (now.cause, now.died_unix, death_to_json(now), kept, number),
    )
    return now


def deaths(
    transaction: Transaction, service: str | None = None, most: int = 100
) -> list[tuple[int, Death]]:
    """Return the newest deaths with their numbers, the newest first."""
    where = "" if service is None else "WHERE service = ?"
    values = (most,) if service is None else (service, most)
    rows = transaction.execute(
        f"SELECT id, body FROM deaths {where} ORDER BY died_unix DESC, id DESC LIMIT ?", values
    )
    return [(row["id"], death_from_json(row["body"])) for row in rows]


def death_by_number(transaction: Transaction, number: int) -> Death | None:
    """Return a death; None when there is none of this number."""
    row = transaction.execute("SELECT body FROM deaths WHERE id = ?", (number,)).fetchone()
    return death_from_json(row["body"]) if row is not None else None


def profile_of(transaction: Transaction, number: int) -> bytes | None:
    """Return the last heap profile of the dead; None when there is none any more."""
    row = transaction.execute("SELECT profile FROM deaths WHERE id = ?", (number,)).fetchone()
    return row["profile"] if row is not None else None


def _same(transaction: Transaction, death: Death) -> tuple[int | None, Death | None]:
    of_instance = (death.service, death.instance)
    rows = transaction.execute(
        "SELECT id, body FROM deaths WHERE service = ? AND instance = ?"
        " AND (key = ? OR abs(died_unix - ?) < ?) ORDER BY abs(died_unix - ?) LIMIT 32",
        (*of_instance, death.key, death.died_unix, SAME_DEATH_S, death.died_unix),
    )
    found = same_death(death, ((row["id"], death_from_json(row["body"])) for row in rows))
    return found if found is not None else (None, None)


def same_death(death: Death, written: Iterable[tuple[_Name, Death]]) -> tuple[_Name, Death] | None:
    """Which of the deaths that are written down of its instance a word is about; None of none.

    written: with their names, those of the same key and those within SAME_DEATH_S, the nearest
    first.
    """
    for name, known in written:
        if known.container and death.container:
            if known.container == death.container:
                return name, known
            continue
        if _is_later_life(death, known):
            continue
        either = set(known.pids) | set(death.pids)
        both = set(known.pids) & set(death.pids)
        if known.key == death.key or both or len(either) in (len(known.pids), len(death.pids)):
            return name, known
    return None


def _is_later_life(death: Death, known: Death) -> bool:
    """Whether what died had begun only after the known one was dead: a pid alone tells no two
    lives of a container apart, in which it is 1 each time."""
    if death.key == known.key or death.uptime_s is None or death.container:
        return False
    return death.died_unix - death.uptime_s > known.died_unix


def _forget_oldest(transaction: Transaction) -> None:
    newest = "(SELECT id FROM deaths ORDER BY died_unix DESC, id DESC LIMIT ?)"
    transaction.execute(f"DELETE FROM deaths WHERE id NOT IN {newest}", (MOST_DEATHS,))
    transaction.execute(
        f"UPDATE deaths SET profile = NULL WHERE profile IS NOT NULL AND id NOT IN {newest}",
        (MOST_PROFILES,),
    )

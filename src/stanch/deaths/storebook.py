"""The book of deaths in a server's store: the one record that its pages, its interface and
`stanch deaths --url` read.
"""

import threading
from dataclasses import asdict

from stanch.deaths.book import (
    MAX_PROFILE_BYTES,
    SAME_DEATH_S,
    BookError,
    deaths,
    profile_of,
    same_death,
)
from stanch.deaths.cause import Evidence, cause_of
from stanch.deaths.death import Death, death_from_mapping, joined
from stanch.journal import Journal
from stanch.profile import encode
from stanch.store.decoder import digest
from stanch.store.errors import StoreError
from stanch.store.history import DeathRow, Selection, TimeRange
from stanch.store.sqlstore import SqlStore

_MOST_NEAR = 32
_OF_LIFE = "life "
_FOREVER = TimeRange(0.0, 4e9)


class StoreBook:
    """See DeathBook. A death may be told of by several threads, and by several servers in turn."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._lock = threading.Lock()  # one word at a time: what is written decides what is joined

    def record(self, death: Death, profile: bytes | None = None) -> Death:
        """See DeathBook."""
        if profile is not None and len(profile) > MAX_PROFILE_BYTES:
            profile = None
        try:
            with self._lock:
                known = same_death(death, self._near(death))
                now = death if known is None else joined(known[1], death)
                if now.profile_from != death.profile_from:
                    profile = None
                self._store.write_death(
                    _row(death_name(now) if known is None else known[0], now), profile
                )
        except StoreError as error:
            raise BookError(str(error)) from error
        return now

    def has_container(self, service: str, instance: str, container: str) -> bool:
        """See DeathBook."""
        try:
            rows = self._store.history.deaths(_FOREVER, service, instance)
        except StoreError as error:
            raise BookError(str(error)) from error
        return any(row.document.get("container") == container for row in rows)

    def close(self) -> None:
        """See DeathBook; the store is closed by whom it belongs to."""

    def last_profile(self, service: str, instance: str, unix_s: float) -> bytes | None:
        """The last heap profile of an instance that the store has of a time, pprof; None without.

        Raises BookError.
        """
        selection = Selection(service, unix_s + 1.0, (instance,))
        try:
            profile = self._store.history.profile(selection)
        except StoreError as error:
            raise BookError(str(error)) from error
        return encode(profile) if profile is not None else None

    def _near(self, death: Death) -> list[tuple[str, Death]]:
        """What is written down of about the same time, the nearest first, and of the same name."""
        within = TimeRange(death.died_unix - SAME_DEATH_S, death.died_unix + SAME_DEATH_S)
        rows = list(self._store.history.deaths(within, death.service, death.instance, _MOST_NEAR))
        rows.sort(key=lambda row: abs(row.died_unix_s - death.died_unix))
        name = death_name(death)
        if all(row.death != name for row in rows):
            known = self._store.history.death(name)
            rows += [known] if known is not None else []
        return [(row.death, death_of(row)) for row in rows]


def death_name(death: Death) -> str:
    """The name of a death in links: 16 hex digits, the same for the same key for ever."""
    if death.key.startswith(_OF_LIFE):
        return death.key.removeprefix(_OF_LIFE)  # as links named it before there was this record
    key = f"{death.service}\0{death.instance}\0{death.key}"
    return digest(key.encode("utf-8", "replace"))[:8].hex()


def death_of(row: DeathRow) -> Death:
    """The death of a row."""
    return death_from_mapping(row.document)


def _row(name: str, death: Death) -> DeathRow:
    return DeathRow(
        name, death.service, death.instance, death.cause, death.died_unix, asdict(death)
    )


def take_up_lives(store: SqlStore, book: StoreBook) -> int:
    """Write down the deaths that a store of an earlier version knows as lives at their limit.

    Only for a book in which nothing is written yet. Returns how many there were. Raises BookError.
    """
    try:
        if store.history.deaths(_FOREVER, most=1):
            return 0
        lives = store.history.killed_lives()
    except StoreError as error:
        raise BookError(str(error)) from error
    for life in lives:
        cause, how, sure = cause_of(Evidence(near_limit=True))
        book.record(
            Death(
                key=f"{_OF_LIFE}{life.life}",
                service=life.service,
                instance=life.instance,
                pids=() if life.pid is None else (life.pid,),
                cause=cause,
                how=how,
                sure=sure,
                died_unix=life.end_unix_s,
                uptime_s=max(0.0, life.end_unix_s - life.start_unix_s),
                memory_bytes=life.last_memory_bytes,
                limit_bytes=life.limit_bytes,
            )
        )
    return len(lives)


def move_journal(journal: Journal, book: StoreBook) -> int:
    """Move the deaths of a journal, where earlier versions of the server wrote them, into a book.

    Returns how many there were. Each is in the book before it leaves the journal. Raises BookError
    and JournalError.
    """
    moved = 0
    while True:
        with journal.read() as transaction:
            some = [
                (number, death, profile_of(transaction, number))
                for number, death in deaths(transaction, most=100)
            ]
        if not some:
            return moved
        for number, death, profile in some:
            book.record(death, profile)
            with journal.write() as transaction:
                transaction.execute("DELETE FROM deaths WHERE id = ?", (number,))
            moved += 1

"""The journal: one SQLite file in the data directory, for what must not be lost or doubled.

SQLite and not a file of our own, because a change of an alarm and the messages that tell of it
must become durable together or not at all, and because `stanch alarms` writes marks into it while a
server runs. It is part of Python, so it brings no dependency. Series of measurements do not belong
here: they are the store's.

A committed transaction survives SIGKILL, and a power cut as far as the disk keeps what was
synced (`synchronous=FULL`). Several processes may use one journal; a transaction waits for the
others' for BUSY_S at most. A file that is damaged is put aside, never deleted.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from stanch.journal.lock import HolderLock
from stanch.journal.schema import MIGRATIONS

FILE_NAME = "journal.sqlite"
BUSY_S = 10.0

Transaction: TypeAlias = sqlite3.Connection
"""What is executed within a `Journal.write` or `read` block. Never kept beyond it."""


class JournalError(Exception):
    """The journal cannot be read or written; the text names the file and the remedy."""


class Journal:
    """One connection to the journal of a data directory. Safe for threads; close it in the end.

    put_aside: where a damaged journal was moved when this one was opened, or None.
    """

    def __init__(self, directory: Path) -> None:
        """Open the journal, and make the directory and the file when there is none.

        Raises JournalError.
        """
        self.path = directory / FILE_NAME
        self.put_aside: Path | None = None
        self._lock = threading.RLock()  # one transaction of this connection at a time
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _alone_in(directory):
                try:
                    self._connection = _open(self.path)
                except sqlite3.OperationalError:
                    raise  # locked, full or not permitted: nothing is wrong with the content
                except sqlite3.DatabaseError:
                    self.put_aside = _put_aside(self.path)
                    self._connection = _open(self.path)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"cannot open the journal {self.path}: {error}") from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. What was committed stays."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction: all of the block becomes durable at its end, or nothing of it.

        Raises JournalError when the file cannot be written; then nothing has changed.
        """
        with self._transaction("BEGIN IMMEDIATE") as transaction:
            yield transaction

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """A view of one moment. Raises JournalError."""
        with self._transaction("BEGIN") as transaction:
            yield transaction

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Transaction]:
        with self._lock:
            try:
                self._connection.execute(begin)
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):  # where there is nothing to take back
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise JournalError(f"the journal {self.path} failed: {error}") from error
                raise


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Open and repair the journal one at a time, whatever process or thread.

    SQLite's own wait does not cover the change of a new file to a write-ahead log, which fails at
    once when two try it; and of two that find a damaged file only one may put it aside. Raises
    TimeoutError when another has been opening it for BUSY_S.
    """
    lock = HolderLock(directory, "opening")
    try:
        give_up = time.monotonic() + BUSY_S
        while not lock.take():
            if time.monotonic() > give_up:
                raise TimeoutError(f"another has been opening it for {BUSY_S:g} s")
            time.sleep(0.01)
        yield
    finally:
        lock.close()


def _open(path: Path) -> sqlite3.Connection:
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(
        path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        _migrate(connection, path)
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
    except BaseException:
        connection.close()
        raise
    connection.row_factory = sqlite3.Row
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the tables up to date, each step at once or not at all, whoever does it first."""
    newest = len(MIGRATIONS)
    while (version := _user_version(connection)) < newest:
        connection.execute("BEGIN IMMEDIATE")
        if _user_version(connection) == version:
            for statement in MIGRATIONS[version]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={version + 1}")
        connection.execute("COMMIT")
    if version > newest:
        raise sqlite3.OperationalError(
            f"it was written by a newer Stanch (version {version}, this one knows {newest}); "
            f"use that one, or another data directory than {path.parent}"
        )


def _user_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _put_aside(path: Path) -> Path:
    """Move a damaged journal away, with its log; return where it is now."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    moved = path.with_name(f"{path.name}.damaged-{stamp}-{os.getpid()}")
    path.rename(moved)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(moved.with_name(moved.name + suffix))
    return moved

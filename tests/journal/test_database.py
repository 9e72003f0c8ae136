"""The journal through kills, damage, several processes and versions."""

import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stanch.journal import FILE_NAME, Journal, JournalError, Transaction, default_directory

# Commits pairs of rows for ever, and says after each commit how many there are.
WRITER = """
import sys
from pathlib import Path
from stanch.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(1_000_000):
    with journal.write() as transaction:
        for half in "ab":
            transaction.execute(
                "INSERT INTO alarms VALUES (?, 'firing', '{}')", (f"{number}{half}",))
    print(number + 1, flush=True)
"""


def put(transaction: Transaction, fingerprint: str) -> None:
    """Put one row in."""
    transaction.execute("INSERT INTO alarms VALUES (?, 'firing', '{}')", (fingerprint,))


def count(journal: Journal) -> int:
    """How many rows there are."""
    with journal.read() as transaction:
        return int(transaction.execute("SELECT count(*) FROM alarms").fetchone()[0])


def test_what_is_committed_survives_sigkill(tmp_path: Path) -> None:
    """After SIGKILL amid commits all that was reported is there, and nothing by halves."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    reported = 0
    for line in process.stdout:
        reported = int(line)
        if reported == 20:
            process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    with Journal(tmp_path) as journal:
        rows = count(journal)
    assert rows % 2 == 0
    assert rows >= 2 * reported >= 40


def test_a_failed_block_changes_nothing(tmp_path: Path) -> None:
    """An error within a transaction takes back all of it, and the journal goes on."""
    with Journal(tmp_path) as journal:
        with pytest.raises(ZeroDivisionError), journal.write() as transaction:
            put(transaction, "one")
            raise ZeroDivisionError
        with pytest.raises(JournalError, match=r"journal\.sqlite failed"), journal.write() as again:
            put(again, "two")
            again.execute("SELECT nothing FROM nowhere")
        assert count(journal) == 0
        with journal.write() as transaction:
            put(transaction, "three")
        assert count(journal) == 1


def test_several_writers_wait_for_each_other(tmp_path: Path) -> None:
    """Threads with connections of their own all get their rows in."""

    def write(name: str) -> None:
        with Journal(tmp_path) as journal:
            for number in range(20):
                with journal.write() as transaction:
                    put(transaction, f"{name}-{number}")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    with Journal(tmp_path) as journal:
        assert count(journal) == 60


def test_several_open_a_new_journal_at_once(tmp_path: Path) -> None:
    """None of them is told that the file is locked, in any of 40 rounds."""
    failures: list[JournalError] = []

    def make(directory: Path, start: threading.Barrier) -> None:
        start.wait()
        try:
            with Journal(directory) as journal:
                assert count(journal) == 0
        except JournalError as error:
            failures.append(error)

    for number in range(40):
        start = threading.Barrier(5)
        arguments = (tmp_path / str(number), start)
        threads = [threading.Thread(target=make, args=arguments) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert not failures


def test_a_damaged_journal_is_put_aside(tmp_path: Path) -> None:
    """A file that is no database is kept under another name, and a new one begun."""
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 1000)
    with Journal(tmp_path) as journal:
        assert count(journal) == 0
        assert journal.put_aside is not None
        assert journal.put_aside.read_bytes().startswith(b"no database")
    with Journal(tmp_path) as journal:
        assert journal.put_aside is None


def test_damage_within_the_file_is_noticed(tmp_path: Path) -> None:
    """Pages overwritten with rubbish are found at the next opening."""
    with Journal(tmp_path) as journal, journal.write() as transaction:
        for number in range(500):
            put(transaction, f"{number:0200}")
    path = tmp_path / FILE_NAME
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8192] = b"\xff" * 8192
    path.write_bytes(content)
    with Journal(tmp_path) as journal:
        assert journal.put_aside is not None


def test_a_newer_journal_is_left_alone(tmp_path: Path) -> None:
    """A journal of a later Stanch is refused in a sentence, and stays as it is."""
    Journal(tmp_path).close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("PRAGMA user_version=99")
    connection.commit()
    connection.close()
    with pytest.raises(JournalError, match="newer Stanch"):
        Journal(tmp_path)
    assert [path.name for path in tmp_path.glob("*.damaged*")] == []


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    """A data directory below a file is refused with its name."""
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"cannot open the journal .*file/data"):
        Journal(tmp_path / "file" / "data")


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    """Directory and file are closed to others."""
    with Journal(tmp_path / "data") as journal:
        assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"STANCH_DATA": "/srv/stanch", "XDG_STATE_HOME": "/x"}, "/srv/stanch"),
        ({"XDG_STATE_HOME": "/x"}, "/x/stanch"),
        ({"XDG_STATE_HOME": "relative"}, str(Path.home() / ".local/state/stanch")),
    ],
)
def test_where_the_data_directory_is(environment: dict[str, str], expected: str) -> None:
    """The variable goes before the XDG directory, a relative one of which does not count."""
    assert default_directory(environment) == Path(expected)

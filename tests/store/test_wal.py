"""The write-ahead log: what is whole is read, what is torn is not, and a full disk says so."""

import os
import random
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest

from stanch.store.errors import StoreError, StoreFullError
from stanch.store.wal import Log, Segment, read_segment

_FILL = """
import sys
from pathlib import Path
from stanch.store.errors import StoreFullError
from stanch.store.wal import Log

segment = Log(Path(sys.argv[1])).begin()
kept = 0
try:
    while kept < 100_000:
        segment.append(bytes([kept % 251]) * 10_000)
        kept += 1
except StoreFullError as error:
    print(error)
Path(sys.argv[1], "ballast").unlink()
segment.append(b"after")
print(kept)
"""


def test_gives_back_what_was_appended(tmp_path: Path) -> None:
    """Records come back in their order, from any number of segments."""
    log = Log(tmp_path / "wal")
    records = [b"", b"one", bytes(range(256)) * 1000]
    segments = [log.begin(), log.begin()]
    for segment in segments:
        for record in records:
            segment.append(record)
        segment.close()
    assert [segment.path for segment in segments] == Log(tmp_path / "wal").segments()
    assert [list(read_segment(segment.path)) for segment in segments] == [records, records]
    assert segments[0].token != segments[1].token
    assert Log(tmp_path / "wal").begin().path > segments[1].path


def test_threads_share_a_segment(tmp_path: Path) -> None:
    """Records that come at the same time are all there when their appends return."""
    segment = Log(tmp_path).begin()

    def append(sender: int) -> None:
        for number in range(50):
            segment.append(f"{sender} {number}".encode())

    threads = [threading.Thread(target=append, args=(sender,)) for sender in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = {f"{sender} {number}".encode() for sender in range(8) for number in range(50)}
    assert set(read_segment(segment.path)) == wanted
    assert segment.records == 400


def test_reading_stops_at_what_is_torn(tmp_path: Path) -> None:
    """A file cut anywhere gives the records before the cut; a flipped bit ends it there."""
    segment = Log(tmp_path).begin()
    records = [bytes([number]) * 20 for number in range(5)]
    for record in records:
        segment.append(record)
    whole = segment.path.read_bytes()
    for size in range(len(whole)):
        segment.path.write_bytes(whole[:size])
        kept = list(read_segment(segment.path))
        assert kept == records[: max(0, size - 8) // 28]
    chance = random.Random(1)
    for _ in range(200):
        damaged = bytearray(whole)
        at = chance.randrange(8, len(whole))
        damaged[at] ^= 1 << chance.randrange(8)
        segment.path.write_bytes(damaged)
        assert list(read_segment(segment.path)) == records[: (at - 8) // 28]


def test_refuses_a_file_that_is_none(tmp_path: Path) -> None:
    """A file of something else is named with the remedy, not read as empty."""
    (tmp_path / "0000000000000001-aa.wal").write_bytes(b"something else")
    with pytest.raises(StoreError, match="move it away"):
        list(read_segment(tmp_path / "0000000000000001-aa.wal"))


def test_a_record_that_failed_leaves_no_trace(tmp_path: Path, small_disk: Path) -> None:
    """On a full disk an append fails with the remedy; those before stay, and later ones work."""
    directory = small_disk / "wal"
    directory.mkdir()
    (directory / "ballast").write_bytes(bytes(1024 * 1024))
    answer = subprocess.run(
        [sys.executable, "-c", _FILL, str(directory)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    error, kept = answer.stdout.splitlines()
    assert error.startswith("the disk of the data directory is full; free space")
    (path,) = directory.glob("*.wal")
    records = list(read_segment(path))
    assert records[-1] == b"after"
    assert len(records) == int(kept) + 1
    assert int(kept) > 100


def test_a_segment_that_cannot_be_made(tmp_path: Path) -> None:
    """A directory that is gone is an error with words."""
    with pytest.raises(StoreError, match="cannot be written"):
        Segment(tmp_path / "nowhere" / "1-a.wal")
    assert not issubclass(StoreError, StoreFullError)


def test_needs_a_directory_of_its_own(tmp_path: Path) -> None:
    """A file where the directory should be is an error with words."""
    os.close(os.open(tmp_path / "wal", os.O_CREAT))
    with pytest.raises(StoreError, match="write-ahead log"):
        Log(tmp_path / "wal")


def test_the_file_of_a_segment_that_is_done_is_taken_over(tmp_path: Path) -> None:
    """What it held under its former name is no record any more, wherever the new ones end."""
    log = Log(tmp_path / "wal")
    first = log.begin()
    old = [bytes([number]) * 20 for number in range(8)]
    for record in old:
        first.append(record)
    first.close()
    inode = first.path.stat().st_ino
    log.end(first.path)
    segment = log.begin()
    assert segment.path.stat().st_ino == inode
    assert segment.path > first.path
    assert not first.path.exists()
    assert list(read_segment(segment.path)) == []
    kept = []
    # The first of these end where a record of the file's former life begins.
    for size in (20, 20, 3, 50, 100, 40):
        kept.append(bytes([99]) * size)
        segment.append(kept[-1])
        assert list(read_segment(segment.path)) == kept
    segment.close()


def test_few_files_are_kept_to_be_taken_over(tmp_path: Path) -> None:
    """The others go, and at its end the log leaves none."""
    log = Log(tmp_path)
    segments = [log.begin() for _ in range(6)]
    for segment in segments:
        segment.append(b"one")
        segment.close()
        log.end(segment.path)
    ready = log.segments()
    assert len(ready) == 3
    assert not {segment.path for segment in segments} & set(ready)
    assert [list(read_segment(path)) for path in ready] == [[], [], []]
    assert log.begin().path == ready[0]
    log.close()
    assert log.segments() == ready[:1]


def test_a_segment_of_the_version_before_is_read(tmp_path: Path) -> None:
    """Its checksums are of the records alone."""
    path = tmp_path / "0000000000000001-aa.wal"
    record = b"acknowledged"
    head = len(record).to_bytes(4, "little") + zlib.crc32(record).to_bytes(4, "little")
    path.write_bytes(b"STANCHW1" + head + record)
    assert list(read_segment(path)) == [record]

"""The write-ahead log: what was acknowledged is in a segment, checksummed and synced, before.

A segment is a file of records. `append` returns when its record is on the disk; records that come
at the same time share one sync. A segment's name is its deduplication token: whatever is made of a
segment is inserted under it, so that doing it again changes nothing. A record that was torn by a
crash was never acknowledged; reading stops there.

File: 8 bytes of magic, then for each record its length and CRC-32 (little-endian uint32 each) and
its bytes.

Locks: `_write` guards the file and its size, `_sync` lets one thread sync for all; a thread takes
`_sync` before `_write`, never the other way round.
"""

import errno
import os
import secrets
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

from stanch.store.errors import StoreError, StoreFullError

_MAGIC = b"STANCHW1"
_HEAD = struct.Struct("<II")
MAX_RECORD_BYTES = 256 * 1024 * 1024


class Segment:
    """A segment that is being written. Its methods may be called from several threads."""

    def __init__(self, path: Path) -> None:
        """Create the file. Raises StoreFullError or StoreError."""
        self.path = path
        self.records = 0
        self._write = threading.Lock()
        self._sync = threading.Lock()
        self._size = self._synced = 0
        self._broken = False
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _refusal(error) from error
        try:
            self._put(_MAGIC)
            sync_directory(path.parent)
        except BaseException:
            os.close(self._file)
            path.unlink(missing_ok=True)
            raise

    @property
    def token(self) -> str:
        """What everything made of this segment is inserted under."""
        return self.path.stem

    @property
    def size_bytes(self) -> int:
        """How long the file is."""
        return self._size

    def append(self, data: bytes) -> None:
        """Add a record and wait until it is on the disk. Raises StoreFullError or StoreError.

        After an error the record is not in the segment, or it is and nobody was told so.
        """
        if len(data) > MAX_RECORD_BYTES:
            raise StoreError(f"a record of {len(data):,} bytes is too large to be kept")
        with self._write:
            self._put(_HEAD.pack(len(data), zlib.crc32(data)) + data)
            self.records += 1
            end = self._size
        self._sync_to(end)

    def close(self) -> None:
        """Close the file, when no `append` is under way any more."""
        with self._sync, self._write:
            os.close(self._file)

    def _put(self, data: bytes) -> None:
        if self._broken:
            raise StoreError("the disk did not take a record before; see the server's log")
        view, at = memoryview(data), self._size
        try:
            while view:
                written = os.pwrite(self._file, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            # A record that is only partly there would hide those after it.
            try:
                os.ftruncate(self._file, self._size)
            except OSError:
                self._broken = True
            raise _refusal(error) from error
        self._size = at

    def _sync_to(self, end: int) -> None:
        with self._sync:
            if self._synced >= end:
                return
            with self._write:
                size = self._size
            try:
                os.fdatasync(self._file)
            except OSError as error:
                # What a failed sync has dropped, a later one does not write again.
                self._broken = True
                raise _refusal(error) from error
            self._synced = size


class Log:
    """The directory of segments."""

    def __init__(self, directory: Path) -> None:
        """Make the directory when there is none. Raises StoreError."""
        self._directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            numbers = [int(path.name.partition("-")[0], 16) for path in self._paths()]
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot use {directory} for the write-ahead log: {error}") from error
        self._next = max(numbers, default=0) + 1

    def segments(self) -> list[Path]:
        """The segments that are there, oldest first."""
        return self._paths()

    def begin(self) -> Segment:
        """A new segment. Raises StoreFullError or StoreError."""
        name = f"{self._next:016x}-{secrets.token_hex(8)}.wal"
        segment = Segment(self._directory / name)
        self._next += 1
        return segment

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob("*.wal"))


def read_segment(path: Path) -> Iterator[bytes]:
    """The records of a segment in their order, up to one that is torn. Raises StoreError."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
            if magic != _MAGIC:
                if _MAGIC.startswith(magic):
                    return
                raise StoreError(f"{path} is no segment of a write-ahead log; move it away")
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                size, checksum = _HEAD.unpack(head)
                data = file.read(size) if size <= MAX_RECORD_BYTES else b""
                if len(data) != size or zlib.crc32(data) != checksum:
                    return
                yield data
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def sync_directory(directory: Path) -> None:
    """Make the names in a directory last. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refusal(error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFullError(
            "the disk of the data directory is full; free space there, then send again"
        )
    return StoreError(f"the write-ahead log cannot be written: {error.strerror}")

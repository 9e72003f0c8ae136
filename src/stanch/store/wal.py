"""The write-ahead log: what was acknowledged is in a segment, checksummed and synced, before.

A segment is a file of records. `append` returns when its record is on the disk; records that come
at the same time share one sync. A segment's name is its deduplication token: whatever is made of a
segment is inserted under it, so that doing it again changes nothing. A record that was torn by a
crash was never acknowledged; reading stops there.

File: 8 bytes of magic, then for each record its length and a checksum (little-endian uint32 each)
and its bytes. The checksum is the CRC-32 of the segment's name and the bytes, so the file of a
segment that is done can be that of a later one without being emptied: what it still holds are no
records under its new name. A sync then waits for the bytes alone, where that of a file that grows
waits for the file system's journal, and with it for whatever else is being written. Such segments
are made ready beforehand, by the thread that ends one, so that no sender waits for the directory.

Locks: in a segment `_write` guards the file and its size, `_sync` lets one thread sync for all; a
thread takes `_sync` before `_write`, never the other way round. The log has none: one thread at a
time begins segments and one ends them.
"""

import errno
import os
import secrets
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from stanch.store.errors import StoreError, StoreFullError

_MAGIC = b"STANCHW2"
_NAMELESS = b"STANCHW1"
"""Of an earlier version, whose checksums are of the bytes alone."""
_HEAD = struct.Struct("<II")
_MOST_READY = 3
MAX_RECORD_BYTES = 256 * 1024 * 1024


class Segment:
    """A segment that is being written. Its methods may be called from several threads."""

    def __init__(self, path: Path, former: Path | None = None) -> None:
        """Create the file. Raises StoreFullError or StoreError.

        former: the segment whose file it takes over, which is no more then.
        """
        self.path = path
        self._name_checksum = _name_checksum(path)
        self.records = 0
        self._write = threading.Lock()
        self._sync = threading.Lock()
        self._size = self._synced = 0
        self._broken = False
        flags = os.O_WRONLY | os.O_CLOEXEC
        try:
            if former is None:
                flags |= os.O_CREAT | os.O_EXCL
            else:
                former.rename(path)
            self._file = os.open(path, flags, 0o600)
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
        """How many bytes of the file are its own."""
        return self._size

    def append(self, data: bytes) -> None:
        """Add a record and wait until it is on the disk. Raises StoreFullError or StoreError.

        After an error the record is not in the segment, or it is and nobody was told so.
        """
        if len(data) > MAX_RECORD_BYTES:
            raise StoreError(f"a record of {len(data):,} bytes is too large to be kept")
        with self._write:
            self._put(_HEAD.pack(len(data), zlib.crc32(data, self._name_checksum)) + data)
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
        self._numbers = count(max(numbers, default=0) + 1)
        self._ready: deque[Segment] = deque()

    def segments(self) -> list[Path]:
        """The segments that are there, oldest first."""
        return self._paths()

    def begin(self) -> Segment:
        """A new segment, behind all others. Raises StoreFullError or StoreError."""
        return self._ready.popleft() if self._ready else Segment(self._new_path())

    def end(self, path: Path) -> None:
        """Forget the records of a closed segment, for good. Raises OSError."""
        if len(self._ready) < _MOST_READY:
            try:
                self._ready.append(Segment(self._new_path(), path))
                return
            except StoreError:
                pass  # the next segments make their own files
        path.unlink(missing_ok=True)
        sync_directory(self._directory)

    def close(self) -> None:
        """Remove what was made ready and not begun."""
        while self._ready:
            segment = self._ready.popleft()
            segment.close()
            segment.path.unlink(missing_ok=True)

    def _new_path(self) -> Path:
        return self._directory / f"{next(self._numbers):016x}-{secrets.token_hex(8)}.wal"

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob("*.wal"))


def read_segment(path: Path) -> Iterator[bytes]:
    """The records of a segment in their order, up to one that is torn. Raises StoreError."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
            if magic not in (_MAGIC, _NAMELESS):
                if _MAGIC.startswith(magic):
                    return
                raise StoreError(f"{path} is no segment of a write-ahead log; move it away")
            name_checksum = _name_checksum(path) if magic == _MAGIC else 0
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                size, checksum = _HEAD.unpack(head)
                data = file.read(size) if size <= MAX_RECORD_BYTES else b""
                if len(data) != size or zlib.crc32(data, name_checksum) != checksum:
                    return
                yield data
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def _name_checksum(path: Path) -> int:
    return zlib.crc32(path.stem.encode())


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

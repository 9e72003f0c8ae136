"""What the watch saw, in a file: messages one after the other, each behind its length.

One process appends while others read. It is pickled, so it is only read where the demo wrote it.
"""

import pickle
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stanch.detect import Finding
from stanch.server.watch import WatchState
from stanch.store import Look

if TYPE_CHECKING:  # It needs the packages of the server.
    from stanch.store.sqlstore import Taken

MOST_BYTES = 1024 * 1024 * 1024
_LENGTH = struct.Struct("<Q")
_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Seen:
    """What a target gave: a look without its stacks, its profiles, the mean time of a request."""

    look: Look
    taken: "list[Taken]"
    latency_s: float | None


@dataclass(frozen=True, slots=True)
class Said:
    """What the watch says, with what retention searches answered of its findings."""

    state: WatchState
    answers: Mapping[Finding, Mapping[str, Any] | None]


class Spool:
    """Appends messages; what exceeds MOST_BYTES, or the disk refuses, is dropped and counted."""

    def __init__(self, path: Path) -> None:
        """Begin a new file. Raises OSError."""
        self._file = path.open("wb", buffering=0)
        self._size_bytes = 0
        self.dropped = 0

    def append(self, message: Seen | Said) -> None:
        """Append a message. Never raises for a full disk."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        size_bytes = self._size_bytes + _LENGTH.size + len(data)
        if size_bytes > MOST_BYTES:
            self.dropped += 1
            return
        try:
            written = self._file.write(_LENGTH.pack(len(data)) + data)
        except OSError:
            written = 0
        if written != _LENGTH.size + len(data):
            # Half a message must not stand before the next one.
            self._file.truncate(self._size_bytes)
            self._file.seek(self._size_bytes)
            self.dropped += 1
            return
        self._size_bytes = size_bytes

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()


def follow(path: Path, stop: threading.Event) -> Iterator[Seen | Said]:
    """The messages of a spool, and those that are appended, until `stop` is set."""
    with path.open("rb") as file:
        while not stop.is_set():
            begin = file.tell()
            head = file.read(_LENGTH.size)
            data = file.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""
            if not data or len(data) < _LENGTH.unpack(head)[0]:
                file.seek(begin)
                stop.wait(_PAUSE_S)
                continue
            yield pickle.loads(data)

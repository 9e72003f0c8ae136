"""The audit log: who was refused, who signed in, which tokens were made, as lines of JSON.

`audit.jsonl` in the data directory (mode 0600). It holds no token and nothing of a profile. What
happens again within a few seconds is counted instead of written, and the file is set aside once as
`audit.jsonl.1` when it is full, so that no stranger can fill the disk with it.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

FILE_NAME = "audit.jsonl"
_MOST_BYTES = 8 * 1024 * 1024
_AGAIN_S = 10.0
_MOST_KEYS = 1000
_LONGEST = 200


class AuditLog:
    """Appends to the log of a data directory. May be used from several threads and processes.

    Never raises: a server whose disk is full goes on to serve. trouble: why the last line is not
    there, None when it is.
    """

    def __init__(self, directory: Path, wall: Callable[[], float] = time.time) -> None:
        self._path = directory / FILE_NAME
        self._wall = wall
        self._lock = threading.Lock()
        self._noted: dict[tuple[str, ...], tuple[float, int]] = {}
        self.trouble: str | None = None

    def note(self, event: str, **facts: str) -> None:
        """Write down an event, or that it happened again. facts: short texts, cut off if not."""
        facts = {name: text[:_LONGEST] for name, text in facts.items() if text}
        key = (event, *facts.values())
        now_unix = self._wall()
        with self._lock:
            since_unix, again = self._noted.get(key, (-_AGAIN_S, 0))
            if abs(now_unix - since_unix) < _AGAIN_S:
                self._noted[key] = (since_unix, again + 1)
                return
            if len(self._noted) >= _MOST_KEYS:
                self._noted.clear()
            self._noted[key] = (now_unix, 0)
            moment = datetime.fromtimestamp(now_unix, UTC).isoformat(timespec="milliseconds")
            line = {"time": moment, "event": event, **facts}
            self._append(line | ({"again_before": again} if again else {}))

    def _append(self, line: dict[str, object]) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                if self._path.stat().st_size >= _MOST_BYTES:
                    self._path.replace(self._path.with_name(f"{FILE_NAME}.1"))
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            with os.fdopen(os.open(self._path, flags, 0o600), "wb") as file:
                # One write of one line: two processes never mix theirs.
                file.write(json.dumps(line).encode() + b"\n")
            self.trouble = None
        except OSError as error:
            self.trouble = f"cannot write {self._path}: {error.strerror}"

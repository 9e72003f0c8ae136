"""A lock between processes on one data directory: the kernel drops it with the process."""

import fcntl
import os
from pathlib import Path


class HolderLock:
    """Held by one process at a time; `take` again and again, until it is free."""

    def __init__(self, directory: Path, name: str) -> None:
        """Raises OSError when the file cannot be made."""
        self._file = os.open(directory / f"{name}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        self._held = False

    def take(self) -> bool:
        """Return whether this process holds the lock, now or still."""
        if not self._held:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            self._held = True
        return True

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)

"""Profiles on disk: the last one, those that were taken for a reason, and those of deaths.

Each file is written whole under another name and then renamed, so a kill or a full disk never
leaves half a profile in the place of a whole one.
"""

import contextlib
import os
from pathlib import Path

LAST = "last.pb.gz"
MOST_FILES = 50
MOST_BYTES = 256 * 1024 * 1024


class Shelf:
    """A directory of profiles, mode 0700. The newest MOST_FILES of at most MOST_BYTES are kept."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError."""
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def last(self) -> Path:
        """Where the last profile is, if there is one."""
        return self._directory / LAST

    def keep_last(self, profile: bytes) -> None:
        """Replace the last profile. Raises OSError; then the one before stays."""
        self._write(self.last, profile)

    def keep(self, name: str, content: bytes) -> Path:
        """Keep a file beside it, and drop the oldest beyond the bounds. Raises OSError."""
        path = self._directory / name
        self._write(path, content)
        self._drop_oldest()
        return path

    def _write(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def _drop_oldest(self) -> None:
        # Of its own files only: the book of deaths is kept here too.
        files = [
            path
            for path in self._directory.iterdir()
            if path.name != LAST and path.name.endswith((".pb.gz", ".json"))
        ]
        newest = sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)
        size = 0
        for number, path in enumerate(newest):
            size += path.stat().st_size
            if number >= MOST_FILES or size > MOST_BYTES:
                path.unlink(missing_ok=True)

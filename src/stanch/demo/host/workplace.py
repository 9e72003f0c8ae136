"""The work directory: sources of the services as they are deployed, builds, tables and logs."""

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

PREFIX = "stanch-demo-"
SERVICES = Path(__file__).resolve().parent.parent / "services"


class Workplace:
    """A temporary directory. Unless `keep`, `close` removes it, or else the next demo does."""

    def __init__(self, *, keep: bool) -> None:
        _remove_leftovers(Path(tempfile.gettempdir()))
        self.keep = keep
        owner = "kept" if keep else str(os.getpid())
        self.root = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{owner}-"))
        self.services = self.root / "services"
        # A copy: the services run as somebody's own program would, outside of any site-packages.
        try:
            shutil.copytree(SERVICES, self.services, ignore=shutil.ignore_patterns("__pycache__"))
        except BaseException:  # Interrupted, or the disk is full.
            self.close()
            raise

    def directory(self, *parts: str) -> Path:
        """Return a directory below the root, made if need be."""
        directory = self.root.joinpath(*parts)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def close(self) -> None:
        """Remove everything unless it is to be kept."""
        if not self.keep:
            shutil.rmtree(self.root, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    for directory in parent.glob(f"{PREFIX}*"):
        match = re.fullmatch(rf"{PREFIX}(\d+)-\w+", directory.name)
        if match is None or Path(f"/proc/{match[1]}").exists():
            continue
        with contextlib.suppress(OSError):
            if directory.stat().st_uid == os.getuid():
                shutil.rmtree(directory, ignore_errors=True)

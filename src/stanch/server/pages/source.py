"""The source of what a profile names, from directories that the server was told it may read.

Who sends a profile chooses the names in it, so a name opens nothing by itself: only what lies below
one of the directories, as a file of a language, not hidden, and not large. Links that lead out of
them are not followed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_SUFFIXES = frozenset(
    (".py", ".pyi", ".pyx", ".go", ".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".rs", ".s")
)
_MOST_BYTES = 1024 * 1024
_MOST_LINES = 80


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One line of a file, counted from 1."""

    number: int
    text: str


class Sources:
    """Finds the files of profiles below some directories."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = tuple(directories)

    def lines(self, file: str, first: int, last: int) -> list[SourceLine]:
        """Some lines of a file, 80 at most; none when it is not to be had or may not be read.

        file: as a profile names it; ever shorter ends of it are looked for, as a program seldom
        lies where it was deployed.
        """
        first = max(1, first)
        for path in self._candidates(file):
            try:
                if not path.is_file() or path.stat().st_size > _MOST_BYTES:
                    continue
                text = path.read_text("utf-8", "replace").splitlines()
            except (OSError, ValueError):
                continue
            chosen = text[first - 1 : min(last, first + _MOST_LINES - 1)]
            return [SourceLine(first + at, line.expandtabs(4)) for at, line in enumerate(chosen)]
        return []

    def _candidates(self, file: str) -> Iterator[Path]:
        parts = PurePosixPath(file.replace("\0", "")).parts
        parts = parts[1:] if parts[:1] == ("/",) else parts
        if not parts or PurePosixPath(parts[-1]).suffix.lower() not in _SUFFIXES:
            return
        if any(part.startswith(".") for part in parts):
            return
        for directory in self._directories:
            try:
                root = directory.resolve(strict=True)
            except (OSError, RuntimeError):
                continue
            for skipped in range(len(parts)):
                try:
                    path = root.joinpath(*parts[skipped:]).resolve(strict=True)
                except (OSError, RuntimeError, ValueError):
                    continue
                inside = path.relative_to(root).parts if path.is_relative_to(root) else (".",)
                if path.suffix.lower() in _SUFFIXES and not any(
                    part.startswith(".") for part in inside
                ):
                    yield path

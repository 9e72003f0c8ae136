"""Where targets come from: a list, files that are read again when they change, an HTTP server."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stanch.collect.errors import TargetError
from stanch.collect.httpdiscovery import PREFIX, HttpTargets
from stanch.collect.targets import Target, TargetDefaults, parse_target, read_target_file


class TargetSource(Protocol):
    """Something that knows targets; asked before each round of scrapes."""

    def targets(self) -> tuple[Target, ...]:
        """The targets of this moment, without duplicates. Does not block and does not fail."""

    @property
    def error(self) -> str | None:
        """Why the last answer is not up to date, in one sentence; None when it is."""


@dataclass(frozen=True, slots=True)
class FixedTargets:
    """Targets that never change."""

    listed: tuple[Target, ...]
    error: str | None = None

    def targets(self) -> tuple[Target, ...]:
        """The list, always the same."""
        return self.listed


class FileTargets:
    """The targets of a file; when it changes and cannot be read, the last good list holds."""

    def __init__(self, path: Path, defaults: TargetDefaults | None = None) -> None:
        """Read the file for the first time. Raises TargetError."""
        self._path = path
        self._defaults = defaults
        self._seen = self._signature()
        self._listed = read_target_file(path, defaults)
        self.error: str | None = None

    def targets(self) -> tuple[Target, ...]:
        """The targets, read again if the file has changed since."""
        signature = self._signature()
        if signature != self._seen:
            self._seen = signature
            try:
                self._listed = read_target_file(self._path, self._defaults)
                self.error = None
            except TargetError as error:
                self.error = f"{error}; going on with the targets it had before"
        return self._listed

    def _signature(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (status.st_mtime_ns, status.st_size, status.st_ino)


class JoinedTargets:
    """Several sources as one; a target that two of them know is kept once."""

    def __init__(self, sources: Iterable[TargetSource]) -> None:
        self._sources = tuple(sources)

    def targets(self) -> tuple[Target, ...]:
        """All targets of all sources, in order."""
        joined: dict[tuple[str, str | None], Target] = {}
        for source in self._sources:
            for target in source.targets():
                joined.setdefault((target.base_url, target.unix_path), target)
        return tuple(joined.values())

    def close(self) -> None:
        """End what the sources do in the background."""
        for source in self._sources:
            if isinstance(source, HttpTargets):
                source.close()

    @property
    def error(self) -> str | None:
        """The first source's error that there is."""
        return next((source.error for source in self._sources if source.error), None)


def find_targets(texts: Iterable[str], defaults: TargetDefaults | None = None) -> JoinedTargets:
    """Make a source of command-line arguments: addresses, files and `sd+` URLs of lists.

    To be closed. Raises TargetError.
    """
    sources: list[TargetSource] = []
    for text in texts:
        if text.startswith(PREFIX):
            sources.append(HttpTargets(text, defaults))
        elif "://" not in text and not text.startswith("unix:") and Path(text).is_file():
            sources.append(FileTargets(Path(text), defaults))
        else:
            sources.append(FixedTargets((parse_target(text, defaults),)))
    return JoinedTargets(sources)

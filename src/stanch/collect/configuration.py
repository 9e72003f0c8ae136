"""What the TOML files that people write have in common: how they are read, and what is refused."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stanch.collect.sizes import parse_duration_s

_MAX_FILE_BYTES = 1024 * 1024


class ConfigurationError(ValueError):
    """A file cannot be used; the text names it, or the key, and what is expected."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a file: its default in words, and what it means."""

    name: str
    default: str
    help: str


def read_toml(path: Path) -> dict[str, Any]:
    """Read a file of at most 1 MiB. Raises ConfigurationError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"{path} is larger than 1 MiB")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path} is no TOML: {error}") from error


def refuse_unknown(values: Mapping[str, Any], known: Sequence[str], where: str = "") -> None:
    """Raise ConfigurationError for a key that is not known. where: what its name begins with."""
    for key in values:
        if key not in known:
            raise ConfigurationError(f"{where}{key!r} is not known; expected {', '.join(known)}")


def seconds_of(key: str, text: object) -> float:
    """Return the duration that a key has, in seconds; "0" is one. Raises ConfigurationError."""
    if text in ("0", "0s"):
        return 0.0
    try:
        return parse_duration_s(str(text))
    except ValueError as error:
        raise ConfigurationError(f"{key}: {error}") from error

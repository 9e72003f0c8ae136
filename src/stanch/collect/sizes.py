"""Sizes and durations as people write them: 256MiB, 1g, 90s, 5m."""

import re

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(text: str) -> int:
    """Bytes of "268435456", "256MiB", "256Mi", "256M" or "0.25g"; each letter is a power of 1024.

    Raises ValueError with one sentence.
    """
    match = _SIZE.fullmatch(text.strip())
    size = 0
    if match:
        number, power, _ = match.groups()
        size = int(float(number) * 1024 ** _POWERS[power.lower()])
    if size <= 0:
        raise ValueError(f"{text!r} is not a size; expected bytes such as 256MiB or 1GiB")
    return size


def parse_duration_s(text: str) -> float:
    """Seconds of "90", "90s", "1.5m", "2h" or "500ms". Raises ValueError with one sentence."""
    match = _DURATION.fullmatch(text.strip())
    seconds = 0.0
    if match:
        number, unit = match.groups()
        seconds = float(number) * _SECONDS[(unit or "").lower()]
    if seconds <= 0:
        raise ValueError(f"{text!r} is not a duration; expected one such as 5s, 2m or 1h")
    return seconds

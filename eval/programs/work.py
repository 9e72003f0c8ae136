"""What the programs share: the memory that a request makes, and the room below the limit."""

from collections.abc import Callable
from typing import TypeAlias

SIZE = 20_000
"""Bytes that a request makes, and keeps where it leaks."""

ROOM = 64_000_000
"""Bytes below the limit at the start of a program; a leak takes about four minutes to fill it."""

ALLOCATES = "payload"

Tick: TypeAlias = Callable[[int], None]
"""Serves one request; takes its number."""


def payload(number: int) -> list[bytes]:
    """What a request makes: twenty blocks that differ."""
    return [number.to_bytes(8, "big") * (SIZE // 160) for _ in range(20)]

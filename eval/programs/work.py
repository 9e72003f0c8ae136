"""What the programs share: the memory that a request makes, and the room below the limit."""

from collections.abc import Callable
from typing import TypeAlias

SIZE = 20_000
"""Bytes that a request makes, and keeps where it leaks."""

ROOM = 256_000_000
"""Bytes below the limit at the start of a program. A smaller room holds too few samples of the
sampler's default interval for a leak to be seen in a tenth of it, as it is in a real container."""

TICKS_PER_S = 13
"""Requests a second; a leak takes a little over sixteen minutes to fill the room."""

ALLOCATES = "payload"

Tick: TypeAlias = Callable[[int], None]
"""Serves one request; takes its number."""


def payload(number: int) -> list[bytes]:
    """What a request makes: twenty blocks that differ."""
    return [number.to_bytes(8, "big") * (SIZE // 160) for _ in range(20)]

"""One program: `python -m eval.programs.host NAME leak|fixed|healthy`; ticks 13 times a second."""

import asyncio
import sys
import time

from eval.programs.leaks import LEAKS
from eval.programs.lookalikes import LOOKALIKES

TICKS_PER_S = 13


async def main(name: str, which: str) -> None:
    """Tick by the clock, catching up after a stall, until it is killed."""
    tick = LOOKALIKES[name] if which == "healthy" else LEAKS[name][0]
    began_s, number = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began_s) * TICKS_PER_S)
        while number < due:
            tick(number, which == "fixed")
            number += 1
        await asyncio.sleep(1 / TICKS_PER_S)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

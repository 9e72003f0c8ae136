"""One program: `python -m eval.programs.host NAME leak|fixed|healthy`; ticks 13 times a second."""

import asyncio
import sys
import time

from eval.programs.work import Tick

TICKS_PER_S = 13


def tick_of(name: str, which: str) -> Tick:
    """The tick of a program. Of a leak and its twin only the one that runs is imported."""
    from eval.programs.packages import PACKAGES

    if name in PACKAGES:
        leak, twin, _ = PACKAGES[name]
        return leak if which == "leak" else twin
    if which == "leak":
        from eval.programs.leaks import LEAKS

        return LEAKS[name][0]
    if which == "fixed":
        from eval.programs.twins import TWINS

        return TWINS[name]
    from eval.programs.lookalikes import LOOKALIKES

    return LOOKALIKES[name]


async def main(name: str, which: str) -> None:
    """Tick by the clock, catching up after a stall, until it is killed."""
    tick = tick_of(name, which)
    began_s, number = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began_s) * TICKS_PER_S)
        while number < due:
            tick(number)
            number += 1
        await asyncio.sleep(1 / TICKS_PER_S)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

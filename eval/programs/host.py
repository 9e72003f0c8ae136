"""One program: `python -m eval.programs.host NAME leak|fixed|healthy TICKS_PER_S`.

It serves its requests by the clock, through the agent's middleware, as a real service does.
"""

import asyncio
import sys
import time
from typing import Any

from eval.programs.work import Tick
from stanch.agent.middleware import StanchASGI


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


class Service:
    """An ASGI application: each request is one tick."""

    def __init__(self, tick: Tick) -> None:
        self._tick = tick
        self._served = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request."""
        self._tick(self._served)
        self._served += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def _nothing(message: object = None) -> dict[str, object]:
    return {"type": "http.request", "body": b""}


async def main(name: str, which: str, ticks_per_s: str) -> None:
    """Serve by the clock, catching up after a stall, until it is killed."""
    service = StanchASGI(Service(tick_of(name, which)))
    began_s, number = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began_s) * float(ticks_per_s))
        while number < due:
            await service({"type": "http", "method": "GET", "path": "/"}, _nothing, _nothing)
            number += 1
        await asyncio.sleep(1 / float(ticks_per_s))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

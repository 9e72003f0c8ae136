"""The automatic retention search against a real agent: what it remembers, and when it gives up."""

import asyncio
import sys
import time
from collections.abc import Iterator

import pytest

from stanch.collect import FetchError, Scraper, parse_target
from stanch.detect import Inspection, Place
from stanch.server.inspect import Inspector
from tests.agent.hosts import Runs, runs_directory, wait_for

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="the retention search knows CPython 3.11 to 3.13"
)

HOST = """
    import functools, sys, threading, time
    SESSIONS = {}
    def remember(n):
        SESSIONS[n] = [bytes(5000)]
    @functools.lru_cache(maxsize=200)
    def price(n): return [bytes(5000)]
    def work():
        n = 0
        while True:
            n += 1
            remember(n)
            price(n)
            time.sleep(0.001)
    threading.Thread(target=work, daemon=True).start()
    while 1000 not in SESSIONS: time.sleep(0.01)
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The socket of a process under `stanch run` that keeps sessions and caches prices."""
    with runs_directory() as runs:
        script = runs.script("host.py", HOST)
        with runs.running("--interval", "4096", "--", sys.executable, script):
            wait_for(lambda: "ready" in runs.output() and runs.sockets(), runs)
            yield _socket(runs)


def _socket(runs: Runs) -> str:
    return f"unix:{runs.sockets()[0]}"


async def searched(address: str, *functions: str, looks: int = 2) -> Inspector:
    """An inspector after so many rounds in which these functions were asked for."""
    scraper = Scraper(monotonic=time.monotonic, wall=time.time, timeout_s=60.0)
    target = parse_target(address)
    inspector = Inspector()
    wanted = tuple(Inspection("shop-1", Place("host.py", function), 1e6) for function in functions)
    try:
        await scraper.scrape([target])
        for _ in range(looks):
            await inspector.look(wanted, lambda _, path: scraper.ask(target, path))
    finally:
        await scraper.close()
    return inspector


def test_two_looks_find_an_unbounded_dict(address: str) -> None:
    """One look cannot tell growth; after two it is known, and that nothing empties it."""
    place = Place("host.py", "remember")
    assert asyncio.run(searched(address, "remember", looks=1)).holders == {}
    holder = asyncio.run(searched(address, "remember")).holders[place]
    assert holder.behaviour == "never emptied"
    assert holder.name.endswith("host.py module global SESSIONS")
    assert holder.per_second is not None and holder.per_second > 0
    assert holder.at_bytes == 1e6


def test_a_bounded_cache_is_known_as_one(address: str) -> None:
    """lru_cache tells its maxsize."""
    holder = asyncio.run(searched(address, "price")).holders[Place("host.py", "price")]
    assert (holder.behaviour, holder.bound) == ("bounded", 200)


def test_a_search_that_is_refused_is_not_asked_for_again_at_once(address: str) -> None:
    """No such function, and no such target: the next in turn is searched instead."""
    inspector = asyncio.run(searched(address, "no_such_function", "price", looks=3))
    assert set(inspector.holders) == {Place("host.py", "price")}

    asked = []

    async def gone(instance: str, path: str) -> bytes:
        asked.append(path)
        raise FetchError("gone")

    async def rounds() -> None:
        inspector = Inspector()
        wanted = (Inspection("shop-1", Place("host.py", "remember"), 1e6),)
        for _ in range(10):
            await inspector.look(wanted, gone)

    asyncio.run(rounds())
    assert len(asked) == 1

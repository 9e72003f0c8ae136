"""Healthy programs that look like leaks for a while."""

import bisect
import functools
import gc
import math
import random
import threading
import time
from collections import OrderedDict, deque
from typing import Any

from eval.programs.work import ROOM, SIZE, Tick, payload

_PART = int(0.3 * ROOM / SIZE)
"""Requests whose memory is 30 % of the room."""

PAGES: OrderedDict[int, Any] = OrderedDict()
TOKENS: dict[int, tuple[float, Any]] = {}
RECENT: deque[Any] = deque(maxlen=_PART)
INDEX: list[Any] = []
FLIGHT: dict[int, tuple[float, Any]] = {}
ROWS: list[Any] = []
SORTED: list[int] = []
POOL: list[Any] = []
HOT: dict[int, Any] = {}
THREADS: list[threading.Thread] = []
_TTL_S = 480.0


class Bounded:
    """A cache with its bound in an attribute."""

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self.entries: dict[int, Any] = {}

    def put(self, key: int, value: Any) -> None:
        """Keep a value, dropping the oldest when full."""
        self.entries[key] = value
        if len(self.entries) > self.maxsize:
            del self.entries[next(iter(self.entries))]


CACHE = Bounded(_PART)


@functools.lru_cache(maxsize=_PART)
def render(number: int) -> list[bytes]:
    """A bounded lru_cache."""
    return payload(number)


def fill_lru(number: int) -> None:
    """lru_cache with a bound, asked for new keys."""
    render(number)


def fill_ordered(number: int) -> None:
    """An OrderedDict whose bound is a constant in the code."""
    PAGES[number] = payload(number)
    if len(PAGES) > _PART:
        PAGES.popitem(last=False)


def fill_bounded(number: int) -> None:
    """A dict whose owner has a maxsize."""
    CACHE.put(number, payload(number))


def expire_tokens(number: int) -> None:
    """A dict whose entries expire after eight minutes: a quarter of the room."""
    now = time.monotonic()
    if number % 2 == 0:
        TOKENS[number] = (now, payload(number))
    while TOKENS and next(iter(TOKENS.values()))[0] < now - _TTL_S:
        del TOKENS[next(iter(TOKENS))]


def keep_recent(number: int) -> None:
    """A deque with a maxlen."""
    RECENT.append(payload(number))


def load_index(number: int) -> None:
    """Twenty per cent of the room taken at the start, ever slower."""
    want = int(0.2 * ROOM / SIZE * (1 - math.exp(-number / 1600)))
    while len(INDEX) < want:
        INDEX.append(payload(number))


def hold_upload(number: int) -> None:
    """Work in flight, ever more of it for eight minutes: the load rises."""
    now = time.monotonic()
    if random.random() < min(1.0, number / 6000):
        FLIGHT[number] = (now, payload(number))
    while FLIGHT and next(iter(FLIGHT.values()))[0] < now - 100.0:
        del FLIGHT[next(iter(FLIGHT))]


def run_job(number: int) -> None:
    """A job that gathers rows for three minutes and hands them over."""
    ROWS.append(payload(number))
    if number % 2400 == 2399:
        ROWS.clear()


def sort_numbers(number: int) -> None:
    """A list that grows by reallocation to a megabyte and starts anew."""
    for _ in range(200):
        bisect.insort(SORTED, random.randrange(1 << 30))
    if len(SORTED) > 30_000:
        SORTED.clear()


def grow_pool(number: int) -> None:
    """Connections of a pool, up to a hundred and sixty of them, each with its buffers."""
    if number % 25 == 0 and len(POOL) < 160:
        POOL.append([payload(number) for _ in range(20)])


def start_workers(number: int) -> None:
    """Threads of a pool, up to twenty-four."""
    if number % 40 == 0 and len(THREADS) < 24:
        thread = threading.Thread(target=threading.Event().wait, daemon=True)
        thread.start()
        THREADS.append(thread)
    payload(number)


def cache_hot(number: int) -> None:
    """A dict of what was asked for, out of a catalogue that ends at 3600 entries."""
    key = min(int(random.expovariate(1 / 1200)), 3599)
    if key not in HOT:
        HOT[key] = payload(key)


def make_garbage(number: int) -> None:
    """Cycles that the collector gets to now and then."""
    if number == 0:
        gc.set_threshold(100_000)
    cycle: list[Any] = [payload(number)]
    cycle.append(cycle)
    if number % 500 == 499:
        gc.collect()


LOOKALIKES: dict[str, Tick] = {
    "lru": fill_lru,
    "ordered": fill_ordered,
    "bounded": fill_bounded,
    "expiring": expire_tokens,
    "maxlen": keep_recent,
    "index": load_index,
    "rising load": hold_upload,
    "job": run_job,
    "sorting": sort_numbers,
    "pool": grow_pool,
    "workers": start_workers,
    "catalogue": cache_hot,
    "garbage": make_garbage,
}

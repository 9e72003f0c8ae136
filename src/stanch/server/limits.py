"""How often one sender and one token may ask: a token bucket for each.

A bucket holds as much as flows in within BURST_S; who finds it empty is told when to come back.
https://en.wikipedia.org/wiki/Token_bucket
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

BURST_S = 2.0
_MOST_KEYS = 20_000


class Buckets:
    """One bucket for each key, of those that asked last. May be used from several threads."""

    def __init__(self, per_second: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        """per_second: 0 for no limit."""
        self._per_second = per_second
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> int:
        """Take one; return 0, or when there is none the whole seconds until there is one."""
        if self._per_second <= 0:
            return 0
        now_s = self._monotonic()
        most = max(1.0, BURST_S * self._per_second)
        with self._lock:
            left, since_s = self._left.pop(key, (most, now_s))
            left = min(most, left + max(0.0, now_s - since_s) * self._per_second)
            enough = left >= 1.0
            # The newest at the end, so that the one forgotten is the one that is long full again.
            self._left[key] = (left - enough, now_s)
            if len(self._left) > _MOST_KEYS:
                self._left.popitem(last=False)
        return 0 if enough else max(1, math.ceil((1.0 - left) / self._per_second))

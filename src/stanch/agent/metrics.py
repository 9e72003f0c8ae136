"""What is counted in this process: the requests of the host and the reads of the endpoint.

`RequestMeter` is fed by the middleware and read by exposition.py, which writes it in Prometheus'
format. `EndpointMeter` counts what the endpoint itself answered and cost.
"""

import threading
from bisect import bisect_left
from collections import Counter

from stanch import sampler

BUCKET_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the request histogram; one more bucket holds what is longer than the last."""


class RequestMeter:
    """Counts and times the requests that the host serves. Thread-safe.

    total: finished requests. failed: those of them that ended in an error. in_flight: begun and
    not finished. seconds_sum: their durations together. buckets: how many took at most each of
    BUCKET_SECONDS and more than the one before; the last holds the rest.
    """

    __slots__ = ("_lock", "buckets", "failed", "in_flight", "seconds_sum", "total")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew: in a forked child, where another thread may have held the lock."""
        self._lock = threading.Lock()
        self.total = self.failed = self.in_flight = 0
        self.seconds_sum = 0.0
        self.buckets = [0] * (len(BUCKET_SECONDS) + 1)

    def begin(self) -> None:
        """Count a request that starts."""
        with self._lock:
            self.in_flight += 1

    def end(self, seconds: float, failed: bool) -> None:
        """Count a request that took `seconds`; also in the sampler, which dates births by it."""
        with self._lock:
            if self.in_flight:  # A request that began before a reset ends after it.
                self.in_flight -= 1
            self.total += 1
            self.failed += failed
            self.seconds_sum += seconds
            self.buckets[bisect_left(BUCKET_SECONDS, seconds)] += 1
        sampler.count_request()


class EndpointMeter:
    """Counts the reads that the endpoint answered, and the CPU time they took. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reads: Counter[tuple[str, int]] = Counter()
        self._cpu_ns = 0

    def read(self, path: str, status: int) -> None:
        """Count an answer; `path` is one of the endpoint's own, or "other"."""
        with self._lock:
            self._reads[path, status] += 1

    def spent(self, cpu_ns: int) -> None:
        """Add CPU time of one of the endpoint's threads."""
        with self._lock:
            self._cpu_ns += cpu_ns

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the endpoint's threads that have ended, and of the acceptor so far."""
        return self._cpu_ns / 1e9

    def reads(self) -> dict[tuple[str, int], int]:
        """Return how many reads there were by path and status."""
        with self._lock:
            return dict(self._reads)

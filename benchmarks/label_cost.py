"""CPU time that the counting and the labels of requests add to a Flask application.

    python -m benchmarks.label_cost [--rounds N]

One process with the sampler at 512 KiB, pinned to a core, the collector off. Chunks of some 25 ms
take turns, each time in another order: the application itself; behind Stanch's WSGI middleware
with labels off; with labels on, which its router then renames to the route. Prints the median
ratio of CPU time to the application alone with its 95 % confidence interval (bootstrap), and what
that is per request. The control is the application alone once more.
"""

import argparse
import gc
import os
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.workloads import flask_requests
from stanch import sampler
from stanch.agent import requestlabels, routers
from stanch.agent.metrics import RequestMeter
from stanch.agent.middleware import StanchWSGI

INTERVAL, ROUNDS, REQUESTS = 512 << 10, 200, 9
CHUNK_NS = 25e6
BOOTSTRAPS = 400
WAYS = ("alone", "control", "counted", "labelled")


class Switch:
    """Calls the application alone, or behind the middleware."""

    def __init__(self, app: Any) -> None:
        self.alone = self.chosen = app
        self.watched = StanchWSGI(app, RequestMeter())

    def __call__(self, *arguments: Any) -> Any:
        """Answer one request."""
        return self.chosen(*arguments)

    def turn(self, way: str) -> None:
        """Choose how the next requests are answered."""
        self.chosen = self.alone if way in ("alone", "control") else self.watched
        requestlabels.switch(way == "labelled")


def measure(rounds: int) -> dict[str, list[int]]:
    """Return the CPU time of each way's chunks, in ns a request, in the order of rounds."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    sampler.start(interval_bytes=INTERVAL)
    routers.install()
    made: list[Switch] = []

    def wrap(app: Any) -> Switch:
        made.append(Switch(app))
        return made[0]

    work = flask_requests(wrap)
    for way in WAYS * 5:
        made[0].turn(way)
        work()
    turns = max(1, round(CHUNK_NS / min(_timed(work, 1) for _ in range(5))))
    gc.collect()
    gc.freeze()
    gc.disable()
    taken: dict[str, list[int]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in random.sample(WAYS, len(WAYS)):
            made[0].turn(way)
            taken[way].append(_timed(work, turns) // (turns * REQUESTS))
        if number % 20 == 19:
            gc.collect()
    return taken


def _timed(work: Callable[[], None], turns: int) -> int:
    began = time.process_time_ns()
    for _ in range(turns):
        work()
    return time.process_time_ns() - began


def main() -> None:
    """Print one line per way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    taken = measure(rounds)
    alone_us = statistics.median(taken["alone"]) / 1e3
    print(f"a request takes {alone_us:.0f} us; CPU time over that, 95 % interval")
    for way in WAYS[1:]:
        ratios = [on / off for on, off in zip(taken[way], taken["alone"], strict=True)]
        medians = sorted(
            statistics.median(random.choices(ratios, k=rounds)) for _ in range(BOOTSTRAPS)
        )
        ratio = statistics.median(ratios)
        low, high = medians[BOOTSTRAPS // 40], medians[-BOOTSTRAPS // 40]
        added_us = (ratio - 1) * alone_us
        print(f"  {way:9} {ratio:.4f} ({low:.4f} to {high:.4f})  {added_us:+.1f} us a request")


if __name__ == "__main__":
    main()

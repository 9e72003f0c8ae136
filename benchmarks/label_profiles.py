"""What labels add to a heap profile: samples, bytes, and CPU time to build and encode it.

    python -m benchmarks.label_profiles

A table of 4,300 stacks of 30 frames and 2,500 or 20,000 live samples, born over an hour, of 1 or of
60 routes times 8 threads, each stack being of 3 of the routes. CPU time is the best of 7.
"""

import random
import time

from stanch.profile import encode
from stanch.sampler import TableImage, table_profile
from stanch.sampler.tablefile import TableEntry, TableFunction, TableLabel, TableStack

STACKS, DEPTH, ROUNDS = 4300, 30, 7


def image(samples: int, routes: int, threads: int) -> TableImage:
    """Return a table as a service of that many routes and threads would have it."""
    chance = random.Random(1)
    places = [
        (TableFunction(f"Handler.step_{number}", f"/app/module_{number % 90}.py", number), number)
        for number in range(6000)
    ]
    stacks = tuple(
        TableStack(tuple(chance.choices(places, k=DEPTH)), 10.0, 5e6) for _ in range(STACKS)
    )
    pairs = [
        TableLabel(f"worker-{thread}", f"GET /api/v1/resource_{route}/<int:id>")
        for route in range(routes)
        for thread in range(threads)
    ]
    entries = []
    for _ in range(samples):
        stack = min(int(chance.expovariate(1 / 600)), STACKS - 1)
        route = (stack + chance.randrange(3)) % routes
        birth_ns = chance.randrange(3600 * 10**9)
        number = 2 + route * threads + chance.randrange(threads)
        entries.append(TableEntry(700, birth_ns, 0, stack, 512 << 10, 2, number))
    return TableImage(
        pid=1, service="shop", python="3.11.0", start_unix_ns=10**18, uptime_ns=3600 * 10**9,
        stopped=False, interval_bytes=512 << 10, limit_bytes=None, requests=10**6, samples=10**6,
        dropped=0, stacks=stacks, entries=tuple(entries), torn=0, mappings=(),
        labels=(TableLabel("", ""), TableLabel("x", "x"), *pairs), labels_refused=0, intervals=(),
    )  # fmt: skip


def main() -> None:
    """Print one line for each kind of table."""
    for samples in (2500, 20_000):
        for routes, threads in ((1, 1), (60, 8)):
            table = image(samples, routes, threads)
            best_s = float("inf")
            for _ in range(ROUNDS):
                began = time.process_time()
                profile = table_profile(table, instance="host:1")
                data = encode(profile)
                best_s = min(best_s, time.process_time() - began)
            alive = sum(1 for sample in profile.samples if sample.values[3])
            print(
                f"{samples:6,} live samples, {routes:2} routes x {threads} threads:"
                f" {alive:6,} pprof samples, {len(data) / 1024:5.0f} KiB,"
                f" {best_s * 1e3:4.0f} ms"
            )


if __name__ == "__main__":
    main()

"""One round of detection over many processes with many stacks, on one core.

`python -m benchmarks.detection_sweep [PROCESSES [STACKS]]`: series as a store gives them after some
looks, one in fifty with a leak; prints the CPU seconds of judging them all.
"""

import sys
import time

import numpy as np

from stanch.detect import judge_service
from stanch.store import Births, Counts, Frame, LifeSeries, ServiceSeries, Stack

_LOOKS = 120
_BANDS = 90
_MIB = 1024.0 * 1024.0
_REPLICAS = 10


def stacks_of(count: int, service: int) -> tuple[Stack, ...]:
    """Stacks of 25 frames that share most of them, as a service's do."""
    library = "/venv/lib/python3.12/site-packages/web"
    above = tuple(Frame(f"layer{n}", f"{library}/{n}.py", n) for n in range(20))
    return tuple(
        (
            Frame("loads", "/usr/lib/python3.12/json/__init__.py", 346),
            Frame(f"function{n % 400}", f"/srv/app{service}/module{n % 40}.py", n),
            Frame(f"caller{n % 90}", f"/srv/app{service}/module{n % 9}.py", n),
            *above,
        )
        for n in range(count)
    )


def life(
    service: int, replica: int, stacks: tuple[Stack, ...], rng: np.random.Generator
) -> LifeSeries:
    """A life of an hour whose stacks hold sizes as uneven as in real services."""
    count = len(stacks)
    sizes = rng.pareto(1.1, count) * 20_000
    time_s = np.linspace(30.0, 3600.0, _LOOKS)
    live = sizes[:, None] * rng.uniform(0.8, 1.2, (count, _LOOKS))
    born = live[:, -1:] * rng.dirichlet(np.ones(_BANDS) * 0.3, count)
    leaks = replica == 0 and service % 5 == 0
    if leaks:
        live[0] = np.linspace(0.0, 200 * _MIB, _LOOKS)
        born[0] = 200 * _MIB / _BANDS
    memory = 150 * _MIB + live.sum(axis=0)
    unknown = np.full(_LOOKS, np.nan)
    return LifeSeries(
        service=f"service{service}",
        instance=f"service{service}-{replica}",
        language="python",
        first_unix_s=1.7e9,
        time_s=time_s,
        rss_bytes=memory,
        memory_bytes=memory,
        heap_bytes=live.sum(axis=0),
        runtime_bytes=unknown,
        requests=np.linspace(0.0, 60_000.0, _LOOKS),
        in_flight=unknown,
        limit_bytes=1024 * _MIB,
        period_bytes=256 * 1024.0,
        heap_fresh=np.ones(_LOOKS, dtype=np.bool_),
        stacks=stacks,
        live_bytes=live,
        allocated_bytes=live * 3,
        object_bytes=np.full(count, 200.0),
        births=Births(np.arange(_BANDS + 1) * 40.0, born, born),
        counts=Counts((), (), np.zeros((0, _LOOKS))),
    )


def main(processes: int = 1000, stacks: int = 1500) -> None:
    """Judge every service once and print how long it took."""
    rng = np.random.default_rng(1)
    took = 0.0
    confirmed = 0
    for service in range(processes // _REPLICAS):
        # Every process has stacks of its own, as a store gives them.
        lives = tuple(
            life(service, replica, stacks_of(stacks, service), rng) for replica in range(_REPLICAS)
        )
        began = time.process_time()
        verdict = judge_service(ServiceSeries(f"service{service}", lives, ()))
        took += time.process_time() - began
        confirmed += sum(one.is_confirmed_leak for one in verdict.findings)
    print(f"{processes} processes of {stacks} stacks: {took:.2f} s of CPU, {confirmed} confirmed")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))

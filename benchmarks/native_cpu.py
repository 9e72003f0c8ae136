"""CPU time of native sampling: a process with it beside one without Stanch, chunk by chunk.

    python -m benchmarks.native_cpu [--processes N] [--pairs N] [--interval BYTES] [--workload W]...

The preload library cannot be taken out of a process, so two processes on one core (the threads: on
all) take turns, in the order on, off, off, on, at the same chunk of some 25 ms. Where a process's
memory lies moves its speed for its whole life by more than what is measured: so there are several
pairs of processes, and the figure is the median over them of each pair's median ratio of CPU time,
with the least and the largest. The control compares two processes without Stanch.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.workloads import WORKLOADS
from stanch import sampler

PROCESSES, PAIRS = 8, 40
CHUNK_NS = 25e6
WARM_UP = 5
WAYS = ("control", "python", "native")


def serve(name: str, way: str, interval_bytes: int) -> None:
    """Answer each count of rounds on standard input with the CPU time that they took, in ns."""
    if way in ("python", "native"):
        sampler.start(interval_bytes=interval_bytes, native=way == "native")
    if sampler.stats().native != (way == "native"):
        raise SystemExit(f"no native samples: {sampler.stats().native_error}")
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores if name == "threads" else cores[-1:])
    work = WORKLOADS[name]()
    for line in sys.stdin:
        began = time.process_time_ns()
        for _ in range(int(line)):
            work()
        print(time.process_time_ns() - began, flush=True)


class Worker:
    """A process that runs rounds of a workload when asked."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ns(self, rounds: int) -> int:
        """Return the CPU time of so many rounds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(rounds, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit("the process that is measured has ended")
        return int(answer)


@contextmanager
def worker(name: str, way: str, interval_bytes: int) -> Iterator[Worker]:
    """Start one; it ends with the block."""
    command = [sys.executable, "-m", "benchmarks.native_cpu", "--child", name, way]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
    if way == "native":
        environment["LD_PRELOAD"] = str(sampler.PRELOAD)
    with subprocess.Popen(
        [*command, "--interval", str(interval_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield Worker(process)


def compare(name: str, way: str, interval_bytes: int, pairs: int) -> float:
    """Return the median ratio of one pair of processes."""
    with ExitStack() as stack:
        on = stack.enter_context(worker(name, way, interval_bytes))
        off = stack.enter_context(worker(name, "off", interval_bytes))
        once_ns = min(off.ns(1) for _ in range(WARM_UP))
        rounds = max(1, round(CHUNK_NS / once_ns))
        for _ in range(WARM_UP):
            on.ns(rounds)
            off.ns(rounds)
        ratios = []
        for pair in range(pairs):
            order = (on, off) if pair % 2 else (off, on)
            taken = {each: each.ns(rounds) for each in order}
            ratios.append(taken[on] / taken[off])
        return statistics.median(ratios)


def main() -> None:
    """Print one line per workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--interval", type=int, default=512 << 10)
    parser.add_argument("--child", nargs=2, metavar=("WORKLOAD", "WAY"), help=argparse.SUPPRESS)
    parser.add_argument("--workload", choices=WORKLOADS, action="append")
    arguments = parser.parse_args()
    if arguments.child:
        serve(*arguments.child, arguments.interval)
        return
    print(f"CPU time over that without Stanch, one sample per {arguments.interval >> 10} KiB,")
    print(f"median (least to largest) of {arguments.processes} pairs of processes")
    for name in arguments.workload or WORKLOADS:
        for way in WAYS:
            found = [
                compare(name, way, arguments.interval, arguments.pairs)
                for _ in range(arguments.processes)
            ]
            print(
                f"  {name:8}{way:8} {statistics.median(found):.4f} "
                f"({min(found):.4f} to {max(found):.4f})",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Instructions that native sampling adds, counted by callgrind in processes of their own.

    python -m benchmarks.native_cost [--interval BYTES] [--workload NAME]...

Three processes per workload: without Stanch; with the sampler; with that, the preload library
and native samples. Rounds FEW to MANY are counted only, by subtracting a run with fewer rounds, so
start-up, imports and what a process does once cancel out. The goal for the last over the first is
1.03 at 512 KiB. Threads are scheduled as valgrind likes, one at a time.
"""

import argparse
import os
import re
import subprocess
import sys

from benchmarks.workloads import WORKLOADS
from stanch import sampler

FEW, MANY = 2, 5
WAYS = ("off", "python", "native")


def run_rounds(name: str, rounds: int, way: str, interval_bytes: int) -> None:
    """Run a workload in this process."""
    if way != "off":
        sampler.start(interval_bytes=interval_bytes, native=way == "native")
    if sampler.stats().native != (way == "native"):
        raise SystemExit(f"no native samples: {sampler.stats().native_error}")
    work = WORKLOADS[name]()
    for _ in range(rounds):
        work()


def count(name: str, rounds: int, way: str, interval_bytes: int) -> int:
    """Return the instructions that a process of its own retires."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable]
    command += ["-m", "benchmarks.native_cost", "--child", name, str(rounds), way]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
    if way == "native":
        environment["LD_PRELOAD"] = str(sampler.PRELOAD)
    answer = subprocess.run(
        [*command, "--interval", str(interval_bytes)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=3600,
    )
    found = re.search(r"Collected : (\d+)", answer.stderr)
    if answer.returncode or found is None:
        raise SystemExit(f"callgrind gave no count: {answer.stderr[-500:]}")
    return int(found[1])


def main() -> None:
    """Print one line per workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interval", type=int, default=512 << 10)
    parser.add_argument("--child", nargs=3, metavar=("WORKLOAD", "ROUNDS", "WAY"))
    parser.add_argument("--workload", choices=WORKLOADS, action="append")
    arguments = parser.parse_args()
    if arguments.child:
        name, rounds, way = arguments.child
        run_rounds(name, int(rounds), way, arguments.interval)
        return
    print(f"instructions over those without Stanch, one sample per {arguments.interval >> 10} KiB")
    for name in arguments.workload or WORKLOADS:
        off, python, native = (
            count(name, MANY, way, arguments.interval) - count(name, FEW, way, arguments.interval)
            for way in WAYS
        )
        print(
            f"  {name:7} sampler {python / off:.4f}   with native {native / off:.4f}   "
            f"native alone {native / python:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

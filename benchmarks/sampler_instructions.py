"""Instructions with the sampler on against off, counted by callgrind.

    python -m benchmarks.sampler_instructions [--interval BYTES]

Each workload runs its warm-up in both processes; callgrind counts rounds 4 to ROUNDS only, by
subtracting a run with fewer rounds, so start-up and imports cancel out. The process without samples
starts the sampler as well and takes its hooks out, so that both have the same mappings: where
pymalloc's arenas lie decides which of two paths its free takes, and moves the count by up to 0.3 %.
The target is 1.006 at 512 KiB. The counts repeat exactly for the same binary and environment but
for hash seeds, which are fixed here.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.hook_switch import install, installed
from benchmarks.workloads import WORKLOADS

FEW_ROUNDS, ROUNDS = 4, 24
# Counts of the others depend on the scheduler (threads) and on the processor (numpy).
REPEATABLE = ("json", "churn", "flask")


def run_rounds(name: str, rounds: int, interval_bytes: int) -> None:
    """Run a workload in this process, without the sampler's hooks when the interval is 0."""
    from stanch import sampler

    plain = installed()
    table = os.environ.get("BENCH_TABLE")
    sampler.start(interval_bytes=interval_bytes or sampler.LARGEST_INTERVAL_BYTES, table=table)
    if not interval_bytes:
        install(plain)
    work = WORKLOADS[name]()
    for _ in range(rounds):
        work()


def count(name: str, rounds: int, interval_bytes: int) -> int:
    """Return the instructions that a process of its own retires."""
    command = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        sys.executable,
        "-m",
        "benchmarks.sampler_instructions",
        "--child",
        name,
        str(rounds),
        "--interval",
        str(interval_bytes),
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    answer = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, timeout=1800
    )
    found = re.search(r"Collected : (\d+)", answer.stderr)
    if found is None:
        raise SystemExit(f"callgrind gave no count: {answer.stderr[-500:]}")
    return int(found[1])


def main() -> None:
    """Print one line per workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interval", type=int, default=512 << 10)
    parser.add_argument("--child", nargs=2, metavar=("WORKLOAD", "ROUNDS"))
    parser.add_argument("--workload", choices=WORKLOADS, action="append")
    arguments = parser.parse_args()
    if arguments.child:
        run_rounds(arguments.child[0], int(arguments.child[1]), arguments.interval)
        return
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    print(
        f"instructions on / off, CPython {version}, one sample per {arguments.interval >> 10} KiB"
    )
    for name in arguments.workload or REPEATABLE:
        on, off = (
            count(name, ROUNDS, interval) - count(name, FEW_ROUNDS, interval)
            for interval in (arguments.interval, 0)
        )
        print(f"  {name:6} {on / off:.4f}   ({on:,} / {off:,})", flush=True)


if __name__ == "__main__":
    if Path("/usr/bin/valgrind").exists() or "--child" in sys.argv:
        main()
    else:
        sys.exit("this benchmark needs valgrind; on Debian: apt-get install valgrind")

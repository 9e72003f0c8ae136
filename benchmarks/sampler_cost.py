"""CPU time with the hooks on against off, in turn inside one process; and the sampler's memory.

    python -m benchmarks.sampler_cost [--processes N] [--pairs N] [--interval BYTES ...]
                                      [--workload NAME ...]
    python -m benchmarks.sampler_cost --memory

Each process is pinned to one core (the threads to all). It times chunks of work of some 6 ms in
pairs, one with the hooks and one without, in the order on, off, off, on, with the collector off.
Where a process's memory and code lie moves its ratio for its whole life by more than the noise of
its pairs, so a figure is the median over several processes of each one's median ratio of CPU time,
with the 95 % confidence interval of that median (bootstrap over the processes). The control row
does the same with the hooks out in both: it must give 1.00, and its width is what the machine adds.
Between the chunks the hooks are taken out and put back as any other profiler would do it, by
PyMem_SetAllocator; the table stays, so its caches are as warm as in a process that never stops.
What was sampled and is freed without hooks leaves stale entries behind, so the sampler starts
afresh every RESTART pairs, with a warm-up.
"""

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.hook_switch import install, installed
from benchmarks.workloads import WORKLOADS

INTERVALS = (512 << 10, 128 << 10, 64 << 10)
PROCESSES, PAIRS = 10, 120
RESTART = 40
WARM_UP = 4
BOOTSTRAPS = 400
CALLERS, DEPTH = 200, 30
CALLER = """def caller{0}(path, callers, kept):
    if path:
        return callers[f"caller{{path.pop()}}"](path, callers, kept)
    kept += [bytes(67) for _ in range(100)]
"""
LIVE_MB = (10, 100, 400)


def measure(name: str, interval_bytes: int, pairs: int, table: Path | None) -> dict[str, Any]:
    """Measure one workload in this process; interval 0 is the control."""
    from stanch import sampler

    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores if name == "threads" else cores[-1:])
    work = WORKLOADS[name]()
    for _ in range(3 * WARM_UP):
        work()
    once_ns = min(_timed(work) for _ in range(WARM_UP))
    rounds = max(1, round(6e6 / once_ns))

    def chunk() -> None:
        for _ in range(rounds):
            work()

    gc.collect()
    gc.freeze()
    gc.disable()
    plain = hooked = installed()
    ratios: list[float] = []
    times: list[int] = []
    samples = overhead_ns = on_ns = 0
    for pair in range(pairs):
        if pair % RESTART == 0:
            gc.collect()
            if interval_bytes:
                sampler.stop()
                sampler.start(interval_bytes=interval_bytes, table=table)
                hooked = installed()
            for _ in range(WARM_UP):
                chunk()
            before = sampler.stats()
        seconds = {}
        for on in ((True, False), (False, True))[pair % 2]:
            install(hooked if on else plain)
            seconds[on] = _timed(chunk)
        install(hooked)
        ratios.append(seconds[True] / seconds[False])
        times.append(seconds[False])
        on_ns += seconds[True]
        if pair % RESTART == RESTART - 1:
            after = sampler.stats()
            samples += after.samples - before.samples
            overhead_ns += after.overhead_ns - before.overhead_ns
    sampler.stop()
    return {
        "ratio": statistics.median(ratios),
        "chunk_ms": statistics.median(times) / 1e6,
        "samples_per_s": samples / on_ns * 1e9,
        "slow_ns": overhead_ns / samples if samples else 0.0,
    }


def _timed(work: Callable[[], None]) -> int:
    began = time.process_time_ns()
    work()
    return time.process_time_ns() - began


def resident(megabytes: int, interval_bytes: int, table: Path | None) -> dict[str, int]:
    """Return the RSS with a live heap of blocks of 100 bytes, made in megabytes * 100 different
    stacks of DEPTH random frames."""
    from stanch import sampler

    if interval_bytes:
        sampler.start(interval_bytes=interval_bytes, table=table)
    chance = random.Random(1)
    callers: dict[str, Any] = {}
    for number in range(CALLERS):
        exec(CALLER.format(number), callers)
    kept: list[bytes] = []
    for _ in range(megabytes * 100):
        path = chance.choices(range(CALLERS), k=DEPTH)
        callers[f"caller{path.pop()}"](path, callers, kept)
    status = Path("/proc/self/status").read_text()
    kilobytes = int(status.partition("VmRSS:")[2].split()[0])
    return {"rss": kilobytes << 10, "blocks": len(kept)}


def _child(arguments: list[str], table: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.sampler_cost", *arguments]
    with tempfile.TemporaryDirectory(suffix=".tables") as directory:
        answer = subprocess.run(
            [*command, "--table", directory] if table else command,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def print_cost(
    names: list[str], intervals: list[int], processes: int, pairs: int, table: bool
) -> None:
    """Print a row per workload and interval."""
    print(
        f"CPU time on / off, {sys.version.split()[0]}, {processes} processes of {pairs} pairs, "
        "95 % interval",
        flush=True,
    )
    for name in names:
        for interval in intervals:
            child = ["--child", name, "--interval", str(interval), "--pairs", str(pairs)]
            rows = [_child(child, table) for _ in range(processes)]
            middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
            ratios = [row["ratio"] for row in rows]
            medians = sorted(
                statistics.median(random.choices(ratios, k=processes)) for _ in range(BOOTSTRAPS)
            )
            low, high = medians[BOOTSTRAPS // 40], medians[-BOOTSTRAPS // 40]
            what = f"{interval >> 10:4} KiB" if interval else " control"
            print(
                f"  {name:8}{what}  {middle['ratio']:.4f} ({low:.4f} to {high:.4f})"
                f"  chunks of {middle['chunk_ms']:4.1f} ms, "
                f"{middle['samples_per_s']:7.0f} samples/s of {middle['slow_ns']:6.0f} ns",
                flush=True,
            )


def print_memory(intervals: list[int], table: bool) -> None:
    """Print a row per size of the live heap."""
    print("resident memory that the sampler adds, MB (10^6 bytes)")
    for interval in intervals:
        for megabytes in LIVE_MB:
            on, off = (
                _child(["--memory-child", str(megabytes), "--interval", str(each)], table)["rss"]
                for each in (interval, 0)
            )
            added = (on - off) / 1e6
            print(
                f"  {megabytes:4} MB live, {interval >> 10:3} KiB: {added:6.2f}"
                f"   (bound {4 + 0.005 * megabytes:.2f})",
                flush=True,
            )


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--interval", type=int, action="append")
    parser.add_argument("--workload", choices=WORKLOADS, action="append")
    parser.add_argument("--memory", action="store_true", help="the memory rows only")
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", choices=WORKLOADS, help=argparse.SUPPRESS)
    parser.add_argument("--memory-child", type=int, help=argparse.SUPPRESS)
    parser.add_argument(
        "--file", action="store_true", help="with the table in a file rather than private memory"
    )
    arguments = parser.parse_args()
    if arguments.child:
        interval = arguments.interval[0]
        print(json.dumps(measure(arguments.child, interval, arguments.pairs, arguments.table)))
    elif arguments.memory_child is not None:
        interval = arguments.interval[0]
        print(json.dumps(resident(arguments.memory_child, interval, arguments.table)))
    elif arguments.memory:
        print_memory(arguments.interval or list(INTERVALS), arguments.file)
    else:
        names = arguments.workload or list(WORKLOADS)
        intervals = arguments.interval or [0, *INTERVALS]
        print_cost(names, intervals, arguments.processes, arguments.pairs, arguments.file)


if __name__ == "__main__":
    main()

"""The measured process: does work, or holds memory, with one tool watching.

    child.py TOOL FOLDER pairs WORKLOAD SECONDS   CPU with the tool on and off in turn
    child.py TOOL FOLDER whole WORKLOAD SECONDS ROUNDS
                                                  CPU and peak memory with the tool on throughout
    child.py TOOL FOLDER hold                     takes `hold SITE...`, `drop`, `inside`, `end`

Every answer is one line on stdout: "@" and JSON.
"""

import gc
import importlib
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import sites
from benchmarks.peers.tools import TOOLS, Tool
from benchmarks.workloads import WORKLOADS

WARM_ROUNDS = 3
CHUNK_S = 0.025
LEAST_PAIRS = 4

_held: list[object] = []


def say(answer: object) -> None:
    """Write one answer."""
    print("@" + json.dumps(answer), flush=True)


def chunk_rounds(work: Callable[[], None]) -> int:
    """Return how many rounds take CHUNK_S of CPU."""
    for _ in range(WARM_ROUNDS):
        work()
    begin = time.process_time()
    work()
    return max(1, round(CHUNK_S / max(time.process_time() - begin, 1e-6)))


def pairs(tool: Tool, folder: Path, workload: str, seconds: float) -> None:
    """Say the ratios of CPU on / off of neighbouring chunks, in the order on-off-off-on.

    Every chunk follows one that is not timed, so that the caches, and the tool's own tables,
    are as warm as in a process that has run for long.
    """
    work = WORKLOADS[workload]()
    rounds = chunk_rounds(work)

    def chunk() -> float:
        begin = time.process_time()
        for _ in range(rounds):
            work()
        return time.process_time() - begin

    def measure(on: bool) -> float:
        if on:
            tool.start(folder)
        try:
            chunk()
            return chunk()
        finally:
            if on:
                tool.stop()

    measure(True)
    gc.collect()
    gc.freeze()
    gc.disable()
    ratios: list[float] = []
    end = time.perf_counter() + seconds
    while len(ratios) < LEAST_PAIRS or time.perf_counter() < end:
        gc.collect()
        if len(ratios) % 2:
            on, off = measure(True), measure(False)
        else:
            off, on = measure(False), measure(True)
        ratios.append(on / off)
    say({"ratios": ratios})


def whole(tool: Tool, folder: Path, workload: str, seconds: float, rounds: int) -> None:
    """Say CPU seconds of the rounds after the warm ones, peak memory, and bytes of files kept.

    Without a number of rounds, as many as take `seconds`.
    """
    tool.start(folder)
    work = WORKLOADS[workload]()
    if not rounds:
        rounds = chunk_rounds(work) * math.ceil(seconds / CHUNK_S)
    for _ in range(WARM_ROUNDS):
        work()
    begin = time.process_time()
    for _ in range(rounds):
        work()
    cpu_s = time.process_time() - begin
    status = Path("/proc/self/status").read_text()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    kept = [file.stat() for file in folder.iterdir() if file.is_file()]
    disk = sum(file.st_blocks * 512 for file in kept)  # of a sparse file, what it takes
    say({"rounds": rounds, "cpu_s": cpu_s, "peak_bytes": int(peak) * 1024, "file_bytes": disk})
    tool.stop()


def hold(tool: Tool, folder: Path) -> None:
    """Hold what is asked for until the end; it is still held when the tool stops.

    numpy is imported before the tool starts, or its modules would count for the site that uses it.
    """
    importlib.import_module("numpy")
    chance = random.Random()
    tool.start(folder)
    say(os.getpid())
    for line in sys.stdin:
        command, *names = line.split()
        if command == "hold":
            _held.append(sites.hold(names, chance))
            say("held")
        elif command == "drop":
            _held.clear()
            gc.collect()
            say("dropped")
        elif command == "inside":
            say(tool.inside())
        else:
            break
    tool.stop()


def main() -> None:
    """Do what the arguments say."""
    tool, folder, mode, *rest = sys.argv[1:]
    if mode == "pairs":
        pairs(TOOLS[tool], Path(folder), rest[0], float(rest[1]))
    elif mode == "whole":
        whole(TOOLS[tool], Path(folder), rest[0], float(rest[1]), int(rest[2]))
    else:
        hold(TOOLS[tool], Path(folder))


if __name__ == "__main__":
    main()

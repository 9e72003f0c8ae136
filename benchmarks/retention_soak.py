"""Many searches under load and threads: what the host computes and what they leave behind."""

import argparse
import gc
import hashlib
import os
import signal
import threading
import time
from pathlib import Path

from stanch import sampler
from stanch.sampler import retention

KEPT: dict[int, list[bytes]] = {}
SIGNALS: list[int] = []


def keep() -> None:
    """Hold what is searched for."""
    for number in range(100_000):
        KEPT[number] = [bytes(100)]


def work(stop: threading.Event, results: set[str], rounds: list[int]) -> None:
    """Compute the same thing again and again."""
    while not stop.is_set():
        tree = {number: [str(number), {"square": number * number}] for number in range(300)}
        results.add(hashlib.sha256(repr(tree).encode()).hexdigest())
        rounds.append(1)
        time.sleep(0.001)


def resident_bytes() -> int:
    """Return this process's resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def descriptor_count() -> int:
    """Return how many descriptors are open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> str:
    """Return the pids of all children, dead ones too."""
    tasks = Path("/proc/self/task").iterdir()
    return "".join((task / "children").read_text() for task in tasks)


def main() -> None:
    """Search, then look at what is left."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--searches", type=int, default=1000)
    arguments = parser.parse_args()
    signal.signal(signal.SIGCHLD, lambda number, _: SIGNALS.append(number))
    sampler.start(interval_bytes=16384)
    keep()
    image = sampler.snapshot()
    stacks = [n for n, s in enumerate(image.stacks) if any(f.name == "keep" for f, _ in s.frames)]
    stop = threading.Event()
    results: set[str] = set()
    rounds: list[int] = []
    threads = [threading.Thread(target=work, args=(stop, results, rounds)) for _ in range(3)]
    for thread in threads:
        thread.start()
    retention.search(stacks)
    before, descriptors = resident_bytes(), descriptor_count()
    began, pauses, lost = time.monotonic(), [], 0
    for _ in range(arguments.searches):
        found = retention.search(stacks, seconds=20.0)
        assert not found.limits, found.limits
        lost = max(lost, sum(1 for each in found.found if not each.how))
        pauses.append(found.pause_ns / 1e6)
    took_s = time.monotonic() - began
    stop.set()
    for thread in threads:
        thread.join()
    gc.collect()
    pauses.sort()
    print(
        f"{arguments.searches} searches in {took_s:.0f} s beside 3 threads "
        f"({len(rounds):,} rounds, "
        f"{len(results)} different result); {len(found.found):,} samples, at most "
        f"{lost} not found; pause p50 {pauses[len(pauses) // 2]:.1f} ms, most "
        f"{pauses[-1]:.1f} ms; RSS {before / 1e6:.1f} -> {resident_bytes() / 1e6:.1f} MB; "
        f"descriptors {descriptors} -> {descriptor_count()}; "
        f"children {children().strip() or 'none'}; SIGCHLD {len(SIGNALS)}"
    )


if __name__ == "__main__":
    main()

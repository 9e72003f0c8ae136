"""The retention search on a heap of 6 million objects, 1 GB: pause, time, memory, latency.

Prints, for an idle host and for one that writes all its pages, what a search costs, the latency of
a small request beside it, and how long objgraph and gc.get_referrers take for one object.
"""

import argparse
import gc
import os
import resource
import statistics
import threading
import time
from pathlib import Path

from stanch import sampler
from stanch.sampler import retention


class Row:
    """An object as services keep them."""

    __slots__ = ("name", "tags")

    def __init__(self, number: int) -> None:
        self.name = f"row {number}" + "x" * 460
        self.tags = [number + 10**6, {"n": number}]


def build(objects: int) -> dict[int, Row]:
    """Make a heap of about so many objects: each row is six of them."""
    gc.disable()
    rows = {number: Row(number) for number in range(objects // 6)}
    gc.enable()
    return rows


def resident_bytes() -> int:
    """Return this process's resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class Peak(threading.Thread):
    """Watches the private memory of this process's invisible child."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self.stop = threading.Event()

    def run(self) -> None:
        """Look every few milliseconds."""
        while not self.stop.is_set():
            for task in Path("/proc/self/task").iterdir():
                try:
                    for child in (task / "children").read_text().split():
                        rollup = Path(f"/proc/{child}/smaps_rollup").read_text()
                        lines = [line for line in rollup.splitlines() if "Private_Dirty" in line]
                        self.bytes = max(self.bytes, int(lines[0].split()[1]) * 1024)
                except (OSError, IndexError):
                    continue
            time.sleep(0.005)


def one_search(stacks: list[int], arguments: argparse.Namespace, resident: int) -> retention.Search:
    """Search once."""
    return retention.search(
        stacks, resident_bytes=resident, max_targets=arguments.targets, seconds=arguments.seconds
    )


def request_ms(rows: dict[int, Row], seconds: float) -> list[float]:
    """Time small requests one after the other: each reads 2,000 rows and sleeps a little."""
    times = []
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        began = time.perf_counter()
        for at in range(2000):
            _ = rows[(number * 7919 + at) % len(rows)].tags
        times.append((time.perf_counter() - began) * 1e3)
        number += 1
        time.sleep(0.002)
    return times


def p99(times: list[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(times, n=100)[98]


def report(
    name: str,
    found: retention.Search,
    peak: int,
    resident: int,
    seconds: tuple[float, float, float],
) -> None:
    """Print one line; seconds: until the answer, CPU of the child, CPU of the caller."""
    whole_s, cpu_s, own_s = seconds
    print(
        f"{name}: {found.visited:,} objects walked, {len(found.found):,} samples "
        f"({sum(1 for each in found.found if each.how):,} found); pause {found.pause_ns / 1e6:.1f}"
        f" ms, walk {found.walk_ns / 1e9:.2f} s, answer after {whole_s:.2f} s, "
        f"CPU of the child {cpu_s:.2f} s, of the caller (clone and decoding) "
        f"{own_s * 1e3:.0f} ms; own memory "
        f"{found.own_bytes / 1e6:.0f} MB, child private {peak / 1e6:.0f} MB = "
        f"{peak / resident:.1%} of {resident / 1e6:.0f} MB"
    )


def child_cpu_s() -> float:
    """Return the CPU time of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(name: str, stacks: list[int], arguments: argparse.Namespace, resident: int) -> None:
    """Search once and report."""
    watch = Peak()
    watch.start()
    began = time.monotonic()
    before_s, own_s = child_cpu_s(), time.thread_time()
    found = one_search(stacks, arguments, resident)
    own_s, cpu_s = time.thread_time() - own_s, child_cpu_s() - before_s
    whole_s = time.monotonic() - began
    watch.stop.set()
    watch.join()
    report(name, found, watch.bytes, resident, (whole_s, cpu_s, own_s))


def fork_ms() -> float:
    """Return how long a bare fork stops this process, in ms: what no snapshot can be below."""
    began = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    took = (time.perf_counter() - began) * 1e3
    os.waitpid(pid, 0)
    return took


def pauses(stacks: list[int], arguments: argparse.Namespace, resident: int) -> None:
    """Compare the pause of a search with a fork of the same process, in turns."""
    searches, forks = [], []
    for _ in range(10):
        searches.append(one_search(stacks, arguments, resident).pause_ns / 1e6)
        forks.append(fork_ms())
    print(
        f"pause of a search: {min(searches):.1f} to {max(searches):.1f} ms, median "
        f"{statistics.median(searches):.1f}; of a bare fork: {min(forks):.1f} to "
        f"{max(forks):.1f}, median {statistics.median(forks):.1f} ms"
    )


def others(rows: dict[int, Row]) -> None:
    """Time what people use today, on one object."""
    target = rows[len(rows) // 2].tags
    began = time.monotonic()
    gc.get_referrers(target)
    print(f"gc.get_referrers, one step of one object: {time.monotonic() - began:.2f} s stopped")
    try:
        import objgraph
    except ImportError:
        print("objgraph is not installed: pip install objgraph")
        return
    began = time.monotonic()
    chain = objgraph.find_backref_chain(target, objgraph.is_proper_module, max_depth=20)
    print(
        f"objgraph.find_backref_chain, one object: {time.monotonic() - began:.2f} s stopped, "
        f"chain of {len(chain)}"
    )


def main() -> None:
    """Build the heap and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--objects", type=int, default=6_000_000)
    parser.add_argument("--targets", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=retention.SNAPSHOT_S)
    arguments = parser.parse_args()
    sampler.start(interval_bytes=256 << 10)
    rows = build(arguments.objects)
    resident = resident_bytes()
    image = sampler.snapshot()
    stacks = list(range(len(image.stacks)))
    for _ in range(3):
        measured("idle host", stacks, arguments, resident)
    pauses(stacks, arguments, resident)
    before = request_ms(rows, 3.0)
    during: list[float] = []
    for _ in range(5):
        search = threading.Thread(target=one_search, args=(stacks, arguments, resident))
        search.start()
        while search.is_alive():
            during += request_ms(rows, 0.02)
    print(
        f"request p50 {statistics.median(before):.2f} ms, p99 {p99(before):.2f} ms; beside a "
        f"search p50 {statistics.median(during):.2f}, p99 {p99(during):.2f}, most "
        f"{max(during):.1f} ms"
    )
    stop = threading.Event()

    def write_everything() -> None:
        while not stop.is_set():
            for row in rows.values():
                held = row.tags[1]  # its reference count is written
                if stop.is_set():
                    del held
                    return

    writer = threading.Thread(target=write_everything)
    writer.start()
    measured("host that writes all", stacks, arguments, resident)
    stop.set()
    writer.join()
    others(rows)


if __name__ == "__main__":
    main()

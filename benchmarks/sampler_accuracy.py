"""Estimated against true live bytes of call sites of known size.

    python -m benchmarks.sampler_accuracy [--trials N] [--interval BYTES]

Ten sites keep 1 to 100 MB in blocks of 50 B to 1 MB; the site of 20 MB is halved and filled again
three times. Theory: the estimate of n blocks of `size` bytes is a sum of n independent terms that
are 0 or size / p, with p = 1 - exp(-size / interval), so its relative standard deviation is
sqrt((1 - p) / (p n)). Printed: mean error over the trials in units of the standard error of that
mean (unbiased: within about 3), the largest single error in standard deviations, and whether each
stays within three (of N trials of ten sites, 0.27 % may fall outside by chance alone).
"""

import argparse
import math
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from stanch import sampler

MB = 1 << 20
SITES = [
    (1, 50),
    (2, 200),
    (5, 513),
    (8, 1000),
    (10, 4096),
    (20, 100),
    (30, 50),
    (50, 20_000),
    (70, 100_000),
    (100, 1 << 20),
]
BYTES_OVERHEAD = 33  # sys.getsizeof(b"")


def make_sites() -> list[Callable[[int, int, deque[Any]], None]]:
    """Return one function per site, each with a name of its own in the profile."""
    sites = []
    for number in range(len(SITES)):
        source = (
            f"def site{number}(count, size, keep):\n"
            f"    for _ in range(count):\n"
            f"        keep.append(bytes(size))\n"
        )
        namespace: dict[str, Any] = {}
        exec(source, namespace)
        sites.append(namespace[f"site{number}"])
    return sites


def estimate() -> dict[int, float]:
    """Return the estimated live bytes of each site, its own blocks only."""
    image = sampler.snapshot()
    found: dict[int, float] = defaultdict(float)
    for entry in image.entries:
        frames = image.stacks[entry.stack].frames
        if frames and frames[0][0].name.startswith("site"):
            number = int(frames[0][0].name[4:])
            if entry.size_bytes == SITES[number][1]:  # not the deque's own blocks
                weight = sampler.sample_weight(entry.size_bytes, entry.interval_bytes)
                found[number] += weight * entry.size_bytes
    return found


def main() -> None:
    """Print one line per site, then the share of estimates within three deviations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--interval", type=int, default=512 << 10)
    arguments = parser.parse_args()
    sites = make_sites()
    errors: dict[int, list[float]] = defaultdict(list)
    deviations = {}
    for number, (megabytes, size) in enumerate(SITES):
        chance = -math.expm1(-size / arguments.interval)
        deviations[number] = math.sqrt((1 - chance) / (chance * (megabytes * MB // size)))
    for _ in range(arguments.trials):
        sampler.start(interval_bytes=arguments.interval)
        kept: list[deque[Any]] = []
        for number, (megabytes, size) in enumerate(SITES):
            keep: deque[Any] = deque()
            sites[number](megabytes * MB // size, size - BYTES_OVERHEAD, keep)
            kept.append(keep)
        churned, size = kept[5], SITES[5][1]
        for _ in range(3):
            half = len(churned) // 2
            for _ in range(half):
                churned.popleft()
            sites[5](half, size - BYTES_OVERHEAD, churned)
        found = estimate()
        for number, (megabytes, size) in enumerate(SITES):
            truth = megabytes * MB // size * size
            errors[number].append(found[number] / truth - 1)
        del kept, keep, churned
        sampler.stop()
    print(f"{arguments.trials} trials, one sample per {arguments.interval >> 10} KiB")
    print("   live     block   theory's sd    mean error       largest error")
    within = total = 0
    for number, (megabytes, size) in enumerate(SITES):
        deviation = deviations[number]
        mean = sum(errors[number]) / arguments.trials
        bias = mean / (deviation / math.sqrt(arguments.trials))
        largest = max(errors[number], key=abs)
        within += sum(abs(error) <= 3 * deviation for error in errors[number])
        total += arguments.trials
        print(
            f"{megabytes:4} MB {size:8} B   {deviation:8.2%}   {mean:+8.2%} ({bias:+.1f} se)"
            f"   {largest:+8.2%} ({largest / deviation:+.1f} sd)"
        )
    print(f"within three standard deviations: {within} of {total}")


if __name__ == "__main__":
    main()

"""How long the agent's host waits for a heap profile to be encoded, and its readers to read it.

The profile is made up in the agent's shape: 5,000 samples of 30 frames over 6,000 locations, with
birth labels and four values. Prints the best of several runs, in ms of CPU time of one thread.

    python benchmarks/profile_codec.py
"""

import platform
import random
import time
from collections.abc import Callable

from stanch.collect.reading import Reader
from stanch.profile import (
    Function,
    Line,
    Location,
    Profile,
    Sample,
    ValueType,
    call_graph,
    call_tree,
    diff,
    encode,
    merge,
    parse,
)

SAMPLES, DEPTH, SHARED_DEPTH = 5_000, 30, 20
FUNCTIONS, LOCATIONS, ENTRY_PATHS = 3_000, 6_000, 200
RUNS = 15


def heap_profile(seed: int) -> Profile:
    """Make a heap profile: stacks share their outer frames, as requests of one service do."""
    chance = random.Random(seed)
    functions = [
        Function(f"Class{i}.method{i}", f"method{i}", f"/srv/app/package{i % 50}/module{i}.py", i)
        for i in range(FUNCTIONS)
    ]
    locations = [
        Location(0, None, (Line(chance.choice(functions), chance.randrange(2000)),))
        for _ in range(LOCATIONS)
    ]
    paths = [tuple(chance.choices(locations, k=SHARED_DEPTH)) for _ in range(ENTRY_PATHS)]
    samples = tuple(
        Sample(
            tuple(chance.choices(locations, k=DEPTH - SHARED_DEPTH)) + chance.choice(paths),
            (0, 0, chance.randrange(1000), chance.randrange(10**7)),
            (),
            (("birth", chance.randrange(300) * 5, "seconds"),),
        )
        for _ in range(SAMPLES)
    )
    names = ("alloc_objects", "alloc_space", "inuse_objects", "inuse_space")
    types = tuple(ValueType(name, "count" if "objects" in name else "bytes") for name in names)
    return Profile(types, samples, "inuse_space", ValueType("space", "bytes"), 524_288, 1, 2)


def best_ms(action: Callable[[], object]) -> float:
    """Run often, and give the fastest in ms: what is above it is other work of the machine."""
    times = []
    for _ in range(RUNS):
        start = time.thread_time_ns()
        action()
        times.append(time.thread_time_ns() - start)
    return min(times) / 1e6


def main() -> None:
    """Print one line for each operation."""
    profile = heap_profile(1)
    data = encode(profile)
    parsed, reader = parse(data), Reader()
    print(f"{SAMPLES:,} samples x {DEPTH} frames, {LOCATIONS:,} locations, {len(data):,} bytes")
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}")
    for name, action in (
        ("encode", lambda: encode(profile)),
        ("encode, plain", lambda: encode(profile, compress=False)),
        ("parse", lambda: parse(data)),
        ("first look", lambda: Reader().read(data)),
        ("later looks", lambda: reader.read(data)),
        ("merge of two", lambda: merge((profile, parsed))),
        ("diff", lambda: diff(profile, parsed)),
        ("tree and graph", lambda: call_graph(call_tree(profile, (3,)))),
    ):
        print(f"{name:<16}{best_ms(action):8.1f} ms")


if __name__ == "__main__":
    main()

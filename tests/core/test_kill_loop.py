"""SIGKILL at any instant, hundreds of times: the table file has every sample that was committed.

Each victim tells in shared memory which blocks it has allocated, is about to free and has freed. A
block is so large, measured in intervals, that it surely is a sample, and its size and its stack are
its own. More rounds by hand: pytest tests/core/test_kill_loop.py --longer 20
"""

from collections.abc import Iterator

import pytest

from tests.staysup.hosts import Place, a_place

ROUNDS = 150

MOTHER = r"""
import mmap, os, random, signal, sys, threading, time
from pathlib import Path
from stanch import sampler
from stanch.sampler import TableError

THREADS, KEPT, OVERHEAD = 3, 25, 33  # of a bytes object
ALLOCATED, FREEING, FREED = range(3)
directory, rounds = Path(sys.argv[1]), int(sys.argv[2])
chance = random.Random(int(sys.argv[3]))
page = mmap.mmap(-1, mmap.PAGESIZE)
told = memoryview(page).cast("Q")

def size_of(thread, number):
    return 20_000 + number * THREADS + thread

def hold(thread):
    kept = []
    for number in range(1, 10_000):
        space = {"size": size_of(thread, number)}
        exec(f"def hold_{thread}_{number}(depth):\n"
             f"    return hold_{thread}_{number}(depth - 1) if depth else bytes(size)\n", space)
        kept.append(space[f"hold_{thread}_{number}"](number % 7))
        told[3 * thread + ALLOCATED] = number
        if len(kept) > KEPT:
            told[3 * thread + FREEING] = number - KEPT
            del kept[0]
            told[3 * thread + FREED] = number - KEPT

def churn():
    while True:
        grown = bytearray()
        for n in range(100):
            grown += bytes(n * 7)
            [str(n) * 20]

def victim(table):
    sampler.start(interval_bytes=256, table=table, service="victim")
    for work in (churn, *(lambda t=t: hold(t) for t in range(THREADS))):
        threading.Thread(target=work, daemon=True).start()
    signal.pause()

def check(table, last):
    image = sampler.read_table(table)
    assert image.torn == 0 and not image.stopped and image.service == "victim"
    found = {}
    for entry in image.entries:
        frames = image.stacks[entry.stack].frames
        assert all("[damaged" not in function.name for function, _ in frames), frames
        if frames and frames[0][0].name.startswith("hold_"):
            found.setdefault(entry.size_bytes, []).append(frames)
    for thread in range(THREADS):
        allocated, freeing, freed = last[3 * thread : 3 * thread + 3]
        for number in range(1, allocated + 1):
            stacks = found.get(size_of(thread, number) + OVERHEAD, [])
            if number <= freed:
                assert not stacks, ("freed, but there", thread, number, last)
            elif number > freeing:
                assert len(stacks) == 1, ("missing", thread, number, last)
            for frames in stacks:
                own = [(f.name, line) for f, line in frames[: number % 7 + 1]]
                assert own == [(f"hold_{thread}_{number}", 2)] * (number % 7 + 1), own
                assert frames[number % 7 + 1][0].name == "hold", frames
    return sum(last[0:9:3])

committed = young = 0
for number in range(rounds):
    for slot in range(3 * THREADS):
        told[slot] = 0
    table = directory / f"{number}.stanch"
    pid = os.fork()
    if pid == 0:
        try:
            victim(table)
        finally:
            os._exit(99)
    at_the_start = number % 4 == 0
    deadline = time.monotonic() + 120
    while not at_the_start and not all(told[0 : 3 * THREADS : 3]):
        assert time.monotonic() < deadline and os.waitpid(pid, os.WNOHANG) == (0, 0)
        time.sleep(0.0005)
    time.sleep(chance.uniform(0, 0.02))
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    last = list(told[: 3 * THREADS])
    try:
        committed += check(table, last)
    except (FileNotFoundError, TableError):
        assert at_the_start and not any(last), (number, last)
        young += 1
    table.unlink(missing_ok=True)
assert young < rounds / 2
print(f"{rounds} rounds, {committed} blocks, {young} killed before they had a table")
"""


@pytest.fixture
def place() -> Iterator[Place]:
    """Give a place for the victims' tables."""
    with a_place() as made:
        yield made


def test_killed_at_any_instant(place: Place, longer: int) -> None:
    """Each block that the victim had got is there, once, with its stack; each freed one is gone."""
    tables = place.directory / "tables"
    tables.mkdir()
    end = place.bare(MOTHER, tables, ROUNDS * longer, longer)
    assert end.code == 0, end.err[-3000:]
    rounds, _, blocks, *_ = end.out.split()
    assert int(rounds) == ROUNDS * longer and int(blocks) > 20 * int(rounds), end.out

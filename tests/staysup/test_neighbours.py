"""Others who look into the interpreter: debug allocators, tracemalloc, faulthandler, profilers."""

import sys
from pathlib import Path

import pytest

from tests.staysup.hosts import Place

ALLOCATORS = ["pymalloc", "pymalloc_debug", "malloc", "malloc_debug", "debug"]
ALLOCATORS += ["mimalloc", "mimalloc_debug"] if sys.version_info >= (3, 13) else []

WORK = """
def work():
    kept = [bytes(n) for n in range(0, 3000, 3)]
    kept += [[n] * (n % 60) for n in range(3000)]
    text = bytearray()
    for n in range(2000):
        text += bytes(n % 70)
        kept[n % len(kept)] = str(n) * (n % 9)
    more = {n: {str(n): n} for n in range(3000)}
    for n in range(0, 3000, 2):
        del more[n]
    kept.append(memoryview(bytearray(1_000_000)))
    return len(text), sum(map(len, kept)), len(more)
"""


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_each_allocator_of_python(place: Place, allocator: str) -> None:
    """With every PYTHONMALLOC each block is given back to where it came from, or it would abort."""
    end = place.same(
        WORK + "for _ in range(5):\n    print(work())\n",
        options=("--interval", 37),  # of small blocks about one in two is a sample
        PYTHONMALLOC=allocator,
    )
    assert (end.code, end.err) == (0, "")


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_estimates_with_each_allocator(place: Place, allocator: str) -> None:
    """The estimate of live bytes is right with every PYTHONMALLOC, and goes back to nothing."""
    end = place.bare(
        """
        from stanch import sampler
        sampler.start(interval_bytes=2048)
        kept = [bytes(200) for _ in range(10_000)] + [bytes(3000) for _ in range(2000)]
        truth = 10_000 * 233 + 2000 * 3033
        live = sampler.stats().live_bytes
        assert 0.85 * truth < live < 1.2 * truth, (truth, live)
        del kept
        assert sampler.stats().live_bytes < 0.05 * truth, sampler.stats()
        """,
        PYTHONMALLOC=allocator,
    )
    assert (end.code, end.err) == (0, "")


def test_tracemalloc_counts_what_it_always_counts(place: Place) -> None:
    """Started and stopped beside us, above us or below us, it finds the same blocks as alone."""
    end = place.same(
        WORK
        + """
import gc, tracemalloc
gc.disable()
def traced():
    gc.collect()
    tracemalloc.start()
    kept = [bytes(1000) for _ in range(500)]
    own = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, __file__)])
    count = max(each.count for each in own.statistics("lineno"))
    tracemalloc.stop()
    return count
traced()
for _ in range(5):
    print(traced(), work())
""",
    )
    assert (end.code, end.err) == (0, "")


@pytest.mark.parametrize("first", ["tracemalloc", "stanch"])
@pytest.mark.parametrize("stops", ["tracemalloc", "stanch"])
def test_tracemalloc_in_any_order(place: Place, first: str, stops: str) -> None:
    """Whoever comes first and whoever goes first, no block is lost and sampling can start again."""
    end = place.bare(
        WORK
        + f"""
import tracemalloc
from stanch import sampler
def start(name):
    tracemalloc.start() if name == "tracemalloc" else sampler.start(interval_bytes=64)
def stop(name):
    tracemalloc.stop() if name == "tracemalloc" else sampler.stop()
other = {{"tracemalloc": "stanch", "stanch": "tracemalloc"}}
truth = work()
for _ in range(6):
    start({first!r})
    kept = work()
    start(other[{first!r}])
    assert work() == truth
    stop({stops!r})
    assert work() == truth
    stop(other[{stops!r}])
    assert work() == truth
sampler.start(interval_bytes=1024)
kept = [bytes(1000) for _ in range(5000)]
assert 4e6 < sampler.stats().live_bytes < 7e6, sampler.stats()
"""
    )
    assert (end.code, end.err) == (0, "")


@pytest.mark.parametrize("position", ["above", "below"])
def test_hooks_that_put_a_header_before_each_block(
    place: Place, neighbour: Path, position: str
) -> None:
    """Another's hooks see each of their blocks come back, to the domain that it came from."""
    end = place.bare(
        WORK
        + """
import ctypes, sys
from stanch import sampler
library = ctypes.PyDLL(sys.argv[1])
if sys.argv[2] == "below":
    library.install_padded_hooks()
truth = work()
sampler.start(interval_bytes=64)
if sys.argv[2] == "above":
    library.install_padded_hooks()
for _ in range(5):
    before = library.padded_blocks()
    assert work() == truth
    assert abs(library.padded_blocks() - before) < 200
live = sampler.stats().live_bytes
kept = [bytes(1000) for _ in range(5000)]
assert 4e6 < sampler.stats().live_bytes - live < 7e6, sampler.stats()
sampler.stop()
del kept
assert work() == truth and library.padded_mismatches() == 0
""",
        neighbour,
        position,
    )
    assert (end.code, end.err) == (0, "")


def test_hooks_that_are_taken_out_again(place: Place, neighbour: Path) -> None:
    """Another's hooks put in and out above and below ours, in any order, cut nobody's block off."""
    end = place.bare(
        WORK
        + """
import ctypes, sys
from stanch import sampler
library = ctypes.PyDLL(sys.argv[1])
truth = work()
for number in range(12):
    library.install_counting_hooks() if number % 2 else sampler.start(interval_bytes=64)
    kept = work()
    sampler.start(interval_bytes=64) if number % 2 else library.install_counting_hooks()
    before = library.counted_allocations()
    assert work() == kept == truth
    assert library.counted_allocations() > before
    library.remove_counting_hooks() if number // 2 % 2 else sampler.stop()
    assert work() == truth
    sampler.stop() if number // 2 % 2 else library.remove_counting_hooks()
    assert work() == truth
sampler.start(interval_bytes=1024)
kept = [bytes(1000) for _ in range(5000)]
assert 4e6 < sampler.stats().live_bytes < 7e6, sampler.stats()
""",
        neighbour,
    )
    assert (end.code, end.err) == (0, "")


def test_faulthandler(place: Place) -> None:
    """Dumps on demand, from its watchdog thread and at a crash are those of a host without us."""
    program = """
        import ctypes, faulthandler, sys, threading
        faulthandler.enable()
        def inner():
            faulthandler.dump_traceback()
            faulthandler.dump_traceback_later(0.001, repeat=True, file=open("/dev/null", "w"))
            for _ in range(300):
                [str(n) for n in range(300)]
            faulthandler.cancel_dump_traceback_later()
            sys.stderr.flush()
            ctypes.string_at(1)
        inner()
    """
    bare, watched = place.bare(program), place.watched(program, options=("--listen", "off"))
    assert watched.code == bare.code == -11
    frames = [[line for line in each.err.splitlines() if "host.py" in line]
              for each in (bare, watched)]  # fmt: skip
    assert frames[0] == frames[1] and len(frames[0]) >= 4

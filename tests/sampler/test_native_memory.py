"""Native memory: what libraries take from malloc and mmap is named, counted once and forgotten."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stanch.sampler import PRELOAD, read_table, table_profile

from .conftest import RunPython
from .preloaded import SOURCES, RunPreloaded, build
from .searching import PREAMBLE


def test_list_of_structs_is_named_in_c_and_python(run_preloaded: RunPreloaded) -> None:
    """A linked list's stack is its C functions, with their library, and the Python line."""
    run_preloaded(
        """
        start()
        def leak():
            blocks.keep_nodes(200_000)
        leak()
        found = live()
        for name in ("keep_nodes", "leak"):
            near(found[name], 200_000 * 112)
        assert any(n.startswith("make_node") for n in found), found
        top = max(parse(sampler.heap_profile()).samples, key=lambda s: s.values[1])
        leaf = top.locations[0]
        assert leaf.lines[0].function.name.startswith("make_node"), top
        assert leaf.mapping.file == os.environ["BLOCKS"] and len(leaf.mapping.build_id) == 40
        assert leaf.mapping.start <= leaf.address < leaf.mapping.limit
        python = [l for l in top.locations if l.lines[0].function.name == "leak"]
        assert python[0].lines[0].line and python[0].lines[0].function.filename == "<string>"
        near(sampler.stats().live_native_bytes, 200_000 * 112)
        blocks.free_nodes()
        assert sampler.stats().live_native_bytes < 1e6, sampler.stats()
        """
    )


def test_every_way_to_take_memory(run_preloaded: RunPreloaded) -> None:
    """The whole family of malloc, and mmap, is seen at its size, and its free too."""
    run_preloaded(
        """
        start(4096)
        ways = ["malloc", "calloc", "realloc", "reallocarray", "posix_memalign", "aligned_alloc",
                "memalign", "valloc", "pvalloc", "strdup"]
        kept = {way: [] for way in ways}
        for way in ways:
            for _ in range(100):
                kept[way].append(getattr(blocks, "keep_" + way)(100_000))
        mapped = [blocks.keep_mmap(3 << 20) for _ in range(10)]
        found = live()
        for way in ways:
            near(found["keep_" + way], 100 * 100_000)
        near(found["keep_mmap"], 30 << 20)
        for way in ways:
            for block in kept[way]:
                blocks.release(block)
        for block in mapped:
            blocks.unmap(block, 3 << 20)
        assert not any(live()["keep_" + way] for way in [*ways, "mmap"]), live()
        """
    )


def test_resizing_moves_a_block_to_its_new_size(run_preloaded: RunPreloaded) -> None:
    """After realloc and mremap a block counts once, at its new size and place."""
    run_preloaded(
        """
        start(4096)
        kept = [blocks.resize(blocks.keep_malloc(100_000), 300_000) for _ in range(50)]
        near(live()["resize"], 50 * 300_000)
        assert live()["keep_malloc"] < 500_000, live()
        kept = [blocks.resize(block, 50_000) for block in kept]
        near(live()["resize"], 50 * 50_000)
        mapped = [blocks.remap(blocks.keep_mmap(2 << 20), 2 << 20, 6 << 20) for _ in range(5)]
        near(live()["remap"], 30 << 20)
        assert not live()["keep_mmap"], live()
        """
    )


def test_mappings_that_are_no_memory_of_a_library(run_preloaded: RunPreloaded) -> None:
    """Stacks, reservations and shared pages are no samples; refused sizes neither."""
    run_preloaded(
        """
        start(4096)
        blocks.map_other(64 << 20)
        blocks.refuse()
        assert live()["map_other"] == 0 and live()["refuse"] < 500_000, live()
        near(0 if not blocks.keep_malloc(100_000_000) else live()["keep_malloc"], 1e8)
        """
    )


@pytest.mark.parametrize("allocator", ["pymalloc", "malloc", "pymalloc_debug", "mimalloc"])
def test_python_memory_is_counted_once(run_preloaded: RunPreloaded, allocator: str) -> None:
    """Bytes, lists and dicts of known size beside native blocks add up, with every allocator."""
    if allocator == "mimalloc" and sys.version_info < (3, 13):
        pytest.skip("mimalloc came with 3.13")
    run_preloaded(
        """
        start(8192)
        def small():
            return [bytes(167) for _ in range(100_000)]
        def large():
            return [bytes(20_000) for _ in range(1_000)]
        def lists():
            return [[None] * 1_000 for _ in range(2_000)]
        def dicts():
            return [dict.fromkeys(range(100)) for _ in range(3_000)]
        def native():
            return [blocks.keep_malloc(10_000) for _ in range(2_000)]
        before = sampler.stats()
        kept = [make() for make in (small, large, lists, dicts, native)]
        found = live()
        size = sys.getsizeof
        near(found["large"], 1_000 * 20_033)
        near(found["lists"], 2_000 * size([None] * 1_000))
        near(found["dicts"], 3_000 * size(dict.fromkeys(range(100))))
        near(found["native"], 2_000 * 10_000)
        near(found["small"], 100_000 * 200 + size(kept[0]))
        own = sampler.stats().live_native_bytes - before.live_native_bytes
        near(own, 2_000 * 10_000)
        """,
        PYTHONMALLOC=allocator,
    )


def test_python_arenas_are_not_native(run_preloaded: RunPreloaded) -> None:
    """The arenas that pymalloc maps are no native memory: their blocks are sampled already."""
    run_preloaded(
        """
        start(4096)
        kept = [object() for _ in range(2_000_000)]
        assert sampler.stats().live_native_bytes < 1e6, live()
        near(sampler.stats().live_bytes, 2_000_000 * 16 + sys.getsizeof(kept), 0.25)
        """
    )


def test_cpp_new(run_preloaded: RunPreloaded, tmp_path: Path) -> None:
    """`operator new` and what it is called by are named, mangled as the linker has them."""
    rows = build(SOURCES / "blocks.cpp", tmp_path / "librows.so")
    run_preloaded(
        """
        start()
        rows = ctypes.CDLL(sys.argv[1])
        def fill():
            rows.keep_rows(2_000, 1_000)
        fill()
        near(live()["fill"], 2_000 * 8_024)
        assert live()["_Znwm"] > 10e6, live()
        """,
        rows,
    )


def test_numpy_array_is_seen_at_its_line(run_preloaded: RunPreloaded) -> None:
    """A numpy array of 100 MB shows at the Python line that made it, and goes with it."""
    pytest.importorskip("numpy")
    run_preloaded(
        """
        import numpy
        start(512 << 10)
        def make():
            return numpy.ones(100_000_000 // 8), numpy.zeros((1000, 12500)), bytearray(1_000_000)
        kept = make()
        near(live()["make"], 201e6, 0.02)
        del kept
        assert live()["make"] == 0, live()
        """
    )


def test_threads_without_python(run_preloaded: RunPreloaded) -> None:
    """Threads of C alone, and Python's that run C without the GIL, count and corrupt nothing."""
    run_preloaded(
        """
        import threading
        start(2048)
        blocks.keep_in_threads(8, 20_000)
        near(live()["keep_in_thread"], 8 * 20_000 * 112)
        wrong = []
        def work(seed):
            wrong.append(blocks.churn(60_000, seed))
        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        [t.start() for t in threads]
        kept = [bytes(700) for _ in range(50_000)]
        [t.join() for t in threads]
        assert wrong == [0] * 6
        assert live()["churn"] == 0, live()
        """
    )


def test_fork_and_exec(run_preloaded: RunPreloaded) -> None:
    """Forked children sample on beside churning threads; a child of another program is silent."""
    answer = run_preloaded(
        """
        import subprocess, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        start(4096)
        blocks.keep_nodes(50_000)
        threads = [threading.Thread(target=blocks.churn, args=(400_000, i)) for i in range(3)]
        [t.start() for t in threads]
        for _ in range(20):
            pid = os.fork()
            if not pid:
                inherited = sampler.stats().live_native_bytes
                blocks.keep_nodes(50_000)
                grown = sampler.stats().live_native_bytes - inherited
                os._exit(0 if 4e6 < grown < 7e6 else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        [t.join() for t in threads]
        answer = subprocess.run(["sh", "-c", "ls / | sort | head -1; echo $LD_PRELOAD"],
                                capture_output=True, text=True)
        assert answer.stderr == "" and answer.stdout.endswith(os.environ["LD_PRELOAD"] + "\\n")
        """
    )
    assert answer.stderr == ""


def test_start_and_stop_again_and_again(run_preloaded: RunPreloaded) -> None:
    """Native sampling starts and stops with the sampler, and may stay off when it starts anew."""
    run_preloaded(
        """
        kept = []
        for round in range(200):
            start(4096)
            kept.append(blocks.keep_malloc(100_000))
            sampler.stop()
            kept.append(blocks.keep_malloc(100_000))
        start(4096)
        for block in kept:
            blocks.release(block)
        blocks.keep_nodes(20_000)
        near(sampler.stats().live_native_bytes, 20_000 * 112)
        sampler.stop()
        sampler.start(interval_bytes=4096)
        blocks.keep_nodes(20_000)
        assert not sampler.stats().native and sampler.stats().live_native_bytes == 0
        """
    )


def test_interval_changes_for_native_samples_too(run_preloaded: RunPreloaded) -> None:
    """With a longer interval fewer native samples are taken, and the estimates stay right."""
    run_preloaded(
        """
        start(4096)
        samples = []
        for interval in (4096, 65536):
            sampler.set_interval(interval)
            before = sampler.stats().samples
            blocks.keep_nodes(200_000)
            samples.append(sampler.stats().samples - before)
        assert samples[0] > 8 * samples[1] > 0, samples
        near(sampler.stats().live_native_bytes, 400_000 * 112)
        """
    )


def test_beside_tracemalloc(run_preloaded: RunPreloaded) -> None:
    """tracemalloc started below and above, and stopped at any time, leaves the counts right."""
    run_preloaded(
        """
        import tracemalloc
        tracemalloc.start()
        start(4096)
        kept = [bytes(2_000) for _ in range(5_000)]
        tracemalloc.stop()
        tracemalloc.start()
        kept += [bytes(2_000) for _ in range(5_000)]
        sampler.stop()
        tracemalloc.stop()
        del kept
        start(4096)
        kept = [bytes(2_000) for _ in range(5_000)]
        near(sampler.stats().live_bytes - sampler.stats().live_native_bytes, 5_000 * 2_033)
        blocks.keep_nodes(50_000)
        near(sampler.stats().live_native_bytes, 50_000 * 112)
        """
    )


def test_without_the_preload_library(run_python: RunPython) -> None:
    """From code alone native sampling stays off with a sentence, and all else is sampled."""
    run_python(
        """
        from stanch import sampler
        sampler.start(interval_bytes=4096, native=True)
        stats = sampler.stats()
        assert not stats.native and "stanch run --native" in stats.native_error, stats
        kept = [bytes(1000) for _ in range(5_000)]
        assert sampler.stats().live_bytes > 4e6
        """,
        LD_PRELOAD="",
    )


def test_table_of_a_killed_process_names_the_c_function(blocks: Path, tmp_path: Path) -> None:
    """After SIGKILL the table names the C functions and the Python line that called them."""
    table = tmp_path / "killed.stanch"
    program = (
        "import ctypes, os, signal; from stanch import sampler\n"
        f"sampler.start(interval_bytes=4096, native=True, table={str(table)!r})\n"
        f"library = ctypes.CDLL({str(blocks)!r})\n"
        "def leak():\n    library.keep_nodes(50_000)\n"
        "leak()\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "LD_PRELOAD": str(PRELOAD)}, timeout=60
    )
    assert answer.returncode == -9
    profile = table_profile(read_table(table))
    top = max(profile.samples, key=lambda sample: sample.values[3])
    names = [location.lines[0].function.name for location in top.locations]
    assert names[0].startswith("make_node")
    assert names[1] == "keep_nodes"
    assert "leak" in names
    assert not any("_Py" in name for name in names), "the interpreter's own frames are left out"


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="the retention search knows CPython 3.11 to 3.13"
)
def test_what_numpy_takes_is_followed_to_what_keeps_its_array(run_preloaded: RunPreloaded) -> None:
    """An array's data is named at its Python line, and the search leads from it to the root."""
    pytest.importorskip("numpy")
    run_preloaded(
        PREAMBLE
        + textwrap.dedent("""
        import numpy
        start()
        KEPT = []
        def keep():
            for n in range(200): KEPT.append(numpy.zeros(100_000))
        keep()
        near(live()["keep"], 200 * 800_000)
        ways = texts(look("keep"))
        way = "__main__ module global KEPT (list) -> numpy.ndarray -> its own storage"
        assert ways[way] > 150, ways
        nowhere = [each for each in ways if "not reachable" in each or each == OF_C]
        assert not nowhere, ways
        blocks.keep_nodes(20_000)
        def raw():
            blocks.keep_nodes(20_000)
        raw()
        expect(OF_C, "raw")
        """)
    )


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="the retention search knows CPython 3.11 to 3.13"
)
def test_what_a_search_itself_needs_is_no_memory_of_the_host(run_preloaded: RunPreloaded) -> None:
    """Not even while it runs: none of it was ever counted, though it takes tens of megabytes."""
    run_preloaded(
        PREAMBLE
        + textwrap.dedent("""
        start(1 << 20)
        KEPT = []
        def keep():
            for n in range(200): KEPT.append(bytes(100_000))
        keep()
        for _ in range(3):
            expect("__main__ module global KEPT (list) -> bytes", "keep")
        searched = [sample.values[1] for sample in parse(sampler.heap_profile()).samples
                    if any(place.lines[0].function.name == "search" for place in sample.locations)]
        assert sum(searched) < 32e6, searched
        """)
    )

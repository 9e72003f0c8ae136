"""Starting, stopping, forking, threads, and other users of the allocator hooks."""

from pathlib import Path

from .conftest import RunPython


def test_start_and_stop_many_times(run_python: RunPython) -> None:
    """Ten thousand starts and stops leave the allocators as they were and sampling right."""
    run_python(
        """
        from stanch import sampler
        for _ in range(10_000):
            sampler.start(interval_bytes=4096)
            sampler.stop()
        sampler.start(interval_bytes=4096)
        keep = [bytes(1000) for _ in range(10_000)]
        assert 8e6 < sampler.stats().live_bytes < 13e6, sampler.stats()
        del keep
        assert sampler.stats().live_bytes < 2e6, sampler.stats()
        sampler.stop()
        assert not sampler.running() and sampler.stats().samples == 0
        """
    )


def test_wrong_starts_are_refused(run_python: RunPython) -> None:
    """A second start and an impossible interval are one specific error each."""
    run_python(
        """
        from stanch import sampler
        def refused(**options):
            try:
                sampler.start(**options)
            except sampler.SamplerError as error:
                return str(error)
            raise AssertionError(options)
        sampler.start()
        assert "already runs" in refused()
        assert sampler.running()
        sampler.stop()
        for bad in (0, -1, 1 << 32):
            assert str(bad) in refused(interval_bytes=bad)
        """
    )


def test_blocks_from_before_the_start_and_after_the_stop(run_python: RunPython) -> None:
    """Blocks made before, between and after sampling are freed and grown without harm."""
    run_python(
        """
        from stanch import sampler
        before = [[i] * 50 for i in range(20_000)]
        for _ in range(5):
            sampler.start(interval_bytes=1024)
            during = [[i] * 50 for i in range(20_000)]
            for item in before:
                item.extend(range(20))
            sampler.stop()
            for item in during:
                item.extend(range(100))
            assert all(item[:50] == [i] * 50 for i, item in enumerate(during))
            del during
        """
    )


def test_realloc_moves_the_sample(run_python: RunPython) -> None:
    """A buffer grown in many steps is counted once, at its final size."""
    run_python(
        """
        from stanch import sampler
        sampler.start(interval_bytes=1024)
        buffer = bytearray()
        for _ in range(20_000):
            buffer += bytes(500)
        live = sampler.stats().live_bytes
        assert 9e6 < live < 14e6, live
        buffer.clear()
        assert sampler.stats().live_bytes < 1e6
        """
    )


def test_forked_child_has_its_own_table(run_python: RunPython, tmp_path: Path) -> None:
    """A child's frees and samples do not reach its parent's table, and it may get its own file."""
    run_python(
        """
        import os, sys
        from stanch import sampler
        sampler.start(interval_bytes=4096, table=sys.argv[1])
        keep = [bytes(1000) for _ in range(10_000)]
        before = sampler.stats()
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                sampler.after_fork_in_child(sys.argv[1])
                mine = sampler.stats()
                assert abs(mine.live_bytes - before.live_bytes) < 2e5
                assert mine.table_path.endswith(f"{os.getpid()}.stanch"), mine
                keep.clear()
                assert sampler.stats().live_bytes < 1e6
                more = [bytes(1000) for _ in range(20_000)]
                image = sampler.read_table(mine.table_path)
                assert image.pid == os.getpid()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        after = sampler.stats()
        assert abs(after.live_bytes - before.live_bytes) < 1e6
        assert after.samples - before.samples < 100
        """,
        tmp_path,
    )


def test_threads_sample_with_and_without_the_gil(run_python: RunPython) -> None:
    """Threads born and dying under load, with GIL-less allocations, lose and invent nothing."""
    run_python(
        """
        import hashlib, threading, zlib
        from stanch import sampler
        sampler.start(interval_bytes=2048)
        kept = [[] for _ in range(8)]
        def work(mine):
            for i in range(100):
                mine.append(zlib.compress(bytes(50_000)) + bytes(2_000))
                hashlib.sha256(bytes(10_000)).digest()
        for _ in range(3):
            threads = [threading.Thread(target=work, args=(mine,)) for mine in kept]
            [t.start() for t in threads]
            [t.join() for t in threads]
        truth = sum(len(b) + 33 for mine in kept for b in mine)
        live = sampler.stats().live_bytes
        assert 0.85 * truth < live < 1.3 * truth, (truth, live)
        for mine in kept:
            mine.clear()
        assert sampler.stats().live_bytes < 0.1 * truth, sampler.stats()
        """
    )


def test_beside_tracemalloc(run_python: RunPython) -> None:
    """Another profiler's hooks above ours, and ours stopped below them, disturb neither."""
    run_python(
        """
        import tracemalloc
        from stanch import sampler
        sampler.start(interval_bytes=1024)
        tracemalloc.start()
        keep = [bytes(1000) for _ in range(5_000)]
        sampler.stop()
        more = [bytes(1000) for _ in range(5_000)]
        tracemalloc.stop()
        sampler.start(interval_bytes=1024)
        again = [bytes(1000) for _ in range(5_000)]
        assert 4e6 < sampler.stats().live_bytes < 7e6, sampler.stats()
        sampler.stop()
        tracemalloc.start()
        sampler.start(interval_bytes=1024)
        tracemalloc.stop()
        sampler.stop()
        sampler.start(interval_bytes=1024)
        once_more = [bytes(1000) for _ in range(5_000)]
        assert 4e6 < sampler.stats().live_bytes < 7e6, sampler.stats()
        """
    )


def test_code_that_comes_and_goes(run_python: RunPython) -> None:
    """Functions compiled and dropped in turn at the same address are each named rightly."""
    run_python(
        """
        from stanch import sampler
        from stanch.profile import parse
        sampler.start(interval_bytes=256)
        kept = {}
        for i in range(300):
            space = {}
            exec(f"def made_{i:03}():\\n    return [bytes(1000) for _ in range(20)]", space)
            kept[f"made_{i:03}"] = space[f"made_{i:03}"]()
            del space
        found = {}
        for sample in parse(sampler.heap_profile()).samples:
            for location in sample.locations:
                name = location.lines[0].function.name
                if name in kept:
                    found[name] = found.get(name, 0) + sample.values[3]
        assert set(found) == set(kept), len(found)
        assert all(15_000 < live < 32_000 for live in found.values()), sorted(found.values())
        """
    )


def test_deep_recursion(run_python: RunPython) -> None:
    """A stack deeper than the table keeps is cut at its outer end."""
    run_python(
        """
        import sys
        from stanch import sampler
        sys.setrecursionlimit(50_000)
        sampler.start(interval_bytes=1024)
        kept = []
        def down(n):
            kept.append(bytes(100))
            if n:
                down(n - 1)
        down(20_000)
        depths = {len(stack.frames) for stack in sampler.snapshot().stacks}
        assert max(depths) == 128, max(depths)
        """
    )


def test_exit_with_hooks_in_place(run_python: RunPython, tmp_path: Path) -> None:
    """A process that just ends, with threads and generators alive, ends well and leaves no file."""
    answer = run_python(
        """
        import sys, threading
        from stanch import sampler
        sampler.start(interval_bytes=512, table=sys.argv[1])
        def churn():
            while True:
                bytes(3000)
        threading.Thread(target=churn, daemon=True).start()
        def endless():
            while True:
                yield bytes(1000)
        generator = endless()
        keep = [next(generator) for _ in range(1000)]
        print("done")
        """,
        tmp_path,
    )
    assert (answer.stdout, answer.stderr) == ("done\n", "")
    assert list(tmp_path.iterdir()) == []


def test_host_that_closes_all_descriptors(run_python: RunPython, tmp_path: Path) -> None:
    """A host that closes every descriptor and opens files of its own finds them untouched."""
    run_python(
        """
        import os, sys
        from stanch import sampler
        sampler.start(interval_bytes=64, table=sys.argv[1] + "/t.stanch")
        os.closerange(3, 100)
        mine = [open(f"{sys.argv[1]}/host-{i}", "wb") for i in range(20)]
        keep = [bytes(1000) for _ in range(20_000)]
        assert sampler.stats().dropped["no_space"] > 0, sampler.stats()
        sampler.stop()
        assert [os.fstat(file.fileno()).st_size for file in mine] == [0] * 20
        """,
        tmp_path,
    )

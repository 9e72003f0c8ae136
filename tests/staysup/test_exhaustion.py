"""Hosts that run out of something: memory, disk, descriptors, threads, time.

See tests/sampler/test_tablefile.py for a disk that fills up under the table.
"""

import os
from pathlib import Path

import pytest

from tests.staysup.hosts import SANITIZED, Place

LIMITED = pytest.mark.skipif(SANITIZED, reason="the address sanitizer needs terabytes of addresses")


@LIMITED
@pytest.mark.parametrize("interval", [64, 1 << 32 - 1])
def test_requests_that_no_machine_can_serve(place: Place, interval: int) -> None:
    """A request of exabytes is a MemoryError at once, and sampling goes on after it."""
    end = place.same(
        """
        import array, os, sys
        failed = 0
        for size in (sys.maxsize, sys.maxsize - 100, 1 << 62, 1 << 60, 1 << 50):
            for ask in (bytes, bytearray, lambda n: [0] * (n // 8), lambda n: "x" * n,
                        lambda n: array.array("b", bytes(8)) * (n // 8)):
                try:
                    ask(size)
                except (MemoryError, OverflowError):
                    failed += 1
        grown = bytearray(100)
        for size in (1 << 62, 1 << 50):
            try:
                grown *= size // 100
            except MemoryError:
                failed += 1
        print(failed, len(grown))
        if "STANCH_RUN_DIR" in os.environ:
            import stanch
            before = stanch.stats().samples
            kept = [bytes(n) for n in range(3000)]
            assert stanch.stats().interval_bytes > 64 or stanch.stats().samples > before + 1000
        """,
        options=("--interval", interval),
    )
    assert end.out == "27 100\n"
    assert (end.code, end.err) == (0, "")


@LIMITED
def test_address_space_runs_out(place: Place) -> None:
    """Under RLIMIT_AS the host gets its MemoryErrors where it always does, and comes through."""
    program = """
        import os, resource, sys, threading
        with open("/proc/self/statm") as status:
            held = int(status.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (held + (48 << 20), resource.RLIM_INFINITY))
        failures = 0
        for size in (100, 700, 5000, 100_000, 3_000_000):
            kept = []
            try:
                while True:
                    kept.append(bytearray(size))
            except MemoryError:
                failures += 1
                del kept
        try:
            threads = []
            while True:
                threads.append(threading.Thread(target=threading.Event().wait, daemon=True))
                threads[-1].start()
        except RuntimeError:
            failures += 1
        pid = os.fork()
        if pid == 0:
            kept = []
            try:
                while True:
                    kept.append(bytearray(5000))
            except MemoryError:
                del kept
                os._exit(failures)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), failures, flush=True)
        os._exit(9)
    """
    end = place.watched(program, options=("--interval", 4096))
    assert (end.code, end.out) == (9, "6 6\n"), end.err


@LIMITED
def test_a_start_without_room_for_the_table(place: Place) -> None:
    """Where the table does not fit, `start` says so in one error, and the host runs on."""
    end = place.bare(
        """
        import os, resource
        import stanch, stanch.agent.control
        with open("/proc/self/statm") as status:
            held = int(status.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (held + (4 << 20), resource.RLIM_INFINITY))
        for _ in range(3):
            try:
                stanch.start()
            except stanch.sampler.SamplerError as error:
                print(error)
        assert not stanch.stats().running
        stanch.stop()
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        stanch.start()
        assert stanch.stats().running
        """
    )
    assert (end.code, end.err) == (0, "")
    assert end.out == "no memory for the live table: Cannot allocate memory\n" * 3


@pytest.mark.parametrize("when", ["before", "after"])
def test_file_size_limit(place: Place, when: str) -> None:
    """RLIMIT_FSIZE sends its signal for no file of ours, also to a host that does not ignore it."""
    end = place.bare(
        """
        import resource, signal, sys
        from stanch import sampler
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, resource.RLIM_INFINITY))
        if sys.argv[1] == "before":
            limit()
        sampler.start(interval_bytes=64, table=sys.argv[2])
        limit()
        kept = [bytes(1000) for _ in range(20_000)]
        stats = sampler.stats()
        if sys.argv[1] == "before":
            assert "File too large" in stats.table_error and stats.live_bytes > 1.5e7, stats
        else:
            assert stats.table_path and stats.live_samples > 1000, stats
        sampler.stop()
        print("through")
        """,
        when,
        place.directory / "t.stanch",
    )
    assert (end.code, end.out, end.err) == (0, "through\n", "")


@LIMITED
def test_no_more_threads(place: Place) -> None:
    """A host whose process can have no thread more gets no error from the agent's own."""
    end = place.bare(
        """
        import os, resource, sys, threading
        import stanch, stanch.agent.endpoint, stanch.agent.push
        with open("/proc/self/statm") as status:
            held = int(status.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        threading.stack_size(256 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (held + (128 << 20), resource.RLIM_INFINITY))
        stanch.start(listen="127.0.0.1:0", push="http://127.0.0.1:9/none")
        assert stanch.stats().running
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        print(os.waitpid(pid, 0)[1])
        stanch.stop()
        """
    )
    assert (end.code, end.out) == (0, "0\n"), end.err
    said = end.err.splitlines()
    assert said[0].startswith("stanch: no endpoint: this process can have no more threads")
    assert len(said) == 2 and "stays off in the forked process" in said[1], said


def test_no_more_descriptors(place: Place) -> None:
    """A host that may open no file runs without table and endpoint, and is told so."""
    end = place.bare(
        """
        import resource
        import stanch, stanch.agent.control, stanch.agent.endpoint
        "host".encode("idna")  # getaddrinfo imports it
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 100))
        stanch.start(listen="127.0.0.1:0", table="t.stanch", interval=64)
        kept = [bytes(1000) for _ in range(1000)]
        assert stanch.stats().live_bytes > 5e5
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        stanch.stop()
        """
    )
    assert end.code == 0, end.err
    assert all(line.startswith("stanch: no ") for line in end.err.splitlines()), end.err
    assert "table file" in end.err and "endpoint" in end.err


def test_a_table_cannot_be_shortened_by_mistake(place: Place) -> None:
    """Another process of the same user cannot open the file to write or shorten it.

    Root can, and a store into what is missing then ends the host: docs/settings.md says so.
    """
    place.directory.chmod(0o755)
    table = place.directory / "open" / "t.stanch"
    table.parent.mkdir()
    if os.geteuid() == 0:
        os.chown(table.parent, 65534, 65534)
    end = place.bare(
        """
        import os, sys
        from stanch import sampler
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        sampler.start(interval_bytes=64, table=sys.argv[1])
        assert sampler.stats().table_path, sampler.stats()
        for attempt in (lambda: os.truncate(sys.argv[1], 0), lambda: open(sys.argv[1], "wb")):
            try:
                attempt()
            except PermissionError:
                print("refused")
        kept = [bytes(1000) for _ in range(1000)]
        assert len(sampler.read_table(sys.argv[1]).entries) > 500
        """,
        table,
    )
    assert (end.code, end.out, end.err) == (0, "refused\n" * 2, "")


def test_timers_faster_than_the_disk(place: Place, tmp_path: Path) -> None:
    """Signals that interrupt each request for disk space neither hang the host nor fail it."""
    end = place.bare(
        """
        import signal, sys
        from stanch import sampler
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.00002, 0.00002)
        for number in range(10):
            sampler.start(interval_bytes=64, table=f"{sys.argv[1]}/{number}.stanch")
            kept = [bytes(1000) for _ in range(5_000)]
            sampler.stop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        print("through")
        """,
        tmp_path,
    )
    assert (end.code, end.out, end.err) == (0, "through\n", "")

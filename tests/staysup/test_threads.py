"""Threads: born and dying during samples, with small stacks, and unknown to Python."""

from pathlib import Path

from tests.staysup.hosts import Place


def test_threads_born_and_dying_during_samples(place: Place) -> None:
    """Hundreds of short threads that allocate with and without the GIL give the right sums."""
    end = place.same(
        """
        import threading, zlib
        answers = []
        def work(number):
            kept = [str(n) * (number % 7 + 1) for n in range(300)]
            packed = zlib.compress("".join(kept).encode() * 20)
            local = threading.local()
            local.value = [bytes(600) for _ in range(10)]
            answers.append((number, len(zlib.decompress(packed))))
        for round in range(20):
            threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        print(len(answers), sum(size for _, size in answers))
        """
    )
    assert (end.code, end.err) == (0, "")


def test_threads_with_the_smallest_stacks(place: Place) -> None:
    """A sample fits into what a thread of 32 KiB of stack has left."""
    end = place.same(
        """
        import threading
        threading.stack_size(32768)
        answers = []
        def down(n):
            kept = [bytes(100), str(n)]
            return down(n - 1) + len(kept) if n else 0
        threads = [threading.Thread(target=lambda: answers.append(down(200))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(answers)
        """
    )
    assert (end.code, end.err) == (0, "")


def test_threads_that_python_does_not_know(place: Place, neighbour: Path) -> None:
    """Threads of a C library that allocate from the RAW domain find their memory unharmed."""
    end = place.same(
        """
        import ctypes, sys
        library = ctypes.CDLL(sys.argv[1])
        library.allocate_in_threads.argtypes = [ctypes.c_long, ctypes.c_long]
        for _ in range(10):
            print(library.allocate_in_threads(6, 5000))
        """,
        neighbour,
    )
    assert end.out == "0\n" * 10
    assert (end.code, end.err) == (0, "")


def test_threads_while_sampling_starts_and_stops(place: Place) -> None:
    """A thousand starts and stops beside allocating threads lose no block."""
    end = place.bare(
        """
        import threading, zlib
        from stanch import sampler
        stop = threading.Event()
        failed = []
        def churn():
            kept = []
            while not stop.is_set():
                kept.append(zlib.compress(bytes(range(256)) * 20))
                if len(kept) > 200:
                    if any(zlib.decompress(each) != bytes(range(256)) * 20 for each in kept[::40]):
                        failed.append(len(kept))
                    del kept[:150]
        threads = [threading.Thread(target=churn) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(1_000):
            sampler.start(interval_bytes=64 + number)
            sampler.stop()
        stop.set()
        for thread in threads:
            thread.join()
        assert not failed
        """
    )
    assert (end.code, end.err) == (0, "")


def test_signals_go_to_the_hosts_threads(place: Place) -> None:
    """A host that blocks a signal and waits for it gets it, whatever threads the agent has."""
    end = place.same(
        """
        import os, signal, time
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
        taken = []
        def send(number):
            pid = os.fork()
            if pid == 0:
                parent = os.getppid()
                for _ in range(20):
                    os.kill(parent, number)
                    time.sleep(0.005)
                os._exit(0)
            return pid
        for number in (signal.SIGTERM, signal.SIGUSR1):
            pid = send(number)
            taken.append(signal.sigwait({number}).name)
            os.waitpid(pid, 0)
            while signal.sigtimedwait({number}, 0) is not None:
                pass
        print(taken)
        """,
        options=("--push", "http://127.0.0.1:9/none", "--push-every", "300"),
    )
    assert end.out == "['SIGTERM', 'SIGUSR1']\n" and end.code == 0

"""Forks of every kind, and ends without finalisation. See tests/agent/test_fork.py for the agent's
own part: tables, sockets and warnings of forked hosts."""

import json
from pathlib import Path

import pytest

from stanch.agent import rundir
from stanch.sampler import read_table
from tests.staysup.hosts import Place

LOAD = """
import ctypes, os, sys
library = ctypes.PyDLL(sys.argv[1])

def work(rounds=2000):
    kept = [bytes(n % 700) + str(n).encode() for n in range(rounds)]
    return sum(map(len, kept))
"""


def test_bare_forks_under_load(place: Place) -> None:
    """Children that work, free what they inherited and end by os._exit disturb no one."""
    end = place.same(
        """
        import os
        kept = [bytes(n % 2000) for n in range(5000)]
        for round in range(10):
            pid = os.fork()
            if pid == 0:
                kept.clear()
                more = [str(n) * 10 for n in range(5000)]
                os._exit(round)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            print(code, sum(map(len, kept)))
        """
    )
    assert end.code == 0 and end.err == "" and len(end.out.splitlines()) == 10


def test_fork_late_with_threads_as_uwsgi_does(place: Place, neighbour: Path) -> None:
    """A fork in C that tells Python in the child only, beside busy threads, harms nobody.

    The child goes on for long, gets its own table, forks itself and ends in good order.
    """
    end = place.same(
        LOAD
        + """
import threading
stop = threading.Event()
def churn():
    while not stop.is_set():
        work(200)
threads = [threading.Thread(target=churn) for _ in range(3)]
for thread in threads:
    thread.start()
codes = []
for _ in range(8):
    pid = library.fork_late()
    if pid == 0:
        work(20_000)
        if os.fork() == 0:
            os._exit(work() % 7)
        code = os.waitstatus_to_exitcode(os.wait()[1])
        os._exit(code + 10)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
print(codes)
""",
        neighbour,
    )
    assert end.code == 0 and len(set(json.loads(end.out))) == 1
    # A grandchild may end while its table is being made; nothing looks like a death.
    assert not rundir.dead_tables([path for path in place.left() if path.suffix == ".stanch"])


def test_forks_that_python_does_not_see(place: Place, neighbour: Path) -> None:
    """Children of a C library that allocate and exit, and of vfork, leave the table whole."""
    end = place.same(
        LOAD
        + """
kept = [bytes(n % 2000) for n in range(5000)]
print([library.fork_and_allocate() for _ in range(10)])
print([library.vfork_and_exec() for _ in range(10)])
print(os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1]))
print(sum(map(len, kept)))
if "STANCH_RUN_DIR" in os.environ:
    import stanch
    image = stanch.sampler.snapshot()
    assert image.torn == 0 and image.pid == os.getpid(), image.pid
""",
        neighbour,
    )
    assert end.code == 0 and end.err == "", end.err


def test_fork_within_a_fork_handler(place: Place) -> None:
    """A signal handler that forks while os.fork is under way does not wait for itself.

    Now and then such a child never ends, without Stanch too: that one is killed. And CPython 3.12
    may forget for good that a signal has come, until another one does.
    """
    place.same(
        """
        import os, signal, time, warnings
        warnings.simplefilter("ignore")
        forked = []
        def reap(pid):
            until = time.monotonic() + 1.0
            while os.waitpid(pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > until:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    return
        def fork_again(number, frame):
            signal.setitimer(signal.ITIMER_REAL, 0)
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            reap(pid)
            forked.append(pid)
        signal.signal(signal.SIGALRM, fork_again)
        for number in range(60):
            signal.setitimer(signal.ITIMER_REAL, 0.00005 * (number % 20) + 1e-6)
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            reap(pid)
            until = time.monotonic() + 1.0
            while len(forked) == number:
                if time.monotonic() > until:
                    signal.raise_signal(signal.SIGALRM)
        print(len(forked))
        """
    )


@pytest.mark.parametrize("end", ["os._exit(3)", "sys.exit(3)", "raise SystemExit(3)"])
def test_a_chosen_end_is_not_a_death(place: Place, end: str) -> None:
    """A process, or a forked child with a table of its own, that ends itself leaves no evidence."""
    program = f"""
        import os, sys
        directory = os.environ.get("STANCH_RUN_DIR")
        def has_table():
            try:
                with open(f"{{directory}}/{{os.getpid()}}.stanch", "rb") as table:
                    return table.read(7) == b"STANCHT"  # which is written last
            except FileNotFoundError:
                return False
        pid = os.fork()
        if pid == 0:
            while directory and not has_table():
                bytes(1000)
            {end}
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        {end}
    """
    assert place.same(program).code == 3
    left = [path for path in place.left() if path.suffix == ".stanch"]
    assert all(read_table(path).stopped for path in left)
    assert bool(left) == (end == "os._exit(3)")
    place.watched("pass")
    assert place.left() == []


def test_os_exit_is_the_hosts(place: Place) -> None:
    """os._exit keeps its name and its errors, one that the host has replaced stays the host's."""
    place.same(
        """
        import os, posix
        print(os._exit.__name__, type(os._exit).__name__)
        for wrong in ((), ("x",), (1 << 40,)):
            try:
                os._exit(*wrong)
            except (TypeError, OverflowError) as error:
                print(type(error).__name__)
        os._exit(status=5)
        """
    )
    end = place.bare(
        """
        import os, posix, stanch
        stanch.start()
        assert os._exit is not posix._exit
        stanch.stop()
        assert os._exit is posix._exit
        def mine(status):
            posix._exit(status + 1)
        os._exit = mine
        stanch.start()
        stanch.stop()
        os._exit(1)
        """
    )
    assert end.code == 2, end.err

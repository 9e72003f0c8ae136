"""Forks: each process gets its own table and socket, and the host notices nothing."""

import socket
import sys
from collections.abc import Iterator

import pytest

from tests.agent.hosts import LONGEST_S, Runs, functions, heap, runs_directory, wait_for

MULTIPROCESSING = """
    import multiprocessing, sys

    def hold_in_child(ready, go):
        kept = [bytes(2000) for _ in range(5000)]
        ready.release()
        go.acquire()

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        ready, go = context.Semaphore(0), context.Semaphore(0)
        children = [context.Process(target=hold_in_child, args=(ready, go)) for _ in range(2)]
        for child in children:
            child.start()
        for child in children:
            ready.acquire()
        print("ready", *[child.pid for child in children], flush=True)
        sys.stdin.read()
        for child in children:
            go.release()
        for child in children:
            child.join()
        print([child.exitcode for child in children])
"""


@pytest.fixture
def runs() -> Iterator[Runs]:
    with runs_directory() as made:
        yield made


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(runs: Runs, method: str) -> None:
    """Children of every start method have a table and a socket, and remove both at their end."""
    host = runs.script("host.py", MULTIPROCESSING)
    with runs.running("--", sys.executable, "-W", "always", host, method) as process:
        wait_for(lambda: "ready" in runs.output(), runs)
        children = set(runs.output().split()[1:])
        assert len(children) == 2
        wait_for(lambda: children <= {path.stem for path in runs.sockets()}, runs)
        assert children <= {path.stem for path in runs.tables()}
        for path in runs.sockets():
            if path.stem in children:
                assert "hold_in_child" in functions(heap(path))
        own = next(path for path in runs.sockets() if path.stem == str(process.pid))
        assert "hold_in_child" not in functions(heap(own))
        process.communicate("", timeout=LONGEST_S)
        # The fork server and the resource tracker end a little after their owner.
        wait_for(lambda: not runs.left(), runs)
    assert process.returncode == 0
    assert runs.output().splitlines()[1:] == ["[0, 0]"]


def test_pool(runs: Runs) -> None:
    """A pool of processes works as ever and leaves nothing behind."""
    host = runs.script(
        "host.py",
        """
        import multiprocessing
        if __name__ == "__main__":
            with multiprocessing.Pool(2) as pool:
                print(pool.map(abs, range(-50, 50)) == [abs(n) for n in range(-50, 50)])
                pool.close()
                pool.join()
        """,
    )
    answer = runs.stanch("run", "--", sys.executable, host)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "True\n", "")
    assert runs.left() == []


def test_fork_warns_no_host(runs: Runs) -> None:
    """A host without threads that forks sees no warning, and its endpoint goes on answering."""
    host = runs.script(
        "host.py",
        """
        import os, sys, threading
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        print("ready", flush=True)
        sys.stdin.read()
        """,
    )
    with runs.running("--", sys.executable, "-W", "always", host) as process:
        wait_for(lambda: "ready" in runs.output(), runs)
        assert heap(runs.sockets()[0]).sample_types
        process.communicate("", timeout=LONGEST_S)
    assert process.returncode == 0
    assert runs.output() == "ready\n"
    assert runs.left() == []


def test_hosts_own_warning_stays(runs: Runs) -> None:
    """Where CPython warns about a host with threads of its own, it still does, at the same line."""
    host = runs.script(
        "host.py",
        """
        import os, threading
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        """,
    )
    command = (sys.executable, "-W", "always", host)
    bare, watched = runs.finish(*command), runs.stanch("run", "--", *command)
    assert bare.stderr.split(")")[1:] == watched.stderr.split(")")[1:]
    assert bool(bare.stderr) == (sys.version_info >= (3, 12))
    assert bare.returncode == watched.returncode == 0


def test_fork_and_exec_leaves_no_trace(runs: Runs) -> None:
    """A child that execs another program at once makes no table, which would look like a death."""
    host = runs.script(
        "host.py",
        """
        import os, subprocess
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                os.execvp("true", ["true"])
            os.waitpid(pid, 0)
        subprocess.run(["true"], preexec_fn=lambda: None, check=True)
        print(sorted(os.listdir(os.environ["STANCH_RUN_DIR"])) ==
              [f"{os.getpid()}.sock", f"{os.getpid()}.stanch", "first"])
        """,
    )
    answer = runs.stanch("run", "--", sys.executable, host)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "True\n", "")
    assert runs.left() == []


def test_a_child_keeps_no_client_waiting(runs: Runs) -> None:
    """A client that is served while the host forks sees the end of its answer, not the child's."""
    host = runs.script(
        "host.py",
        """
        import os, sys, time
        print("ready", flush=True)
        sys.stdin.readline()
        if os.fork() == 0:
            print("forked", flush=True)
            time.sleep(1000)
        sys.stdin.read()
        """,
    )
    with runs.running("--", sys.executable, host) as process, socket.socket(socket.AF_UNIX) as own:
        wait_for(lambda: "ready" in runs.output() and runs.sockets(), runs)
        own.settimeout(LONGEST_S)
        own.connect(str(runs.sockets()[0]))
        own.sendall(b"GET /healthz HTTP/1.0\r\n")
        assert process.stdin is not None
        process.stdin.write("fork\n")
        process.stdin.flush()
        wait_for(lambda: "forked" in runs.output(), runs)
        own.sendall(b"Host: localhost\r\n\r\n")
        answer = b""
        while chunk := own.recv(65536):
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 "), answer


def test_forks_from_many_threads(runs: Runs) -> None:
    """Threads that fork at once neither hang nor leave the endpoint paused."""
    host = runs.script(
        "host.py",
        """
        import os, sys, threading, warnings
        warnings.simplefilter("ignore")
        def fork_often():
            for _ in range(10):
                pid = os.fork()
                if pid == 0:
                    os._exit(0)
                os.waitpid(pid, 0)
        threads = [threading.Thread(target=fork_often) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print("ready", flush=True)
        sys.stdin.read()
        """,
    )
    with runs.running("--", sys.executable, host) as process:
        wait_for(lambda: "ready" in runs.output(), runs)
        assert heap(runs.sockets()[0]).sample_types
        process.communicate("", timeout=LONGEST_S)
    assert process.returncode == 0
    assert runs.output() == "ready\n"


def test_grandchildren(runs: Runs) -> None:
    """A forked child that forks again at once, and ends by sys.exit, leaves nothing."""
    host = runs.script(
        "host.py",
        """
        import os, sys
        def nest(depth):
            if depth == 0:
                return
            pid = os.fork()
            if pid == 0:
                nest(depth - 1)
                sys.exit(depth)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == depth
        nest(3)
        print("done")
        """,
    )
    answer = runs.stanch("run", "--", sys.executable, host)
    assert answer.stdout.endswith("done\n")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert runs.left() == []

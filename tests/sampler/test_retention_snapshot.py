"""The snapshot of the retention search: the host never notices it, whatever happens."""

import sys

import pytest

from .conftest import RunPython
from .searching import program

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="the retention search knows CPython 3.11 to 3.13"
)


def test_the_host_sees_no_child(run_python: RunPython) -> None:
    """No SIGCHLD, nothing for waitpid, no at-fork or at-exit code, no descriptor, no zombie."""
    answer = run_python(
        program(
            """
            import atexit, signal
            sampler.start(interval_bytes=512)
            EVENTS = []
            signal.signal(signal.SIGCHLD, lambda *_: EVENTS.append("SIGCHLD"))
            os.register_at_fork(before=lambda: EVENTS.append("before fork"),
                                after_in_child=lambda: EVENTS.append("in child"))
            atexit.register(lambda: os.write(1, b"at exit\\n"))
            KEPT = []
            def keep():
                for n in range(200): KEPT.append([bytes(300)])
            keep()
            ends = []
            def wait_for_children():
                try:
                    ends.append(os.waitpid(-1, 0))
                except ChildProcessError as error:
                    ends.append(error.errno)
            descriptors = os.listdir("/proc/self/fd")
            for _ in range(20):
                waiter = threading.Thread(target=wait_for_children)
                search = threading.Thread(target=look, args=("keep",))
                search.start(); waiter.start(); search.join(); waiter.join()
            import errno
            assert ends == [errno.ECHILD] * 20, ends
            assert EVENTS == [], EVENTS
            assert os.listdir("/proc/self/fd") == descriptors
            def children(task):
                try:
                    return open(f"/proc/self/task/{task}/children").read()
                except OSError:
                    return ""  # a thread that was joined, and has ended since it was listed
            found = [children(task) for task in os.listdir("/proc/self/task")]
            assert "".join(found) == "", found
            """
        )
    )
    assert answer.stdout == "at exit\n"


def test_many_searches_under_load(run_python: RunPython) -> None:
    """Searches while threads work change no result, leave no memory and no process behind."""
    run_python(
        program(
            """
            import hashlib, resource
            sampler.start(interval_bytes=4096)
            KEPT = {}
            def keep():
                for n in range(20_000): KEPT[n] = [bytes(100)]
            keep()
            stop = threading.Event()
            def work(results):
                while not stop.is_set():
                    tree = {n: [str(n), {"square": n * n}] for n in range(300)}
                    results.add(hashlib.sha256(repr(tree).encode()).hexdigest())
            results = [set() for _ in range(3)]  # small, however long it takes
            threads = [threading.Thread(target=work, args=(each,)) for each in results]
            for thread in threads: thread.start()
            def resident():
                with open("/proc/self/statm") as file:
                    return int(file.read().split()[1]) * resource.getpagesize()
            sys.setswitchinterval(0.0005)
            for _ in range(5): look("keep")
            before = resident()
            for _ in range(20):
                found = look("keep")
                assert any(each.how for each in found.found)
            after = resident()
            stop.set()
            for thread in threads: thread.join()
            assert len(set.union(*results)) == 1, results
            assert after - before < 8 << 20, (before, after)
            """
        )
    )


def test_a_crash_or_a_stall_in_the_snapshot_stays_there(run_python: RunPython) -> None:
    """A tp_traverse that crashes or never returns ends the snapshot, not the host."""
    run_python(
        program(
            """
            import ctypes
            sampler.start(interval_bytes=512)
            class Broken(list): pass
            KEPT = [Broken([bytes(300)]) for _ in range(10)]
            def keep():
                return [bytes(300) for _ in range(100)]
            HELD = keep()
            words, at = ctypes.cast(id(Broken), ctypes.POINTER(ctypes.c_void_p)), 23
            saved = words[at]
            traverse = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
                                        ctypes.c_void_p)
            gc.disable()
            libc = ctypes.CDLL(None)
            for function, sentence in (("abort", "signal 6"), ("pause", "within its time")):
                words[at] = ctypes.cast(getattr(libc, function), ctypes.c_void_p).value
                try:
                    # A type that nothing matches: the walk goes through all there is.
                    retention.search(range(10_000), seconds=0.3)
                    raise AssertionError(function)
                except sampler.SearchError as error:
                    assert sentence in str(error), error
            words[at] = saved
            assert look("keep").found
            """
        )
    )


def test_where_no_process_can_be_made(run_python: RunPython) -> None:
    """Without processes or descriptors left a sentence says why, and in the process it works."""
    run_python(
        program(
            """
            import resource
            sampler.start(interval_bytes=512)
            KEPT = []
            def keep():
                for n in range(100): KEPT.append(bytes(300))
            keep()
            def refusal():
                try:
                    look("keep")
                except sampler.SearchError as error:
                    return str(error)
                raise AssertionError
            found = texts(look("keep", in_process=True))
            assert found["__main__ module global KEPT (list) -> bytes"], found
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            assert "descriptor" in refusal()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            if os.getuid() == 0:
                os.setgid(65534); os.setuid(65534)
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
            assert "RLIMIT_NPROC" in refusal()
            assert texts(look("keep", in_process=True)) == found
            """
        )
    )


def test_limits_of_time_and_memory(run_python: RunPython) -> None:
    """A search that reaches a limit says so, and does not call unreachable what it has not seen."""
    run_python(
        program(
            """
            sampler.start(interval_bytes=20_000)
            def keep():
                return [[bytes(100)] for _ in range(200_000)]
            KEPT = keep()
            for in_process in (False, True):
                found = look("keep", seconds=0.001, in_process=in_process)
                assert found.limits & retention.Limit.TIME, found.limits
                assert not any("not reachable" in way for way in texts(found))
            """
        )
    )


def test_searches_during_import_collection_fork_and_exit(run_python: RunPython) -> None:
    """While modules are imported, the collector runs and the host forks, searches go on."""
    answer = run_python(
        program(
            """
            import importlib, warnings
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
            sampler.start(interval_bytes=2048)
            KEPT = []
            def keep():
                for n in range(1000): KEPT.append([bytes(300)])
            keep()
            gc.callbacks.append(lambda *_: look("keep"))
            stop = threading.Event()
            def search():
                while not stop.is_set(): look("keep")
            searcher = threading.Thread(target=search)
            searcher.start()
            for name in ("json", "email.message", "http.client", "decimal", "sqlite3", "ast"):
                importlib.reload(importlib.import_module(name))
            gc.callbacks.pop()
            for _ in range(10):
                gc.collect()
                pid = os.fork()
                if pid == 0:
                    os._exit(0 if look("keep").nodes else 1)
                assert os.waitpid(pid, 0)[1] == 0
            stop.set()
            searcher.join()
            threading.Thread(target=lambda: [look("keep") for _ in range(10_000)],
                             daemon=True).start()
            time.sleep(0.01)
            import atexit
            atexit.register(lambda: print(len(look("keep").found) > 10))
            print("end")
            """
        )
    )
    assert (answer.stdout, answer.stderr) == ("end\nTrue\n", "")


def test_the_snapshot_dies_with_its_host(run_python: RunPython) -> None:
    """A host that is killed during a search leaves no process."""
    run_python(
        program(
            """
            import signal
            gate, ready = os.pipe()
            host = os.fork()
            if host == 0:
                import ctypes
                sampler.start(interval_bytes=512)
                class Slow(list): pass
                KEPT = [Slow([bytes(300)])]
                words = ctypes.cast(id(Slow), ctypes.POINTER(ctypes.c_void_p))
                words[23] = ctypes.cast(ctypes.CDLL(None).pause, ctypes.c_void_p).value
                gc.disable()
                os.write(ready, b"x")
                retention.search(range(10_000), seconds=100.0)
                os._exit(0)
            os.read(gate, 1)
            def children():
                return open(f"/proc/{host}/task/{host}/children").read().split()
            while not children(): time.sleep(0.01)
            (child,) = children()
            os.kill(host, signal.SIGKILL)
            os.waitpid(host, 0)
            def lives():
                try:
                    return open(f"/proc/{child}/stat").read().rpartition(")")[2].split()[0] != "Z"
                except FileNotFoundError:
                    return False
            deadline = time.monotonic() + 60
            while lives() and time.monotonic() < deadline: time.sleep(0.01)
            assert not lives()
            """
        )
    )

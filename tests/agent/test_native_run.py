"""`stanch run --native`: real services and their children, with the preload library in front."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.sampler import PRELOAD, preload_problem
from tests.agent.hosts import Runs, functions, heap, runs_directory, wait_for
from tests.sampler.preloaded import SOURCES, build

HOST = """
    import ctypes, sys
    library = ctypes.CDLL(sys.argv[1])
    def leak():
        library.keep_nodes(100_000)
    leak()
    print("ready", flush=True)
    sys.stdin.read()
"""
SERVICE = """
    import ctypes, os
    library = ctypes.CDLL(os.environ["BLOCKS"])
    def leak():
        library.keep_nodes(20_000)
    def app(environ, start_response):
        leak()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]
"""


@pytest.fixture
def runs() -> Iterator[Runs]:
    if problem := preload_problem():
        pytest.skip(problem)
    with runs_directory() as made:
        yield made


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(SOURCES / "blocks.c", tmp_path_factory.mktemp("native") / "libblocks.so")


def test_a_run_names_the_c_function(runs: Runs, library: Path) -> None:
    """The endpoint's heap profile joins C functions and Python lines; a kill leaves them behind."""
    host = runs.script("host.py", HOST)
    table = runs.directory.parent / "keep"
    arguments = ("--native", "--interval", "16KiB", "--table", table, "--")
    with runs.running(*arguments, sys.executable, host, library) as process:
        wait_for(lambda: "ready" in runs.output(), runs)
        assert {"keep_nodes", "leak"} <= functions(heap(runs.sockets()[0]))
        process.kill()
        process.wait(30)
    told = runs.stanch("autopsy", table)
    assert "keep_nodes" in told.stdout or "make_node" in told.stdout
    assert "of it native" in told.stdout, told.stdout
    assert runs.output() == "ready\n"


def test_variable_and_code_do_as_the_option(runs: Runs) -> None:
    """STANCH_NATIVE=1 is the option; from code alone native sampling says how it is to be had."""
    show = "import stanch; stanch.start(native=True); print(stanch.stats().native)"
    assert (
        runs.stanch("run", "--", sys.executable, "-c", show, STANCH_NATIVE="1").stdout == "True\n"
    )
    answer = runs.finish(sys.executable, "-c", show)
    assert answer.stdout == "False\n"
    assert answer.stderr.startswith("stanch: no native samples: the preload library is not in this")
    assert answer.stderr.count("\n") == 1


def test_children_of_every_kind_are_as_without(runs: Runs) -> None:
    """Shells, pipes, an isolated Python and a failing one behave and print as without Stanch."""
    program = f"""
        import subprocess, sys
        for command in (["sh", "-c", "echo $0 a | tr a b; exit 3"], ["ls", "/absent"],
                        [{sys.executable!r}, "-I", "-c", "print(len(bytes(10**8)))"],
                        [{sys.executable!r}, "-c", "raise SystemExit(4)"]):
            done = subprocess.run(command, capture_output=True, text=True)
            print(done.returncode, done.stdout, done.stderr)
    """
    host = runs.script("host.py", program)
    bare = runs.finish(sys.executable, host)
    watched = runs.stanch("run", "--native", "--", sys.executable, host)
    assert (watched.stdout, watched.stderr, watched.returncode) == (bare.stdout, bare.stderr, 0)


def test_what_is_preloaded_already_stays_behind_ours(runs: Runs, library: Path) -> None:
    """Another preloaded library stays, after ours, and the list is handed on as it is."""
    show = "import os; print(os.environ['LD_PRELOAD'])"
    answer = runs.stanch(
        "run", "--native", "--", sys.executable, "-c", show, LD_PRELOAD=f"{library} {PRELOAD}"
    )
    assert answer.stdout == f"{PRELOAD}:{library}\n"
    assert answer.stderr == ""


@pytest.mark.parametrize("name", ["libjemalloc.so.2", "libtcmalloc_minimal.so.4"])
def test_another_preloaded_allocator_serves_on(runs: Runs, library: Path, name: str) -> None:
    """With jemalloc or tcmalloc behind ours, blocks are theirs, and are sampled all the same."""
    found = next((p for p in Path("/usr/lib").rglob(name)), None)
    if found is None:
        pytest.skip(f"no {name} here")
    program = """
        import ctypes, os, sys, stanch
        library = ctypes.CDLL(sys.argv[1])
        library.keep_malloc.restype = ctypes.c_void_p
        kept = [library.keep_malloc(10_000) for _ in range(3_000)]
        live = stanch.stats().live_native_bytes
        assert 25e6 < live < 36e6, live
        assert "malloc" in open("/proc/self/maps").read()
        print("fine")
    """
    answer = runs.stanch(
        "run", "--native", "--interval", "64KiB", "--",
        sys.executable, runs.script("host.py", program), library, LD_PRELOAD=str(found),
    )  # fmt: skip
    assert (answer.stdout, answer.stderr) == ("fine\n", "")


def test_gunicorn_worker(runs: Runs, library: Path) -> None:
    """A worker that gunicorn forked tells the C function behind its requests."""
    pytest.importorskip("gunicorn")
    import socket

    runs.script("service.py", SERVICE)
    port_of = socket.socket()
    port_of.bind(("127.0.0.1", 0))
    port = port_of.getsockname()[1]
    port_of.close()
    command = (sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "service:app")
    with runs.running(
        "--native", "--interval", "16KiB", "--", *command, BLOCKS=str(library)
    ) as process:

        def answers() -> bool:
            try:
                with socket.create_connection(("127.0.0.1", port)) as one:
                    one.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    return one.recv(20).startswith(b"HTTP/1.")
            except OSError:
                return False

        wait_for(answers, runs)
        worker = wait_for(lambda: [p for p in runs.sockets() if p.stem != str(process.pid)], runs)[
            0
        ]
        wait_for(lambda: answers() and {"keep_nodes", "leak"} <= functions(heap(worker)), runs)


def test_static_programs_are_unaffected(runs: Runs) -> None:
    """A static program, which loads no library, runs as it is."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    source = runs.script("static.c", '#include <stdio.h>\nint main() { puts("static"); }\n')
    program = source.with_suffix("")
    built = subprocess.run([compiler, "-static", source, "-o", program], capture_output=True)
    if built.returncode:
        pytest.skip("no static C library here")
    answer = runs.stanch("run", "--native", "--", program)
    assert (answer.stdout, answer.stderr, answer.returncode) == ("static\n", "", 0)

"""`stanch run`: the host is as it was, errors are one sentence, a clean end leaves nothing."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from stanch.cli.run import BOOTSTRAP
from tests.agent.hosts import LONGEST_S, Runs, ask, functions, heap, runs_directory, wait_for

HOST = """
    import os, sys
    def hold():
        return [bytes(2000) for _ in range(5000)]
    kept = hold()
    print("out", sys.argv[1:], [p for p in sys.path if "bootstrap" in p], __name__)
    print("err", file=sys.stderr)
    sys.exit(3)
"""
WAITING_HOST = """
    import sys
    def hold():
        return [bytes(2000) for _ in range(5000)]
    kept = hold()
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def runs() -> Iterator[Runs]:
    with runs_directory() as made:
        yield made


@pytest.mark.parametrize("way", [("host.py",), ("-m", "host")])
def test_host_is_as_without_stanch(runs: Runs, way: tuple[str, ...]) -> None:
    """Output and exit code of a script and a module are its own, and nothing is left."""
    runs.script("host.py", HOST)
    bare = runs.finish(sys.executable, *way, "a", "--listen", "b")
    watched = runs.stanch("run", "--", sys.executable, *way, "a", "--listen", "b")
    assert (bare.returncode, bare.stdout, bare.stderr) == (
        watched.returncode,
        watched.stdout,
        watched.stderr,
    )
    assert watched.returncode == 3
    assert runs.left() == []


def test_same_pid_and_signal(runs: Runs) -> None:
    """The command has the pid of `stanch run`, dies of the signal it gets, and leaves its table."""
    host = runs.script("host.py", WAITING_HOST)
    with runs.running("--", sys.executable, host) as process:
        wait_for(lambda: "ready" in runs.output(), runs)
        assert [path.name for path in runs.sockets()] == [f"{process.pid}.sock"]
        assert "hold" in functions(heap(runs.sockets()[0]))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
    assert [path.name for path in runs.tables()] == [f"{process.pid}.stanch"]
    runs.stanch("run", "--", sys.executable, "-c", "pass")
    assert [path.name for path in runs.tables()] == [f"{process.pid}.stanch"], "kept as evidence"
    assert runs.sockets() == [], "a dead process's socket is removed"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "sentence"),
    [
        (["--", "no-such-command"], 127, "no-such-command: no such command"),
        (["--", "./no-such-command"], 127, "./no-such-command: no such command"),
        (["--", "./host.py"], 126, "./host.py cannot be executed"),
        ([], 2, "no command; expected: stanch run"),
        (["--interval", "12 parsecs", "--", "true"], 2, "--interval is '12 parsecs'; expected"),
        (["--listen", "6060", "--", "true"], 2, "--listen is '6060'; expected"),
        (["--listen", "0.0.0.0:6060", "--", "true"], 2, "needs a token and TLS"),
        (["--token-file", "absent", "--", "true"], 2, "--token-file is 'absent'; expected a read"),
        (["--table", "absent/x.stanch", "--", "true"], 2, "--table is 'absent/x.stanch'"),
        (["--push", "ftp://x", "--", "true"], 2, "--push is 'ftp://x'; expected a URL"),
        (["--tls-cert", "host.py", "--", "true"], 2, "--tls-cert is set without --tls-key"),
    ],
)
def test_what_cannot_run(runs: Runs, arguments: list[str], exit_code: int, sentence: str) -> None:
    """Each wrong use is one sentence and its exit code, before anything starts."""
    runs.script("host.py", HOST)
    answer = runs.stanch("run", *arguments)
    assert answer.returncode == exit_code
    assert answer.stdout == ""
    assert answer.stderr.startswith("stanch: ")
    assert sentence in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_variable_is_checked_and_option_wins(runs: Runs) -> None:
    """A wrong variable is named by `stanch run`; the option beats it."""
    answer = runs.stanch("run", "--", "true", STANCH_INTERVAL="x")
    assert answer.returncode == 2
    assert "STANCH_INTERVAL is 'x'" in answer.stderr
    shown = runs.stanch(
        "run", "--interval", "64KiB", "--",
        sys.executable, "-c", "import stanch; print(stanch.stats().interval_bytes)",
        STANCH_INTERVAL="x",
    )  # fmt: skip
    assert shown.stdout == "65536\n"


def test_wrong_variable_inside_a_host(runs: Runs) -> None:
    """A host that finds a wrong setting says so in one line and runs on without the agent."""
    host = runs.script("host.py", HOST)
    answer = runs.finish(sys.executable, host, PYTHONPATH=str(BOOTSTRAP), STANCH_LISTEN="nowhere")
    assert answer.returncode == 3
    assert answer.stdout.startswith("out")
    first, *rest = answer.stderr.splitlines()
    assert first.startswith("stanch: the agent stays off: STANCH_LISTEN is 'nowhere'; expected")
    assert rest == ["err"]


def test_table_directory_that_cannot_be_written(runs: Runs) -> None:
    """Without a table file the host runs, is warned once, and still answers."""
    host = runs.script("host.py", WAITING_HOST)
    with runs.running("--table", "/proc", "--", sys.executable, host) as process:
        wait_for(lambda: "ready" in runs.output(), runs)
        assert "hold" in functions(heap(runs.sockets()[0]))
        process.communicate("", timeout=LONGEST_S)
    assert process.returncode == 0
    warning, ready = runs.output().splitlines()
    assert warning.startswith("stanch: no table file at /proc/")
    assert ready == "ready"
    assert runs.left() == []


def test_table_file_and_predecessor(runs: Runs) -> None:
    """After a kill the next run with the same --table names the table, and keeps it readable."""
    host = runs.script("host.py", WAITING_HOST)
    table = runs.directory.parent / "keep"
    with runs.running("--table", table, "--", sys.executable, host) as process:
        wait_for(lambda: "ready" in runs.output(), runs)
        process.kill()
        process.wait(30)
    left = table / f"{process.pid}.stanch"
    answer = runs.stanch("run", "--table", table, "--", sys.executable, "-c", "print('next')")
    assert answer.stdout == "next\n"
    assert answer.stderr == (
        f"stanch: a predecessor (pid {process.pid}) left a table: stanch autopsy {left}\n"
    )
    told = runs.stanch("autopsy", left)
    assert f"pid {process.pid}" in told.stdout
    assert "killed or crashed" in told.stdout
    assert list(table.iterdir()) == [left]


def test_hosts_own_sitecustomize_runs(runs: Runs) -> None:
    """A sitecustomize on the host's PYTHONPATH runs too, and is the one the host sees."""
    own = runs.directory.parent / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("print('mine', flush=True)\n")
    answer = runs.stanch(
        "run", "--",
        sys.executable, "-c",
        "import sitecustomize, stanch; print(sitecustomize.__file__, stanch.stats().running)",
        PYTHONPATH=str(own),
    )  # fmt: skip
    lines = answer.stdout.splitlines()
    assert lines[-1] == f"{own / 'sitecustomize.py'} True"
    assert "mine" in lines


def test_broken_sitecustomize_is_reported_as_python_does(runs: Runs) -> None:
    """An error in the host's sitecustomize is reported by Python itself, as without Stanch."""
    own = runs.directory.parent / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("1 / 0\n")
    command = (sys.executable, "-c", "print('on')")
    bare = runs.finish(*command, PYTHONPATH=str(own))
    watched = runs.finish(*command, PYTHONPATH=os.pathsep.join([str(BOOTSTRAP), str(own)]))
    assert watched.stdout == bare.stdout == "on\n"
    assert watched.stderr == bare.stderr
    assert "ZeroDivisionError" in watched.stderr


@pytest.mark.parametrize("switch", ["-S", "-I", "-E"])
def test_interpreters_that_ignore_the_environment(runs: Runs, switch: str) -> None:
    """Python told to ignore its environment runs as it is, without the agent and without a word."""
    answer = runs.stanch(
        "run", "--", sys.executable, switch, "-c", "import sys; print('stanch' in sys.modules)"
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "False\n", "")


def test_interpreter_of_another_environment(runs: Runs) -> None:
    """A virtual environment without stanch gets the agent, and its sys.path is as it was."""
    other = runs.directory.parent / "venv"
    made = runs.finish(sys.executable, "-m", "venv", "--without-pip", other)
    assert made.returncode == 0, made.stderr
    show = "import sys; print(sys.path, 'stanch.sampler' in sys.modules)"
    environ = {"PYTHONPATH": ""}
    bare = runs.finish(other / "bin/python", "-c", show, **environ)
    watched = runs.stanch("run", "--", other / "bin/python", "-c", show, **environ)
    assert bare.stdout.endswith(" False\n")
    assert watched.stdout == bare.stdout.replace(" False\n", " True\n"), watched.stderr
    assert watched.stderr == ""


def test_subprocess_has_its_own_agent(runs: Runs) -> None:
    """A Python that the host starts is a relative: its own table, and the first answers for it."""
    child = runs.script("child.py", WAITING_HOST.replace("hold", "hold_in_child"))
    host = runs.script(
        "host.py",
        f"""
        import subprocess, sys
        def hold():
            return [bytes(2000) for _ in range(5000)]
        kept = hold()
        subprocess.run([sys.executable, {str(child)!r}], check=True)
        """,
    )
    with runs.running("--", sys.executable, host) as process:
        wait_for(lambda: "ready" in runs.output(), runs)
        assert len(runs.tables()) == 2
        first = next(path for path in runs.sockets() if path.stem == str(process.pid))
        second = next(path for path in runs.sockets() if path != first)
        assert first.parent == second.parent
        assert {"hold"} == {"hold", "hold_in_child"} & functions(heap(first))
        assert {"hold_in_child"} == {"hold", "hold_in_child"} & functions(heap(second))
        metrics = ask(first, "/metrics").decode()
        assert f'pid="{second.stem}"' in metrics
        process.communicate("", timeout=LONGEST_S)
    assert process.returncode == 0
    assert runs.left() == []

"""`stanch attach`: an agent in a process that runs, or one sentence and the process as it was."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.agent.hosts import (
    LONGEST_S,
    STANCH,
    Runs,
    ask,
    functions,
    heap,
    runs_directory,
    wait_for,
)

needs_remote_exec = pytest.mark.skipif(
    not hasattr(sys, "remote_exec"), reason="attaching needs CPython 3.14 or later"
)
BUSY = """
    import select, sys
    def hold():
        return [bytes(2000) for _ in range(5000)]
    names = sorted(globals())
    print("ready", flush=True)
    while True:
        if select.select([sys.stdin], [], [], 0.02)[0]:
            line = sys.stdin.readline()
            if not line:
                break
            exec(line)
"""
BLOCKED = """
    import os, sys
    print("ready", flush=True)
    while os.read(0, 1):
        pass
    print("stanch" in sys.modules)
"""


@pytest.fixture
def runs() -> Iterator[Runs]:
    with runs_directory() as made:
        (made.directory.parent / "tmp").mkdir()
        made.environ["TMPDIR"] = str(made.directory.parent / "tmp")
        yield made


@contextmanager
def host(runs: Runs, *command: object, **environ: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a process without Stanch, wait until it is ready, and kill it in the end."""
    with (runs.directory.parent / "output").open("w") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env=runs.environ | environ,
            cwd=runs.directory.parent,
        )
        try:
            wait_for(lambda: "ready" in runs.output(), runs)
            yield process
        finally:
            process.kill()
            process.communicate(timeout=LONGEST_S)


def tell(process: "subprocess.Popen[str]", line: str) -> None:
    """Have a BUSY host execute a line."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def folders(runs: Runs) -> list[Path]:
    """Return what stands in the directory for temporary files."""
    return list((runs.directory.parent / "tmp").iterdir())


@pytest.mark.skipif(hasattr(sys, "remote_exec"), reason="this CPython can be attached to")
def test_before_3_14_a_sentence(runs: Runs) -> None:
    """Where CPython has no safe way in, the command says so and what to do instead."""
    answer = runs.stanch("attach", os.getpid())
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == (
        "stanch: attaching needs CPython 3.14 or later, and this is cpython "
        f"3.{sys.version_info.minor}; restart the service with: stanch run -- COMMAND\n"
    )


@needs_remote_exec
def test_attached_process_has_the_agent(runs: Runs) -> None:
    """It serves what it allocates from then on, is otherwise as before, and leaves nothing."""
    with host(runs, sys.executable, runs.script("host.py", BUSY)) as process:
        answer = runs.stanch("attach", process.pid, "--interval", "64KiB", "--service", "shop")
        socket = runs.directory / str(process.pid) / f"{process.pid}.sock"
        assert (answer.returncode, answer.stderr) == (0, "")
        assert answer.stdout == (
            f"stanch: the agent runs in process {process.pid}: stanch watch unix:{socket}\n"
        )
        assert folders(runs) == []
        tell(process, "kept = hold(); print('held', flush=True)")
        wait_for(lambda: "held" in runs.output(), runs)
        profile = heap(socket)
        assert "hold" in functions(profile)
        assert "service=shop" in profile.comments
        tell(process, "print(set(globals()) - set(names), flush=True)")
        wait_for(lambda: "{" in runs.output(), runs)
        process.communicate("", timeout=LONGEST_S)
        assert process.returncode == 0
    assert runs.output().splitlines()[:2] == ["ready", "held"]
    assert "stanch" not in runs.output()
    assert runs.left() == []


@needs_remote_exec
def test_a_second_attach_is_refused(runs: Runs) -> None:
    """Who attaches twice is told where the agent listens."""
    with host(runs, sys.executable, runs.script("host.py", BUSY)) as process:
        assert runs.stanch("attach", process.pid).returncode == 0
        answer = runs.stanch("attach", process.pid)
    assert answer.returncode == 1
    assert answer.stderr.startswith(
        f"stanch: no agent in process {process.pid}: the agent runs already, listening at unix:/"
    )
    assert answer.stderr.count("\n") == 1


@needs_remote_exec
def test_children_forked_later_have_it_too(runs: Runs) -> None:
    """A child forked after the attach gets an agent of its own, which answers."""
    with host(runs, sys.executable, runs.script("host.py", BUSY)) as process:
        assert runs.stanch("attach", process.pid).returncode == 0
        tell(process, "import os; child = os.fork(); kept = hold()")
        wait_for(lambda: len(runs.sockets()) == 2, runs)
        other = next(path for path in runs.sockets() if path.stem != str(process.pid))
        assert f'pid="{other.stem}"' in ask(other, "/metrics").decode()
        process.communicate("", timeout=LONGEST_S)
    wait_for(lambda: runs.left() == [], runs)


@needs_remote_exec
def test_interpreter_without_stanch_uses_ours(runs: Runs) -> None:
    """A process whose Python has no stanch gets ours, if it can be read and fits."""
    command = (sys.executable, "-I", "-S", runs.script("host.py", BUSY))
    with host(runs, *command) as process:
        answer = runs.stanch("attach", process.pid)
        assert answer.returncode == 0, answer.stderr
        tell(process, "kept = hold(); print([p for p in sys.path if 'site-pack' in p], flush=True)")
        wait_for(lambda: "[]" in runs.output(), runs)
        assert "hold" in functions(heap(runs.sockets()[0]))


@needs_remote_exec
def test_broken_stanch_in_the_process(runs: Runs) -> None:
    """A stanch that the process cannot import is reported, and the process runs on."""
    broken = runs.directory.parent / "broken" / "stanch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("import no_such_module\n")
    script = runs.script("host.py", BUSY)
    with host(runs, sys.executable, script, PYTHONPATH=str(broken.parent)) as process:
        answer = runs.stanch("attach", process.pid)
        process.communicate("print('well')\n", timeout=LONGEST_S)
    assert answer.returncode == 1
    assert "cannot be imported: No module named 'no_such_module'" in answer.stderr
    assert runs.output() == "ready\nwell\n"


@needs_remote_exec
@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--interval", "x"), "--interval is 'x'; expected"),
        (("--listen", "0.0.0.0:0"), "needs a token and TLS"),
        (("--wait", "never"), "'never' is no time to wait"),
    ],
)
def test_wrong_settings(runs: Runs, option: tuple[str, str], sentence: str) -> None:
    """A wrong setting is exit code 2, before the process is touched."""
    with host(runs, sys.executable, runs.script("host.py", BUSY)) as process:
        answer = runs.stanch("attach", process.pid, *option)
        assert (answer.returncode, answer.stdout) == (2, "")
        assert sentence in answer.stderr
        assert runs.left() == []


@needs_remote_exec
def test_processes_that_cannot_be_attached_to(runs: Runs) -> None:
    """No such process, no Python, remote debugging disabled, no permission: a sentence each."""

    def refused(pid: object, sentence: str, prefix: tuple[str, ...] = ()) -> None:
        answer = runs.finish(*prefix, *STANCH, "attach", pid)
        assert answer.returncode == 1, answer.stderr
        assert sentence in answer.stderr
        assert answer.stderr.count("\n") == 1
        assert folders(runs) == []

    script = runs.script("host.py", BUSY)
    with host(runs, sys.executable, script) as process:
        if os.geteuid() != 0:
            refused(1, "no permission to attach to process 1")
        elif shutil.which("setpriv"):
            drop = ("setpriv", "--bounding-set=-sys_ptrace")
            refused(process.pid, "no permission to attach to process", drop)
    refused(process.pid, f"there is no process {process.pid} to attach to")
    with host(runs, "sh", "-c", "echo ready; exec cat") as process:
        refused(process.pid, "is no CPython 3.14 or later to attach to")
    with host(runs, sys.executable, "-X", "disable-remote-debug", script) as process:
        refused(process.pid, f"remote debugging is disabled in process {process.pid}")


@needs_remote_exec
def test_process_that_runs_no_python_code(runs: Runs) -> None:
    """One whose main thread is busy elsewhere stays without the agent, also when it comes back."""
    with host(runs, sys.executable, runs.script("host.py", BLOCKED)) as process:
        answer = runs.stanch("attach", process.pid, "--wait", "0.2")
        assert answer.returncode == 1
        assert "ran no Python code in its main thread for 0.2 s" in answer.stderr
        process.communicate("", timeout=LONGEST_S)
    assert runs.output() == "ready\nFalse\n"
    assert folders(runs) == []
    assert runs.left() == []


@needs_remote_exec
def test_process_that_dies_meanwhile(runs: Runs) -> None:
    """The command ends with its process rather than waiting for it."""
    with host(runs, sys.executable, runs.script("host.py", BLOCKED)) as process:
        command = subprocess.Popen(
            [*STANCH, "attach", str(process.pid), "--wait", "600"],
            stderr=subprocess.PIPE,
            text=True,
            env=runs.environ,
        )
        try:
            wait_for(lambda: [f for f in folders(runs) if (f / "attach.py").exists()], runs)
            process.kill()
            _, told = command.communicate(timeout=LONGEST_S)
        finally:
            command.kill()
    # Killed a moment too early, it is found to be no process with an interpreter.
    assert command.returncode == 1
    assert told.startswith(("stanch: process ", "stanch: there is no process "))
    assert folders(runs) == []

"""Death and what comes after: a restart with the same pid, workers that are replaced, the list."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.sampler import read_table
from tests.agent.hosts import STANCH, Runs, runs_directory, wait_for


@pytest.fixture
def runs() -> Iterator[Runs]:
    """Give a directory of runs of its own."""
    with runs_directory() as made:
        yield made


LIFE = """
    import os, signal, sys
    def hold_in_life(n):
        return [bytes(2000) for _ in range(n)]
    kept = hold_in_life(1000 * int(sys.argv[1]))
    print(os.getpid(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL) if sys.argv[2] == "die" else None
    os._exit(0) if sys.argv[2] == "exit" else None
    sys.stdin.read() if sys.argv[2] == "wait" else None
"""


def can_unshare() -> bool:
    """Return whether a PID namespace, which is half a container, can be had here."""
    probe = ("unshare", "--pid", "--fork", "--kill-child", "true")
    return (
        shutil.which("unshare") is not None
        and subprocess.run(probe, capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not can_unshare(), reason="a PID namespace needs root")
def test_restarts_with_the_same_pid(runs: Runs) -> None:
    """A container whose process is killed and restarted as pid 1 keeps the table of each life."""
    host = runs.script("life.py", LIFE)
    tables = runs.directory.parent / "tables"

    def live(number: int, end: str) -> str:
        """Live as pid 1 of a namespace, be killed from outside if asked to wait; return stderr."""
        command = [
            *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(*STANCH, "run", "--interval", "4096", "--table", str(tables), "--"),
            *(sys.executable, str(host), str(number), end),
        ]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=runs.environ,
        ) as process:  # fmt: skip
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline() == "1\n", process.stderr.read()
            if end == "wait":
                child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
                os.kill(int(child), signal.SIGKILL)
            said = process.communicate(timeout=60)[1]
            assert (process.returncode == 0) == (end != "wait"), said
            return said

    deaths = 4
    for number in range(1, deaths + 1):
        ended = live(number, "wait")
        said = re.findall(r"a predecessor \(pid 1\) left a table: stanch autopsy (\S+)", ended)
        assert len(said) == (number > 1), ended
        if said:
            # It is the last life that is offered, with what that life held.
            image = read_table(said[0])
            held = sum(entry.size_bytes for entry in image.entries if entry.size_bytes > 1500)
            assert image.pid == 1 and held > 0
            assert "hold_in_life" in runs.stanch("autopsy", said[0]).stdout
    live(1, "exit")
    live(1, "end")
    kept = [read_table(path) for path in tables.glob("*.stanch")]
    assert len(kept) == deaths and not any(image.stopped for image in kept)


def test_workers_that_die_and_are_replaced(runs: Runs) -> None:
    """The arbiter lives on: a killed worker's table stays, is listed and read, newest first."""
    runs.script(
        "served.py",
        """
        def hold_in_worker():
            return [bytes(2000) for _ in range(3000)]
        KEPT = hold_in_worker()
        def app(environ, start_response):
            start_response("200 OK", [])
            return [b"ok"]
        """,
    )
    command = (sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", "--no-control-socket")
    options = ("--service", "shop", "--interval", "4096")
    killed: list[int] = []
    with runs.running(*options, "--", *command, "-w", "2", "served:app") as arbiter:
        for _ in range(3):
            wait_for(lambda: len(living(runs, arbiter.pid, killed)) == 2, runs)
            victim = living(runs, arbiter.pid, killed)[0]
            assert read_table(table_of(runs, arbiter.pid, victim)).service == "shop"
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
        wait_for(lambda: len(living(runs, arbiter.pid, killed)) == 2, runs)
        listed = runs.stanch("autopsy").stdout.splitlines()
        arbiter.send_signal(signal.SIGTERM)
        assert arbiter.wait(30) == 0
    assert " ".join(listed[0].split()) == "last seen pid service live heap on disk file"
    files = [Path(line.split()[-1]) for line in listed[1:]]
    assert files == [table_of(runs, arbiter.pid, pid) for pid in reversed(killed)]
    for line, pid in zip(listed[1:], reversed(killed), strict=True):
        assert f" {pid} " in line and " shop " in line
        assert re.search(r" \d+\.\d+MB +\d.* ", line), line  # at least the 6 MB it keeps
    told = runs.stanch("autopsy", files[0]).stdout
    assert f"pid {killed[-1]}" in told and "hold_in_worker" in told
    assert runs.stanch("autopsy").stdout.splitlines() == listed


def table_of(runs: Runs, run: int, pid: int) -> Path:
    """Return where the table of a process of a run is."""
    return runs.directory / str(run) / f"{pid}.stanch"


def living(runs: Runs, arbiter: int, killed: list[int]) -> list[int]:
    """Return the pids of the workers that have a table and were not killed."""
    pids = [int(path.stem) for path in runs.tables()]
    return sorted(pid for pid in pids if pid != arbiter and pid not in killed)


def test_many_deaths_under_one_arbiter_stay_within_bounds(runs: Runs) -> None:
    """A process that lives on while its children die again and again keeps the newest tables."""
    host = runs.script(
        "host.py",
        """
        import os, signal
        directory = os.environ["STANCH_RUN_DIR"]
        def has_table():
            try:
                with open(f"{directory}/{os.getpid()}.stanch", "rb") as table:
                    return table.read(8) == b"STANCHT\\n"
            except FileNotFoundError:
                return False
        for _ in range(22):
            pid = os.fork()
            if pid == 0:
                while not has_table():
                    pass
                os.kill(os.getpid(), signal.SIGKILL)
            os.waitpid(pid, 0)
            last = pid
        print(last, len([name for name in os.listdir(directory) if name.endswith(".stanch")]))
        """,
    )
    answer = runs.stanch("run", "--", sys.executable, host)
    assert (answer.returncode, answer.stderr) == (0, "")
    last, there = map(int, answer.stdout.split())
    # The sixteen that are kept, the host's own, and those since the last child looked.
    assert 17 <= there <= 18
    assert f"{last}.stanch" in {path.name for path in runs.tables()}


def test_list_of_a_named_directory(runs: Runs) -> None:
    """With --list, or by STANCH_TABLE, the tables of a --table directory; none is one sentence."""
    host = runs.script("life.py", LIFE)
    tables = runs.directory.parent / "tables"
    nothing = runs.stanch("autopsy")
    assert (nothing.returncode, nothing.stderr) == (0, "")
    assert nothing.stdout.startswith("No killed process has left a table in ")
    pids = []
    for number in (1, 2):
        start = ("run", "--service", f"s{number}", "--table", tables, "--", sys.executable)
        pids.append(runs.stanch(*start, host, number, "die").stdout.strip())
    (tables / "9.stanch").write_bytes(next(tables.glob("*.stanch")).read_bytes()[:5000])
    by_option = runs.stanch("autopsy", "--list", tables).stdout.splitlines()
    by_variable = runs.stanch("autopsy", STANCH_TABLE=str(tables)).stdout.splitlines()
    assert by_option == by_variable and len(by_option) == 4
    whole = [line.split()[3] for line in by_option[1:] if "damaged" not in line]
    assert whole == [pids[1], pids[0]]
    assert sum("damaged" in line for line in by_option) == 1
    for wrong in (("--list", host), ("--list", tables, host), ("--output", "x")):
        answer = runs.stanch("autopsy", *wrong)
        assert answer.returncode == 2 and answer.stderr.count("\n") == 1

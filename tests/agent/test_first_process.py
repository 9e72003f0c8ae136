"""Which process of a run listens at --listen: the first that is Python and lives."""

import json
import sys
from collections.abc import Iterator

import pytest

from tests.agent.hosts import LONGEST_S, Runs, ask, runs_directory, wait_for

# One write for each process: several of them share the file that they say it in.
WAITS = """
    import os, sys
    os.write(1, f"ready {os.getpid()}\\n".encode())
    sys.stdin.read()
"""
DAEMON = """
    import os, sys
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    print("ready", os.getpid(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def runs() -> Iterator[Runs]:
    with runs_directory() as made:
        yield made


def listening_pids(runs: Runs) -> list[int]:
    """Return the pids that the listener tells of, none while nobody listens."""
    try:
        answer = json.loads(ask(runs.directory.parent / "all.sock", "/debug/stanch/processes"))
    except OSError:
        return []
    return [process["pid"] for process in answer]


@pytest.mark.parametrize("way", ["behind a shell", "as a daemon"])
def test_a_process_listens_whatever_started_it(runs: Runs, way: str) -> None:
    """A shell that waits for Python, or parents that end, do not cost the run its listener."""
    listen = f"unix:{runs.directory.parent / 'all.sock'}"
    if way == "behind a shell":
        host = runs.script("host.py", WAITS)
        command = ["sh", "-c", f"{sys.executable} {host}; true"]
    else:
        command = [sys.executable, str(runs.script("host.py", DAEMON))]
    with runs.running("--listen", listen, "--", *command):
        wait_for(lambda: "ready" in runs.output(), runs)
        pid = int(runs.output().split()[1])
        assert wait_for(lambda: listening_pids(runs), runs) == [pid]


def test_only_one_of_several_listens(runs: Runs) -> None:
    """Siblings share a run: the first of them listens and tells of the other."""
    listen = f"unix:{runs.directory.parent / 'all.sock'}"
    host = runs.script("host.py", WAITS)
    python = f"{sys.executable} {host} <&3"
    command = ["sh", "-c", f"exec 3<&0; {python} & {python} & wait"]
    with runs.running("--listen", listen, "--", *command) as process:
        wait_for(lambda: runs.output().count("ready") == 2, runs)
        pids = sorted(map(int, runs.output().replace("ready", "").split()))
        assert wait_for(lambda: len(listening_pids(runs)) == 2, runs)
        assert sorted(listening_pids(runs)) == pids
        process.communicate("", timeout=LONGEST_S)
        assert process.returncode == 0
    assert runs.left() == []

"""`stanch why`: asks a live process, prints the tree of references, refuses in one sentence."""

import json
import os
import sys
from collections.abc import Iterator

import pytest

from stanch.cli.main import main
from tests.agent.hosts import Runs, runs_directory, wait_for

HOST = """
    import sys, threading, time
    SESSIONS = {}
    class Session:
        def __init__(self): self.request = [bytes(5000)]
    def remember(n):
        SESSIONS[n] = Session()
    def work():
        n = 0
        while True:
            n += 1
            remember(n)
            time.sleep(0.001)
    threading.Thread(target=work, daemon=True).start()
    while len(SESSIONS) < 1000: time.sleep(0.01)
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def run() -> Iterator[tuple[Runs, int]]:
    """A process under `stanch run` that keeps sessions, and its pid."""
    with runs_directory() as runs:
        script = runs.script("host.py", HOST)
        with runs.running("--interval", "4096", "--", sys.executable, script) as process:
            wait_for(lambda: "ready" in runs.output() and runs.sockets(), runs)
            yield runs, process.pid


def test_text(run: tuple[Runs, int], capsys: pytest.CaptureFixture[str]) -> None:
    """The tree names the global dict, its growth and what it holds; the cost is told."""
    runs, _ = run
    socket = f"unix:{runs.sockets()[0]}"
    assert main(["why", socket, "--function", "remember", "--seconds", "1"]) == 0
    text = capsys.readouterr().out
    assert "host.py module global SESSIONS (dict, " in text
    assert "entries, +" in text and "): grows without bound" in text
    assert "Session.request (" in text and "bytes" in text
    assert "objects searched in a snapshot in" in text


def test_json_by_pid(run: tuple[Runs, int], capsys: pytest.CaptureFixture[str]) -> None:
    """A pid finds its socket in the directory of runs; --json prints the endpoint's answer."""
    _, pid = run
    assert main(["why", str(pid), "--json", "--seconds", "0", "--in-process"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["pid"] == pid and answer["search"]["in_process"]
    assert answer["holders"][0]["name"].endswith("host.py module global SESSIONS")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--function", "nosuch"], 1, "no live sample was allocated by nosuch"),
        (["--stack", "nowhere"], 1, "expected FILE:LINE"),
    ],
)
def test_refusals(
    run: tuple[Runs, int],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    sentence: str,
) -> None:
    """What the endpoint refuses is told in its words."""
    runs, _ = run
    assert main(["why", f"unix:{runs.sockets()[0]}", *arguments]) == code
    assert sentence in capsys.readouterr().err


def test_wrong_targets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """A pid without a socket, and a target that is none, say what is expected."""
    monkeypatch.setenv("STANCH_DIR", str(tmp_path))
    assert main(["why", "999999999"]) == 2
    assert "no process 999999999" in capsys.readouterr().err
    assert main(["why", str(os.getpid())]) == 2
    assert "has no agent in sight" in capsys.readouterr().err
    assert main(["why", "nonsense"]) == 2
    assert "expected http" in capsys.readouterr().err

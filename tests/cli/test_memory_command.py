"""`stanch memory` of a pid, a socket and a URL; with the agent and without; of many processes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stanch.agent.breakdown import from_json
from stanch.cli.memory_text import Style, memory_text
from tests.agent.hosts import STANCH, Runs, runs_directory, wait_for
from tests.cli.command import stanch

MIB = 1 << 20
APP = """
    import threading
    KEPT = []
    def app(environ, start_response):
        KEPT.append(bytes(8 << 20))
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]
"""


@pytest.fixture
def runs() -> Iterator[Runs]:
    with runs_directory() as made:
        yield made


def told(*arguments: str) -> dict[str, Any]:
    outcome = stanch("memory", "--json", *arguments)
    assert outcome.code == 0, outcome.err
    document: dict[str, Any] = json.loads(outcome.out)
    for process in document["processes"]:
        account = from_json(process)
        assert sum(row.bytes for row in account.rows) == account.rss_bytes
    return document


def test_a_run_of_several_processes(runs: Runs) -> None:
    """The first pid and any socket stand for the run with its sum, a worker's pid for itself."""
    runs.script("served.py", APP)
    command = (sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", "--no-control-socket")
    with runs.running("--service", "shop", "--", *command, "-w", "2", "served:app") as process:
        wait_for(lambda: len(runs.sockets()) == 3, runs)
        pids = sorted(int(path.stem) for path in runs.sockets())
        sources = [str(process.pid), *(f"unix:{path}" for path in runs.sockets())]
        for source in sources:
            document = told(source)
            assert [each["pid"] for each in document["processes"]] == pids
            sizes = [from_json(each).rss_bytes for each in document["processes"]]
            assert from_json(document["total"]).rss_bytes == sum(sizes)
        worker = next(pid for pid in pids if pid != process.pid)
        (alone,) = told(str(worker))["processes"]
        assert alone["pid"] == worker and alone["sampling"] and alone["service"] == "shop"
        text = stanch("memory", str(process.pid)).out
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert "shop: 3 processes" in text and "their sum" in text
    assert all(f"{pid:>9}" in text for pid in pids)


def test_the_first_process_at_its_address(runs: Runs) -> None:
    """A run that listens on TCP is found by its pid, and by its URL."""
    code = "import sys; kept = b'x' * (20 << 20); print('up', flush=True); sys.stdin.read()"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    with runs.running("--listen", address, "--", sys.executable, "-c", code) as process:
        wait_for(lambda: "up" in runs.output(), runs)
        for source in (str(process.pid), f"http://{address}"):
            (found,) = told(source)["processes"]
            assert found["pid"] == process.pid
            rows = {row["kind"]: row["bytes"] for row in found["rows"]}
            assert rows["python_live"] >= 20 * MIB


def test_a_port_that_only_the_agent_knows(runs: Runs) -> None:
    """A run on port 0 is not taken for a process without the agent."""
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    with runs.running("--listen", "127.0.0.1:0", "--", sys.executable, "-c", code) as process:
        wait_for(lambda: "up" in runs.output(), runs)
        outcome = stanch("memory", str(process.pid))
    assert outcome.code == 1 and "name its URL" in outcome.err


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare"
)
def test_into_a_container(runs: Runs) -> None:
    """A process with its own pids and its own /tmp is found by the pid it has out here."""
    box = runs.directory.parent / "box"
    box.mkdir()
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    script = runs.script("boxed.sh", f"""
        mount -t tmpfs none {box} || exit 77
        STANCH_DIR={box}/runs exec "$@"
    """)  # fmt: skip
    command = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "sh")
    run = (*STANCH, "run", "--service", "boxed", "--", sys.executable, "-c", code)
    with subprocess.Popen(
        [*command, str(script), *run],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=runs.environ,
    ) as outer:  # fmt: skip
        assert outer.stdin is not None and outer.stdout is not None
        try:
            if outer.stdout.readline() != "up\n":
                pytest.skip("this machine lets nobody make namespaces")
            children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
            (found,) = told(children[0])["processes"]
            outer.stdin.close()
            assert outer.wait(30) == 0
        finally:
            outer.kill()
    assert (found["pid"], found["service"], found["sampling"]) == (1, "boxed", True)


def test_a_process_without_the_agent() -> None:
    """What /proc tells is given, and that it is no more than that."""
    code = "kept = b'x' * (20 << 20); print(flush=True); input()"
    environ = {key: text for key, text in os.environ.items() if not key.startswith("STANCH_")}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as child:
        assert child.stdout is not None and child.stdin is not None
        child.stdout.readline()
        document = told(str(child.pid))
        text = stanch("memory", str(child.pid)).out
        child.stdin.write(b"\n")
        child.stdin.close()
    assert document["agent"] is False
    rows = {row["kind"]: row for row in document["processes"][0]["rows"]}
    assert rows["other"]["bytes"] >= 20 * MIB and "python_live" not in rows
    assert rows["file"]["can_leak"] == "never"
    assert "no agent in this process" in text and "live Python heap" not in text


@pytest.mark.parametrize(
    ("source", "code", "says"),
    [
        ("4194305", 2, "there is no process 4194305"),
        ("heap.pb.gz", 2, "expected a pid, http(s)://HOST:PORT or unix:SOCKET"),
        ("unix:/nonexistent/agent.sock", 1, "cannot connect"),
    ],
)
def test_sources_that_cannot_be(source: str, code: int, says: str) -> None:
    """A wrong source is one sentence with the remedy."""
    outcome = stanch("memory", source)
    assert outcome.code == code and says in outcome.err and outcome.out == ""
    assert outcome.err.count("\n") == 1


def _row(kind: str, size: int, error: int | None = None) -> dict[str, Any]:
    return {"kind": kind, "bytes": size, "share": 0, "error_bytes": error, "can_leak": "yes"}


DOCUMENT = {
    "agent": True,
    "processes": [
        {
            "pid": 7, "answered": True, "service": "shop", "instance": "a", "python": "3.12.1",
            "sampling": True, "rss_bytes": 100 * MIB, "swap_bytes": 3 * MIB,
            "overshoot_bytes": 2 * MIB, "untouched_bytes": 1024 * MIB,
            "rows": [
                _row("python_live", 60 * MIB, 5 * MIB), _row("python_free", 10 * MIB, MIB),
                _row("stacks", 5 * MIB), _row("file", 20 * MIB), _row("other", 5 * MIB),
            ],
        }
    ],
    "cgroup": {
        "version": 2, "limit_bytes": 256 * MIB, "usage_bytes": 160 * MIB,
        "working_set_bytes": 128 * MIB, "inactive_file_bytes": 32 * MIB,
        "peak_bytes": 200 * MIB, "oom_kills": 4,
        "rows": [
            {"kind": "anon", "bytes": 80 * MIB, "can_leak": "yes"},
            {"kind": "file", "bytes": 80 * MIB, "can_leak": "never"},
        ],
    },
}  # fmt: skip


def test_the_text() -> None:
    """The table has shares, errors and verdicts; the cgroup its limit and working set."""
    text = memory_text(DOCUMENT, Style(140, False))
    assert text.splitlines()[0] == "shop, pid 7, Python 3.12.1"
    lines = {line[2:27].strip(): line for line in text.splitlines()}
    assert lines["live Python heap"].split()[3:6] == ["60MB", "±5MB", "60.0%"]
    assert "━" * 7 in lines["live Python heap"]
    assert "never" in lines["mapped files"] and "by threads" in lines["threads' stacks"]
    assert "100MB" in lines["resident (RSS)"]
    assert "without 32MB of inactive page cache" in lines["working set"]
    assert "never" in lines["page cache"] and "limit 256MB" in text
    for note in ("3MB more is swapped out", "1GB more was asked of malloc", "claim 2MB more",
                 "working set at 50.0% of the limit", "peak 200MB",
                 "4 killed by the OOM killer"):  # fmt: skip
        assert note in text


@pytest.mark.parametrize("columns", [80, 104, 120, 140])
def test_the_text_fits_the_terminal(columns: int) -> None:
    """No line of the tables is wider than the terminal, nor coloured unless asked."""
    text = memory_text(DOCUMENT, Style(columns, False))
    wide = [line for line in text.splitlines() if len(line) > columns]
    assert wide == [] and "\x1b" not in text
    assert "\x1b[" in memory_text(DOCUMENT, Style(columns, True))


def test_a_relative_that_does_not_answer() -> None:
    """It is named, and the rest is shown."""
    document = {**DOCUMENT, "processes": [*DOCUMENT["processes"], {"pid": 9, "answered": False}]}
    text = memory_text(document, Style(140, False))
    assert "9  did not answer" in text and "live Python heap" in text

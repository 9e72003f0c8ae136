"""`stanch demo` as a command: errors are sentences, an interrupted run leaves nothing behind."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from stanch.demo import deploy
from stanch.demo.errors import DemoError
from stanch.demo.host.cgroup import CgroupError, find_hierarchy
from stanch.demo.host.limits import WatchingLimiter
from stanch.demo.host.node import NodeSpec
from stanch.demo.host.supervisor import Supervisor
from stanch.demo.host.workplace import Workplace
from stanch.demo.run import DemoOptions, scale_of, wait_until_ready
from stanch.demo.scenario import FULL, SMALL

STANCH = [sys.executable, "-m", "stanch.cli.main", "demo"]


def test_a_wrong_duration_is_one_sentence() -> None:
    """A duration that is none ends the command with status 2 and what was expected."""
    done = subprocess.run([*STANCH, "--for", "soon"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "'soon' is not a duration" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_server_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what the services run on the error says which package and how to get it."""
    monkeypatch.setattr(deploy, "_SERVERS", ("flask", "no_such_server"))
    with pytest.raises(DemoError, match=r"need no_such_server; pip install 'stanch\[demo\]'"):
        deploy.require_servers()


def test_the_window_can_be_chosen() -> None:
    """--full takes the real scale, --fixed the shorter run, --for overrides how long."""
    assert scale_of(DemoOptions()) is SMALL
    assert scale_of(DemoOptions(full=True, fixed=True)) is FULL
    assert scale_of(DemoOptions(fixed=True)).window_s < SMALL.window_s
    assert scale_of(DemoOptions(window_s=7.0)) == replace(SMALL, window_s=7.0)


def test_a_node_that_does_not_start_shows_its_log() -> None:
    """A service that ends while it starts stops the demo with the end of its log."""
    workplace = Workplace(keep=False)
    deployment = deploy.Deployment((), workplace, {"shop-1": "127.0.0.1:1"}, {}, None)
    spec = NodeSpec(
        name="shop-1",
        service="shop",
        command=lambda life: ["/bin/sh", "-c", "echo address already in use; exit 3"],
        environment={},
        directory=workplace.root,
        log=workplace.directory("logs") / "shop-1.log",
        limit_bytes=1 << 30,
    )
    supervisor = Supervisor([spec], WatchingLimiter("a test"))
    supervisor.start()
    try:
        with pytest.raises(DemoError) as caught:
            wait_until_ready(deployment, supervisor)
    finally:
        supervisor.stop()
        workplace.close()
    assert "shop-1 could not be started: ended by itself with status 3" in str(caught.value)
    assert "address already in use" in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_demo_leaves_nothing(number: signal.Signals) -> None:
    """Interrupted with all nodes starting, even twice, it ends with 130 and cleans up."""
    process = subprocess.Popen(
        STANCH,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if line.startswith("Limits: "):
            break
    process.send_signal(number)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(60) == 130, seen + rest
    assert "Traceback" not in rest
    assert not list(Path(tempfile.gettempdir()).glob(f"stanch-demo-{process.pid}-*"))
    with contextlib.suppress(CgroupError):
        assert not (find_hierarchy().parent / f"stanch-demo-{process.pid}").exists()
    assert str(process.pid) not in nodes_of_demos()


def nodes_of_demos() -> set[str]:
    """Return the ids of demos whose nodes still run, from their working directories."""
    found = set()
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            with contextlib.suppress(OSError):
                place = str((directory / "cwd").readlink())
                _, mark, rest = place.partition("/stanch-demo-")
                if mark:
                    found.add(rest.partition("-")[0])
    return found

"""The supervisor: nodes die at their limit as a whole, come back, and never outlive it."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stanch.demo.host.limits import Limiter, WatchingLimiter, choose_limiter
from stanch.demo.host.node import Died, Event, Node, NodeSpec, Started
from stanch.demo.host.processes import session_pids
from stanch.demo.host.supervisor import Supervisor

MIB = 1024 * 1024
SLEEPER = "import time; time.sleep(600)"
# A master with a worker that grows: the worker dies at the limit, the master would live on.
PREFORK = """
import os, sys
if os.fork():
    os.wait()
    import time; time.sleep(600)
hold = []
while True:
    hold.append(b"x" * (1 << 20))
    import time; time.sleep(0.002)
"""


@pytest.fixture(params=["kernel", "watching"])
def limiter(request: pytest.FixtureRequest) -> Iterator[Limiter]:
    """Both ways to hold a limit; the kernel's is skipped where it is not permitted."""
    made = choose_limiter() if request.param == "kernel" else WatchingLimiter("a test")
    if request.param == "kernel" and not made.by_kernel:
        pytest.skip(made.description)
    yield made
    made.remove()


def spec(directory: Path, code: str, limit_bytes: int = 64 * MIB) -> NodeSpec:
    return NodeSpec(
        name="node-1",
        service="node",
        command=lambda life: [sys.executable, "-c", code, str(life)],
        environment=dict(os.environ),
        directory=directory,
        log=directory / "node-1.log",
        limit_bytes=limit_bytes,
    )


def tick_until(node: Node, wanted: Callable[[Event], bool]) -> Event:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        event = node.tick(time.monotonic())
        if event is not None and wanted(event):
            return event
        threading.Event().wait(0.02)
    raise AssertionError("the event did not come within a minute")


def test_the_whole_node_dies_and_comes_back(limiter: Limiter, tmp_path: Path) -> None:
    """When one process of a node hits the limit, all of the node go, and a new life starts."""
    node = Node(spec(tmp_path, PREFORK), limiter)
    try:
        first = tick_until(node, lambda event: isinstance(event, Started))
        assert isinstance(first, Started)
        died = tick_until(node, lambda event: isinstance(event, Died))
        assert isinstance(died, Died)
        assert died.at_limit
        assert (died.life, died.node, died.service) == (1, "node-1", "node")
        assert died.lived_s > 0
        assert session_pids(first.pid) == []
        again = tick_until(node, lambda event: isinstance(event, Started))
        assert isinstance(again, Started)
        assert again.life == 2
        assert again.at - died.at >= 1.0, "a pause comes before the second life"
    finally:
        node.stop()


def test_an_end_of_its_own_is_told_from_the_limit(limiter: Limiter, tmp_path: Path) -> None:
    """A process that exits by itself is reported with its status, not as killed at the limit."""
    node = Node(spec(tmp_path, "import sys; sys.exit(7)"), limiter)
    try:
        died = tick_until(node, lambda event: isinstance(event, Died))
        assert isinstance(died, Died)
        assert not died.at_limit
        assert died.how == "ended by itself with status 7"
    finally:
        node.stop()


def test_a_node_that_is_asked_ends_and_begins_at_once(limiter: Limiter, tmp_path: Path) -> None:
    """SIGTERM reaches it, its end is told as asked for, and no pause comes before the next life."""
    node = Node(spec(tmp_path, SLEEPER), limiter)
    try:
        tick_until(node, lambda event: isinstance(event, Started))
        node.ask_to_end()
        died = tick_until(node, lambda event: isinstance(event, Died))
        assert isinstance(died, Died)
        assert (died.was_asked, died.at_limit, died.status) == (True, False, -15)
        again = node.tick(time.monotonic())
        assert isinstance(again, Started)
    finally:
        node.stop()


def test_stop_leaves_no_process(limiter: Limiter, tmp_path: Path) -> None:
    """After `stop` no process of any node is left, and stopping twice is no error."""
    supervisor = Supervisor([spec(tmp_path, SLEEPER)], limiter)
    supervisor.start()
    try:
        deadline = time.monotonic() + 30
        events: list[Event] = []
        while not events and time.monotonic() < deadline:
            threading.Event().wait(0.05)
            events = supervisor.events()
    finally:
        supervisor.stop()
    assert isinstance(events[0], Started)
    assert supervisor.failure is None
    assert session_pids(events[0].pid) == []
    supervisor.stop()


def test_a_command_that_does_not_exist_is_told(tmp_path: Path) -> None:
    """A supervisor that cannot start a node keeps the error for its caller."""
    bad = spec(tmp_path, "")
    bad = NodeSpec(
        bad.name,
        bad.service,
        lambda life: ["/no/such/program"],
        bad.environment,
        bad.directory,
        bad.log,
        bad.limit_bytes,
    )
    supervisor = Supervisor([bad], WatchingLimiter("a test"))
    supervisor.start()
    deadline = time.monotonic() + 30
    while supervisor.failure is None and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    supervisor.stop()
    assert isinstance(supervisor.failure, FileNotFoundError)

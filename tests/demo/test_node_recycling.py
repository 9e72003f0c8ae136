"""A node of the demo taken out and brought back by its back end, under load: no request fails."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stanch.demo.host.limits import WatchingLimiter
from stanch.demo.host.node import NodeSpec
from stanch.demo.host.ports import free_addresses
from stanch.demo.host.supervisor import Supervisor
from stanch.demo.load.meter import LoadMeter
from stanch.demo.load.plan import LoadPlan, Traffic
from stanch.demo.nodebackend import NodeBackend, answers
from stanch.recycle.backends import RecycleError

# Answers anything; on SIGTERM it closes at once, as a server without grace does.
NODE = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *arguments):
        pass
host, _, port = sys.argv[1].rpartition(":")
ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
"""


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def spec(directory: Path, name: str, address: str) -> NodeSpec:
    return NodeSpec(
        name=name,
        service="shop",
        command=lambda life: [sys.executable, "-c", NODE, address],
        environment=dict(os.environ),
        directory=directory,
        log=directory / f"{name}.log",
        limit_bytes=1 << 30,
    )


def test_a_node_is_recycled_under_load_without_a_failed_request(tmp_path: Path) -> None:
    """Drained, ended, begun anew and restored, while the other node serves."""
    addresses = dict(zip(("shop-1", "shop-2"), free_addresses(2), strict=True))
    nodes = [spec(tmp_path, name, address) for name, address in addresses.items()]
    supervisor = Supervisor(nodes, WatchingLimiter("a test"))
    supervisor.start()
    try:
        until(lambda: all(answers(address) for address in addresses.values()))
        traffic = Traffic("shop", 6000.0, tuple(addresses.values()), "GET", "/", "")
        meter = LoadMeter(LoadPlan((traffic,), report_every_s=0.1))
        try:
            until(lambda: meter.total().answered_count > 100)
            backend = NodeBackend(supervisor, meter, addresses)
            for name in ("shop-1", "shop-2"):
                backend.drain("shop", name, 30.0)
                drained = meter.total().seconds
                until(lambda after=drained: meter.total().seconds > after + 0.5)
                backend.end("shop", name, 60.0)
                backend.restore("shop", name, 60.0)
                assert supervisor.life(name) == 2
            before = meter.total().answered_count
            until(lambda: meter.total().answered_count > before + 200)
            assert meter.total().failed_count == 0
        finally:
            meter.stop()
    finally:
        supervisor.stop()


def test_a_node_that_does_not_end_or_answer_in_time_is_an_error(tmp_path: Path) -> None:
    """Each step is bounded, and says which node it was."""
    (address,) = free_addresses(1)
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True)"
    node = spec(tmp_path, "shop-1", address)
    node = replace(node, command=lambda life: [sys.executable, "-c", f"{deaf}; time.sleep(600)"])
    supervisor = Supervisor([node], WatchingLimiter("a test"))
    supervisor.start()
    try:
        until(lambda: node.log.exists() and "deaf" in node.log.read_text())
        plan = LoadPlan((Traffic("shop", 60.0, (address,), "GET", "/", ""),))
        meter = LoadMeter(plan)
        try:
            backend = NodeBackend(supervisor, meter, {"shop-1": address})
            with pytest.raises(RecycleError, match="shop-1 did not end within 1 s"):
                backend.end("shop", "shop-1", 1.0)
            with pytest.raises(RecycleError, match="shop-1 does not answer after 1 s"):
                backend.restore("shop", "shop-1", 1.0)
        finally:
            meter.stop()
    finally:
        supervisor.stop()

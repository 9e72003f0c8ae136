"""The load generator: real requests over real connections, counted right, balanced and bounded."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.demo.host.ports import free_addresses
from stanch.demo.load.balancer import EJECT_SECONDS, Ring, ShareWheel
from stanch.demo.load.connection import AnswerError, encode_request, parse_head
from stanch.demo.load.meter import LoadMeter
from stanch.demo.load.plan import LoadPlan, LoadPlanError, Traffic, from_json, to_json
from stanch.demo.load.report import Report, Tally, from_line, percentile, to_line


class Recorder(BaseHTTPRequestHandler):
    """Answers 200, or 500 for /broken, and records what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str, str]]] = []
    connections: ClassVar[set[tuple[str, int]]] = set()

    def do_GET(self) -> None:
        self.answer("")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def answer(self, body: str) -> None:
        self.asked.append((self.command, self.path, body))
        self.connections.add(self.client_address)
        self.send_response(500 if self.path == "/broken" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments: object) -> None:
        """Stay silent."""


@pytest.fixture
def server() -> Iterator[str]:
    """A real HTTP server; gives its "HOST:PORT"."""
    Recorder.asked.clear()
    Recorder.connections.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as made:
        made.daemon_threads = True
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


def run_until(meter: LoadMeter, enough: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not enough() and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    meter.stop()


def test_requests_arrive_as_planned_and_are_counted(server: str) -> None:
    """Each service gets its own requests, numbers filled in, over connections that are kept."""
    orders = Traffic("shop", 1800, (server,), "POST", "/orders", '{"customer": {n}}', 10)
    pages = Traffic("catalog", 600, (server,), "GET", "/products/{n}", numbers=10)
    meter = LoadMeter(LoadPlan((orders, pages), report_every_s=0.2))
    run_until(meter, lambda: meter.total().answered_count >= 60)
    total = meter.total()
    assert total.answered_count >= 60
    assert total.failed_count == 0
    assert total.p50_ms > 0
    kinds = Counter(method for method, _, _ in Recorder.asked)
    assert kinds["POST"] == pytest.approx(3 * kinds["GET"], abs=3)
    numbers = {json.loads(body)["customer"] for method, _, body in Recorder.asked if body}
    assert numbers <= set(range(10))
    assert len(numbers) > 1
    assert len(Recorder.connections) < len(Recorder.asked)


def test_errors_of_the_server_count_as_failed(server: str) -> None:
    """An answer of 500 is a failed request, not an answered one."""
    broken = Traffic("shop", 3000, (server,), "GET", "/broken")
    meter = LoadMeter(LoadPlan((broken,), report_every_s=0.2))
    run_until(meter, lambda: meter.total().failed_count >= 10)
    assert meter.total().failed["shop"] >= 10
    assert meter.total().answered_count == 0


def test_a_dead_node_is_passed_over(server: str) -> None:
    """With one of two nodes dead the other takes all requests and no user sees a failure."""
    (dead,) = free_addresses(1)
    meter = LoadMeter(
        LoadPlan((Traffic("shop", 3000, (dead, server), "GET", "/"),), report_every_s=0.2)
    )
    run_until(meter, lambda: meter.total().answered_count >= 30)
    assert meter.total().answered["shop"] >= 30
    assert meter.total().failed_count == 0


def test_recent_and_total_add_up(server: str) -> None:
    """What `recent` gives call by call adds up to `total`."""
    meter = LoadMeter(LoadPlan((Traffic("shop", 3000, (server,), "GET", "/"),), 0.1))
    seen = 0
    deadline = time.monotonic() + 30
    while seen < 20 and time.monotonic() < deadline:
        threading.Event().wait(0.1)
        seen += meter.recent().answered_count
    meter.stop()
    seen += meter.recent().answered_count
    assert seen == meter.total().answered_count >= 20


def test_the_generator_ends_with_its_parent() -> None:
    """When its standard input closes, as when its parent dies, the generator ends."""
    (nobody,) = free_addresses(1)
    plan = to_json(LoadPlan((Traffic("shop", 60, (nobody,), "GET", "/"),)))
    done = subprocess.run(
        [sys.executable, "-m", "stanch.demo.load.generator"],
        input=plan + "\n",
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"traffic": [], "report_every_s": 1}'])
def test_a_bad_plan_is_one_sentence(text: str) -> None:
    """A plan that is no plan ends the generator with status 2 and a sentence."""
    done = subprocess.run(
        [sys.executable, "-m", "stanch.demo.load.generator"],
        input=text + "\n",
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("stanch.demo.load: ")
    assert "Traceback" not in done.stderr


def test_plans_and_reports_survive_the_pipe() -> None:
    """A plan, and a report, come out of their JSON as they went in."""
    plan = LoadPlan((Traffic("shop", 60.0, ("127.0.0.1:1",), "POST", "/", '{"n": {n}}', 7),), 0.5)
    assert from_json(to_json(plan)) == plan
    report = Report(1.5, Counter(shop=3), Counter(shop=1), [1.0, 2.5])
    assert from_line(to_line(report)) == report


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"per_minute": 0}, "expected more than 0"),
        ({"nodes": ()}, "at least one HOST:PORT"),
        ({"numbers": 0}, "expected 1 or more"),
    ],
)
def test_impossible_traffic_is_refused(change: dict[str, object], said: str) -> None:
    """Traffic that cannot be sent is refused when it is made, with what was expected."""
    good = {"service": "a", "per_minute": 1, "nodes": ("h:1",), "method": "GET", "path": "/"}
    with pytest.raises(LoadPlanError, match=said):
        Traffic(**{**good, **change})  # type: ignore[arg-type]  # wrong on purpose


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_shares_are_exact_over_a_round(weights: list[int]) -> None:
    """Over as many requests as the weights add up to, each service gets exactly its share."""
    traffic = [
        Traffic(f"s{number}", weight, ("h:1",), "GET", "/") for number, weight in enumerate(weights)
    ]
    wheel = ShareWheel(traffic)
    dealt = Counter(wheel.next().service for _ in range(sum(weights)))
    assert dealt == Counter({f"s{number}": weight for number, weight in enumerate(weights)})


def test_an_ejected_node_waits_its_time() -> None:
    """A node that refused is left out for its time, then comes back; never are all left out."""
    ring = Ring(["a", "b"])
    ring.eject("a", now=10.0)
    assert ring.candidates(10.1) == ["b"]
    assert ring.candidates(10.2) == ["b"]
    assert sorted(ring.candidates(10.0 + EJECT_SECONDS)) == ["a", "b"]
    ring.eject("a", now=20.0)
    ring.eject("b", now=20.0)
    assert sorted(ring.candidates(20.1)) == ["a", "b"]


@pytest.mark.parametrize(
    "head",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 abc\r\nContent-Length: 1\r\n\r\n",
    ],
)
def test_strange_answers_are_errors(head: bytes) -> None:
    """An answer that cannot be read to its end is an AnswerError."""
    with pytest.raises(AnswerError):
        parse_head(head)


def test_connection_close_is_obeyed() -> None:
    """A connection is kept unless the node says that it closes it."""
    assert parse_head(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n") == (200, 3, True)
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: Close\r\n\r\n"
    assert parse_head(closing) == (200, 3, False)


def test_a_request_is_framed_by_its_length() -> None:
    """A body goes with its length in bytes, and a GET goes without."""
    assert encode_request("h:1", "POST", "/a", "é").endswith(b"Content-Length: 2\r\n\r\n\xc3\xa9")
    assert b"Content-Length" not in encode_request("h:1", "GET", "/a", "")


def test_percentiles_are_of_the_ordered_values() -> None:
    """The median and the 99th percentile of 1..100 are read off, and nothing gives 0."""
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (51.0, 100.0)
    assert Tally().measure(0.0).per_minute == 0.0
    assert Tally().measure(1.0).p99_ms == 0.0


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for a condition, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_drained_node_gets_nothing_until_it_is_restored() -> None:
    """Drained nodes are passed over, unless all of them are drained."""
    ring = Ring(["a", "b", "c"])
    ring.drain("b")
    ring.drain("elsewhere")
    assert all("b" not in ring.candidates(0.0) for _ in range(6))
    ring.eject("b", 0.0)
    ring.restore("b")
    assert any("b" in ring.candidates(0.0) for _ in range(3))
    for node in "abc":
        ring.drain(node)
    assert sorted(ring.candidates(0.0)) == ["a", "b", "c"]


def test_a_running_generator_is_told_to_drain_and_restore(server: str) -> None:
    """Requests to a node stop when it is drained, and come again when it is restored."""
    (other,) = free_addresses(1)
    traffic = Traffic("shop", 3000.0, (server, other), "GET", "/", "")
    meter = LoadMeter(LoadPlan((traffic,), report_every_s=0.1))
    try:
        wait_for(lambda: len(Recorder.asked) > 10)
        meter.drain(server)
        # Nobody listens at the other one, so requests fail from now on.
        wait_for(lambda: meter.total().failed_count > 20)
        before = len(Recorder.asked)
        wait_for(lambda: meter.total().failed_count > 60)
        assert len(Recorder.asked) - before < 5
        meter.restore(server)
        wait_for(lambda: len(Recorder.asked) > before + 20)
    finally:
        meter.stop()

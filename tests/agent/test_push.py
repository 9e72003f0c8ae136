"""Push: what is sent, what a failure does, and that nothing piles up."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from stanch.agent.push import LONGEST_PAUSE_S, Pusher, PushError, PushOptions, post_once
from stanch.profile import parse
from tests.agent.hosts import Runs, functions, runs_directory, wait_for


class Receiver:
    """A real HTTP server that keeps what it is sent and answers with `status`."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 204
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append((self.path, dict(self.headers), body))
                self.send_response(receiver.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/push?x=1"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def pusher(url: str, taken: bytes = b"profile") -> Pusher:
    options = PushOptions(url, 15.0, token="secret", service="caf\u00e9", instance="host:1")
    return Pusher(options, take=lambda: taken, uniform=lambda: 0.5)


def test_a_push_as_documented(receiver: Receiver) -> None:
    """One POST with the headers of docs/settings.md and the profile as its body."""
    pushing = pusher(receiver.url)
    pushing.push()
    ((path, headers, body),) = receiver.received
    assert (path, body) == ("/push?x=1", b"profile")
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["X-Stanch-Service"].encode("latin-1").decode() == "caf\u00e9"
    assert headers["X-Stanch-Instance"] == "host:1"
    assert headers["X-Stanch-Pid"].isdigit()
    memory = dict(part.split("=") for part in headers["X-Stanch-Memory"].split())
    assert 1e6 < int(memory["rss"]) < 1e10
    assert memory.keys() <= {"rss", "limit", "working_set"}
    assert (pushing.stats.sent, pushing.stats.dropped) == (1, 0)


def test_failures_back_off_and_are_counted(receiver: Receiver) -> None:
    """Each failure doubles the pause to its bound, and drops one profile; a success resets it."""
    pushing = pusher(receiver.url)
    assert pushing.pause_s() == 15.0
    receiver.status = 503
    for pause_s in (30.0, 60.0, 120.0, 240.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S):
        pushing.push()
        assert pushing.pause_s() == pause_s
    assert (pushing.stats.sent, pushing.stats.dropped) == (0, 6)
    assert "answered 503" in str(pushing.stats.last_error)
    receiver.status = 200
    pushing.push()
    assert pushing.pause_s() == 15.0
    assert pushing.stats.last_error is None


def test_jitter_stays_within_a_tenth() -> None:
    """The pause varies by a tenth either way."""
    options = PushOptions("http://127.0.0.1:1/", 15.0)
    earliest = Pusher(options, lambda: b"", uniform=lambda: 0.0)
    latest = Pusher(options, lambda: b"", uniform=lambda: 1.0)
    assert earliest.pause_s() == pytest.approx(13.5)
    assert latest.pause_s() == pytest.approx(16.5)


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    """A redirect is a refusal: the token does not go where somebody else points."""
    receiver.status = 307
    with pytest.raises(PushError, match="answered 307"):
        post_once(receiver.url, {"Authorization": "Bearer secret"}, b"x")
    assert len(receiver.received) == 1


def test_nobody_there_and_nothing_to_take(receiver: Receiver) -> None:
    """A refused connection and a profile that cannot be taken are dropped and counted alike."""
    receiver.close()
    away = pusher(receiver.url)
    away.push()

    def fail() -> bytes:
        raise RuntimeError("sampling is off")

    empty = Pusher(PushOptions(receiver.url, 15.0), take=fail)
    empty.push()
    assert (away.stats.dropped, empty.stats.dropped) == (1, 1)
    assert empty.stats.last_error == "sampling is off"


def test_pause_ends_the_thread_and_resume_starts_one() -> None:
    """No thread of ours is left while a fork happens, and one is there after it."""
    pushing = pusher("http://127.0.0.1:1/")

    def names() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "stanch-push"]

    pushing.start()
    assert names() == ["stanch-push"]
    pushing.pause()
    assert names() == []
    pushing.resume()
    assert names() == ["stanch-push"]
    pushing.close()
    assert names() == []


def test_a_run_pushes_its_heap(receiver: Receiver) -> None:
    """Each process of a run, forked ones too, pushes a profile that names what it holds."""
    with runs_directory() as runs:
        pushes_of_parent_and_child(runs, receiver)


def pushes_of_parent_and_child(runs: Runs, receiver: Receiver) -> None:
    host = runs.script(
        "host.py",
        """
        import os, sys
        def hold():
            return [bytes(2000) for _ in range(5000)]
        kept = hold()
        pid = os.fork()
        sys.stdin.read()
        """,
    )
    options = ("--push", receiver.url, "--push-every", "1s", "--service", "shop")
    with runs.running(*options, "--", sys.executable, host):
        wait_for(lambda: len({h["X-Stanch-Pid"] for _, h, _ in receiver.received}) == 2, runs)
    assert {headers["X-Stanch-Service"] for _, headers, _ in receiver.received} == {"shop"}
    for _, _, body in receiver.received:
        assert "hold" in functions(parse(body))

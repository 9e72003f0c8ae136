"""Conditions, alarms and local receivers that the tests of alarms share."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from stanch.alert import Condition
from stanch.alert.condition import fingerprint_of
from stanch.detect import Stage

MIB = 1024.0 * 1024.0


def leak(
    service: str = "shop", cause: str = "shop/sessions.py remember", stage: Stage = "confirmed"
) -> Condition:
    """A leak as the desk hears of it."""
    return Condition(
        fingerprint=fingerprint_of(service, cause),
        name="StanchLeak",
        service=service,
        stage=stage,
        cause=cause,
        title=f"leak ({stage}) in {service}: {cause}",
        text="1.10 MiB/s, at its limit in 47 s.\nIt does not slow down.",
        kind="leak",
        rate=1.1 * MIB,
        death_unix=1.7e9 + 47,
        first_to_die=f"{service}-2",
        instances=(f"{service}-1", f"{service}-2"),
    )


@dataclass(frozen=True)
class Posted:
    """One request that a local receiver got."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Hook:
    """A local webhook. `answer` gives the status of each request; None hangs up instead."""

    url: str
    posted: list[Posted] = field(default_factory=list)
    answer: Callable[[Posted], int | None] = field(default=lambda _posted: 200)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, count: int, seconds: float = 60.0) -> None:
        """Wait until so many requests have come."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.posted) >= count, seconds)

    def keys(self) -> list[str]:
        """The key of each message, in the order of their coming."""
        return [posted.body["key"] for posted in self.posted]


@contextmanager
def webhook(port: int = 0) -> Iterator[Hook]:
    """Serve a webhook on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted = Posted(self.path, dict(self.headers), json.loads(body))
            with hook.arrived:
                hook.posted.append(posted)
                hook.arrived.notify_all()
            status = hook.answer(posted)
            if status is None:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that was killed is no news."""

    server = Server(("127.0.0.1", port), Handler)
    hook = Hook(f"http://127.0.0.1:{server.server_port}/hook")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)

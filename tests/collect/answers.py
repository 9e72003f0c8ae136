"""Real HTTP servers for tests: what a path answers is a table, on a TCP port or a unix socket."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from stanch.profile import Function, Line, Location, Profile, Sample, ValueType, encode


@dataclass(frozen=True)
class Answer:
    """Status, body and headers of an answer; `pause` is called before the body is sent."""

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    pause: Callable[[], object] | None = None


@dataclass
class Served:
    """A running server: where it is, what it answers by path, what it was asked.

    A path with its query goes before the path alone.
    """

    url: str
    answers: dict[str, Answer]
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)


class _Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def serving(answers: dict[str, Answer], unix_path: Path | None = None) -> Iterator[Served]:
    """Serve the answers until the end of the block; paths that are not in them are 404."""
    served = Served("", answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.asked.append(self.path)
            served.tokens.append(self.headers.get("Authorization", ""))
            plain = served.answers.get(self.path.partition("?")[0], Answer(b"", 404))
            answer = served.answers.get(self.path, plain)
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            try:
                if answer.pause is not None:
                    self.wfile.flush()
                    answer.pause()
                self.wfile.write(answer.body)
            except OSError:
                self.close_connection = True

        def address_string(self) -> str:
            return "test"

        def log_message(self, *_: object) -> None:
            pass

    server: socketserver.BaseServer
    if unix_path is not None:
        server = _Unix(str(unix_path), Handler)
        served.url = f"unix:{unix_path}"
    else:
        tcp = _Tcp(("127.0.0.1", 0), Handler)
        server = tcp
        served.url = f"http://127.0.0.1:{tcp.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


HEAP_TYPES = (
    ValueType("alloc_objects", "count"),
    ValueType("alloc_space", "bytes"),
    ValueType("inuse_objects", "count"),
    ValueType("inuse_space", "bytes"),
)


def location(function: str, file: str, line: int) -> Location:
    """A location of one line."""
    return Location(lines=(Line(Function(function, filename=file), line),))


REMEMBER = (
    location("remember", "/srv/app/sessions.py", 41),
    location("handle", "/srv/app/handlers.py", 12),
)


def python_heap(
    live: int, *, births: tuple[int, ...] = (), age_s: float = 60.0, pid: int = 10
) -> bytes:
    """A heap profile as the agent gives it: one stack with so many bytes, in bands of birth.

    Each band is split over two routes, which a look adds up again.
    """
    samples = [Sample(REMEMBER, (live // 50, 2 * live, 0, 0))]
    for band, size in enumerate(births or (live,)):
        label = (("birth", 5 * band, "seconds"),)
        for route, part in (("GET /a", size // 4), ("GET /b", size - size // 4)):
            samples.append(
                Sample(REMEMBER, (0, 0, part // 100, part), (("route", route),), num_labels=label)
            )
    return encode(
        Profile(
            sample_types=HEAP_TYPES,
            samples=tuple(samples),
            period_type=ValueType("space", "bytes"),
            period=131_072,
            duration_nanos=int(age_s * 1e9),
            comments=("stanch=0.1.0", "service=shop", f"pid={pid}", "requests=1200"),
        )
    )


def go_heap(live: int) -> bytes:
    """A heap profile as Go gives it: no births, no comments."""
    stack = (location("main.remember", "/src/ledger/ledger.go", 12),)
    sample = Sample(stack, (live // 50, 2 * live, live // 100, live))
    return encode(Profile(sample_types=HEAP_TYPES, samples=(sample,), period=524_288))


def counts(kind: str, count: int) -> bytes:
    """A threads profile: so many at one stack."""
    labels = (("kind", kind),) if kind != "goroutine" else ()
    sample = Sample(REMEMBER, (count,), labels=labels)
    return encode(Profile(sample_types=(ValueType("goroutine", "count"),), samples=(sample,)))


METRICS = b"""\
# HELP process_resident_memory_bytes Resident memory.
# TYPE process_resident_memory_bytes gauge
stanch_info{version="0.1.0",service="shop",instance="vm:10",pid="10",python="3.11.7"} 1
process_resident_memory_bytes{pid="10"} 5.2e+07
stanch_memory_limit_bytes 167772160
stanch_memory_working_set_bytes 54000000
stanch_live_heap_bytes{pid="10"} 30000000
stanch_requests_total{pid="10"} 1234
stanch_requests_in_flight{pid="10"} 3
"""


def python_answers(live: int = 1_000_000) -> dict[str, Answer]:
    """What an agent answers."""
    return {
        "/metrics": Answer(METRICS),
        "/debug/pprof/heap": Answer(python_heap(live)),
        "/debug/pprof/goroutine": Answer(counts("task", 7)),
    }

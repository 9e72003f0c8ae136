"""Where reports get profiles from: files, HTTP servers and unix sockets, and how that can fail."""

import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.command import stanch
from tests.profile.golden import GOLDEN

HEAP = GOLDEN / "go1.26" / "heap.pb.gz"
TOP = stanch("top", HEAP).out


@dataclass
class Requests:
    """What a server was asked for."""

    lines: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def _handler(requests: Requests) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Serves the golden heap profile, and what goes wrong in practice under other paths."""

        def do_GET(self) -> None:
            requests.lines.append(self.path)
            requests.tokens.append(self.headers["Authorization"])
            path = self.path.partition("?")[0]
            if path == "/secret" and self.headers["Authorization"] != "Bearer s3cret":
                self.send_error(401)
            elif path == "/login":
                self.answer(b"<!DOCTYPE html><title>Log in</title>")
            elif path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/debug/pprof/heap")
                self.end_headers()
            elif path == "/missing":
                self.send_error(404)
            else:
                self.answer(HEAP.read_bytes())

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in http.server
            pass

        def address_string(self) -> str:
            return "client"

    return Handler


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def requests() -> Requests:
    """What the server of the test was asked for."""
    return Requests()


@pytest.fixture
def url(requests: Requests) -> Iterator[str]:
    """The address of an HTTP server on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(requests))
    with _serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def unix_socket(requests: Requests, tmp_path: Path) -> Iterator[Path]:
    """The path of a unix socket on which an HTTP server listens."""
    path = tmp_path / "app.sock"
    with _serving(_UnixServer(str(path), _handler(requests))):
        yield path


@pytest.mark.parametrize(
    ("suffix", "asked"),
    [
        ("", "/debug/pprof/heap"),
        ("/", "/debug/pprof/heap"),
        ("/debug/pprof/allocs", "/debug/pprof/allocs"),
        ("/prefix/heap?gc=1", "/prefix/heap?gc=1"),
        ("/?gc=1", "/debug/pprof/heap?gc=1"),
    ],
)
def test_a_url_is_asked(url: str, requests: Requests, suffix: str, asked: str) -> None:
    """Without a path it is the heap profile's; a path and a query are kept."""
    outcome = stanch("top", url + suffix)
    assert (outcome.code, outcome.out, outcome.err) == (0, TOP, "")
    assert requests.lines == [asked]


@pytest.mark.parametrize(
    ("suffix", "asked"),
    [("", "/debug/pprof/heap"), ("/debug/pprof/allocs?gc=1", "/debug/pprof/allocs?gc=1")],
)
def test_a_unix_socket_is_asked(
    unix_socket: Path, requests: Requests, suffix: str, asked: str
) -> None:
    """The socket's path ends where the socket is; what follows is the path to ask for."""
    outcome = stanch("top", f"unix:{unix_socket}{suffix}")
    assert (outcome.code, outcome.out, outcome.err) == (0, TOP, "")
    assert requests.lines == [asked]


@pytest.mark.parametrize(
    ("suffix", "asked"),
    [
        ("/debug/pprof/profile", "/debug/pprof/profile?seconds=3"),
        ("/debug/pprof/heap?gc=1", "/debug/pprof/heap?gc=1&seconds=3"),
    ],
)
def test_seconds_are_passed_on(url: str, requests: Requests, suffix: str, asked: str) -> None:
    """-seconds is the process's to count; the time-out is longer by as much."""
    assert stanch("top", "-seconds=3", "-timeout=5", url + suffix).code == 0
    assert requests.lines == [asked]


def test_files_and_urls_are_compared(url: str) -> None:
    """Each source of a diff may be either; equal profiles have no difference."""
    assert stanch("diff", HEAP, url).out == stanch("diff", HEAP, HEAP).out


def test_the_token_is_sent(url: str, requests: Requests, tmp_path: Path) -> None:
    """--token-file gives the token, without the newline at its end."""
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    assert stanch("top", "--token-file", token, f"{url}/secret").out == TOP
    assert requests.tokens == ["Bearer s3cret"]


def _closed_port() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/secret", "the token is missing or wrong"),
        ("/login", "looks like an HTML page"),
        ("/moved", "redirect (302)"),
        ("/missing", "404"),
    ],
)
def test_a_wrong_answer_is_told(url: str, path: str, said: str) -> None:
    """The error names the source and what came instead of a profile."""
    outcome = stanch("top", url + path)
    assert (outcome.code, outcome.out) == (1, "")
    assert url + path in outcome.err
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (lambda _: _closed_port(), 1, "cannot connect"),
        (lambda _: "http://", 2, "is not a target"),
        (lambda _: "http://[::1", 2, "is not a URL"),
        (lambda directory: f"unix:{directory}/none.sock", 1, "cannot connect"),
        (lambda directory: f"{directory}/none.pb.gz", 1, "No such file"),
        (lambda directory: str(directory), 1, "Is a directory"),
        (lambda _: "heap\0", 1, "cannot read heap"),
        (lambda _: str(GOLDEN / "go1.26" / "heap_legacy.txt"), 1, "legacy text format"),
    ],
    ids=["refused", "no host", "no url", "no socket", "no file", "directory", "nul", "legacy"],
)
def test_a_source_that_is_not_there_is_told(
    make: Callable[[Path], str], code: int, said: str, tmp_path: Path
) -> None:
    """Each kind of missing source has one sentence, and the exit code tells wrong use apart."""
    outcome = stanch("top", make(tmp_path))
    assert (outcome.code, outcome.out) == (code, "")
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_files_are_read_without_the_extra_and_urls_say_what_to_install() -> None:
    """A bare install reports on files; for a URL it names the extra with the HTTP client."""
    script = (
        "import sys; sys.modules['httpx'] = None\n"
        "from tests.cli.command import stanch\n"
        "outcome = stanch('top', sys.argv[1])\n"
        "print(outcome.out, outcome.err, end='')\n"
        "sys.exit(outcome.code)"
    )

    def run(source: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script, str(source)],
            cwd=GOLDEN.parent.parent,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert run(HEAP).stdout.startswith("File: golden")
    outcome = run("http://127.0.0.1:1")
    assert (outcome.returncode, outcome.stderr) == (2, "")
    assert "pip install 'stanch[cli]'" in outcome.stdout

"""`stanch push` to a real server: kept, known already, refused, busy, away."""

import http.server
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stanch.collect.received import Receiver
from stanch.server.configuration import ServerConfiguration
from stanch.server.pages.application import make_application
from stanch.server.tokens import Tokens
from stanch.store.history import TimeRange
from stanch.store.sqlstore import SqlStore, open_store
from tests.cli.command import stanch
from tests.cli.watched import STANCH
from tests.server.serving import serving_application
from tests.store.pprofs import heap_bytes

pytest.importorskip("chdb", reason="needs the extra stanch[server]")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    """A store of chDB."""
    with open_store("chdb", tmp_path_factory.mktemp("store")) as opened:
        yield opened


@contextmanager
def served(store: SqlStore, directory: Path, tokens: Tokens | None = None) -> Iterator[str]:
    """A server over the store."""
    receiver = Receiver(store, time.time)
    application = make_application(store, receiver, ServerConfiguration(directory), tokens)
    with serving_application(application) as url:
        yield url


@pytest.fixture
def heap(tmp_path: Path) -> Path:
    """A heap profile in a file."""
    path = tmp_path / "heap.pb.gz"
    path.write_bytes(heap_bytes({"remember": 5000}, time_s=time.time()))
    return path


def test_profiles_are_kept_once(store: SqlStore, tmp_path: Path, heap: Path) -> None:
    """A line for each file; the same one again is there already; standard input works too."""
    with served(store, tmp_path) as url:
        arguments = ["push", "--url", url, "--service", "Grüße", "--instance", "g-1"]
        arguments += ["--release", "v2"]
        outcome = stanch(*arguments, heap, heap)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.splitlines() == [
            f"{heap}: heap of Grüße g-1: kept",
            f"{heap}: heap of Grüße g-1: was there already",
        ]
        other = heap_bytes({"remember": 6000}, time_s=time.time())
        command = [*STANCH, *arguments, "-"]
        done = subprocess.run(command, input=other, capture_output=True, timeout=60, check=True)
        assert done.stdout.decode() == "-: heap of Grüße g-1: kept\n"
    store.flush()
    now_s = time.time()
    within = TimeRange(now_s - 600, now_s + 60)
    assert [row.live_bytes for row in store.history.profiles("Grüße", within)] == [6000.0, 5000.0]
    assert [life.release for life in store.history.lives("Grüße", within)] == ["v2"]


def test_what_is_refused_is_said_and_the_others_go(
    store: SqlStore, tmp_path: Path, heap: Path
) -> None:
    """Exit code 1, one sentence for what is no profile, and the next file is sent."""
    broken = tmp_path / "page.html"
    broken.write_text("<html>Log in</html>")
    with served(store, tmp_path) as url:
        outcome = stanch("push", "--url", url, "--service", "mixed", broken, heap)
    assert outcome.code == 1
    assert f"{heap}: heap of mixed mixed: kept" in outcome.out
    assert outcome.err.startswith(f"stanch: {broken}: refused with 400: ")
    assert "looks like an HTML page" in outcome.err


def test_a_token_is_needed_and_its_role_counts(store: SqlStore, tmp_path: Path, heap: Path) -> None:
    """Without, or with one that may only view: exit code 2 and the server's sentence."""
    tokens = Tokens(tmp_path)
    files = {}
    for role in ("push", "view"):
        files[role] = tmp_path / role
        files[role].write_text(tokens.make(role, role) + "\n")
    with served(store, tmp_path, tokens) as url:
        arguments = ["push", "--url", url, "--service", "shop", heap]
        nothing = stanch(*arguments)
        wrong = stanch(*arguments, "--token-file", files["view"])
        right = stanch(*arguments, "--token-file", files["push"])
    assert (nothing.code, "refused with 401" in nothing.err) == (2, True)
    assert (wrong.code, "this token is for view" in wrong.err) == (2, True)
    assert right.code == 0
    outcome = stanch(
        *arguments[:1], "--url", "http://10.1.2.3:1", *arguments[3:], "--token-file", heap
    )
    assert (outcome.code, "is not encrypted" in outcome.err) == (2, True)


@contextmanager
def answering(statuses: list[int]) -> Iterator[tuple[str, list[int]]]:
    """A server that gives these answers in turn, the last one for ever; what it has given."""
    given: list[int] = []

    class Busy(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status = statuses[min(len(given), len(statuses) - 1)]
            given.append(status)
            body = b'{"kind": "heap", "service": "s", "instance": "i", "taken": true}'
            body = body if status == 200 else b"no room"
            self.send_response(status)
            self.send_header("Retry-After", "1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", given
        finally:
            server.shutdown()
            thread.join()


def test_a_server_that_is_full_or_busy_is_asked_again(heap: Path) -> None:
    """As late as it says, within a bound; then it is refused with its word."""
    with answering([503, 429, 200]) as (url, given):
        outcome = stanch("push", "--url", url, "--service", "s", heap)
        assert (outcome.code, given) == (0, [503, 429, 200])
    with answering([503]) as (url, given):
        outcome = stanch("push", "--url", url, "--service", "s", "--retry-for", "1500ms", heap)
        assert outcome.code == 1
        assert "refused with 503: no room" in outcome.err
        assert given in ([503], [503, 503])
    outcome = stanch("push", "--url", url, "--service", "s", "--retry-for", "1s", heap)
    assert (outcome.code, "cannot reach" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--url", "ftp://h", "--service", "s", "x"], "--url: "),
        (["--service", "s", "/no/such/file"], "cannot read /no/such/file"),
        (["--service", "s", "--retry-for", "soon", "x"], "--retry-for: "),
    ],
)
def test_a_wrong_use_is_one_sentence(arguments: list[str], complaint: str) -> None:
    """Exit code 2."""
    outcome = stanch("push", *arguments)
    assert (outcome.code, complaint in outcome.err) == (2, True)
    assert len(outcome.err.splitlines()) == 1

"""Real servers under `stanch run`: each worker has its own table, and requests are counted."""

import re
import signal
import sys
import urllib.request
from collections.abc import Iterator

import pytest

from tests.agent.hosts import Runs, ask, functions, heap, runs_directory, wait_for

WSGI = """
    KEPT = []
    def hold_for_request():
        KEPT.append([bytes(2000) for _ in range(300)])
    def app(environ, start_response):
        hold_for_request()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]
"""
ASGI = """
    KEPT = []
    def hold_for_request():
        KEPT.append([bytes(2000) for _ in range(300)])
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        hold_for_request()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
"""
REQUESTS = 40


@pytest.fixture
def runs() -> Iterator[Runs]:
    with runs_directory() as made:
        yield made


def get(port: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
        body: bytes = answer.read()
        return body


def bound_port(runs: Runs, pattern: str) -> str:
    found: list[str] = wait_for(lambda: re.findall(pattern, runs.output()), runs)
    return found[0]


def requests_counted(runs: Runs, first_pid: int) -> float:
    """Return the sum over all processes, as the first of them tells it."""
    first = next(path for path in runs.sockets() if path.stem == str(first_pid))
    text = ask(first, "/metrics").decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if _counts(line))


def _counts(line: str) -> bool:
    return line.startswith("stanch_requests_total{")


@pytest.mark.parametrize(
    "options",
    [("-w", "2"), ("-w", "2", "--preload"), ("-w", "2", "-k", "gthread", "--threads", "2")],
)
def test_gunicorn(runs: Runs, options: tuple[str, ...]) -> None:
    """Pre-fork, preloaded and threaded workers are watched, counted, and end as they always do."""
    runs.script("served.py", WSGI)
    command = (sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", "--no-control-socket")
    with runs.running("--", *command, *options, "served:app") as process:
        port = bound_port(runs, r"Listening at: http://127.0.0.1:(\d+)")
        wait_for(lambda: len(runs.sockets()) == 3, runs)
        assert {get(port) for _ in range(REQUESTS)} == {b"ok"}
        wait_for(lambda: requests_counted(runs, process.pid) == REQUESTS, runs)
        assert len(runs.tables()) == 3
        seen = [functions(heap(path)) for path in runs.sockets() if path.stem != str(process.pid)]
        assert any("hold_for_request" in names for names in seen)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert runs.left() == [], runs.output()
    assert "stanch" not in runs.output()
    assert "Warning" not in runs.output()


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_uvicorn(runs: Runs, options: tuple[str, ...]) -> None:
    """One process or several: each is watched and counted, and its end is as ever."""
    runs.script("served.py", ASGI)
    command = (sys.executable, "-m", "uvicorn", "--port", "0", *options, "served:app")
    processes = 1 if not options else 3
    with runs.running("--", *command) as process:
        port = bound_port(runs, r"Uvicorn running on http://127.0.0.1:(\d+)")
        wait_for(lambda: len(runs.sockets()) >= processes, runs)
        wait_for(lambda: runs.output().count("startup complete") >= max(processes - 1, 1), runs)
        assert {get(port) for _ in range(REQUESTS)} == {b"ok"}
        wait_for(lambda: requests_counted(runs, process.pid) == REQUESTS, runs)
        assert any("hold_for_request" in functions(heap(path)) for path in runs.sockets())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == (0 if options else -signal.SIGTERM), runs.output()
        wait_for(lambda: not runs.left(), runs)
    assert "stanch" not in runs.output()


def test_requests_off(runs: Runs) -> None:
    """With --requests off the application that the server calls is the host's own."""
    runs.script(
        "served.py",
        """
        def app(environ, start_response):
            start_response("200 OK", [])
            return [str("stanch.counted" in environ).encode()]
        """,
    )
    command = (sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", "--no-control-socket")
    for choice, answer in (("off", b"False"), ("auto", b"True")):
        with runs.running("--requests", choice, "--", *command, "served:app"):
            port = bound_port(runs, r"Listening at: http://127.0.0.1:(\d+)")
            assert get(port) == answer


def test_celery(runs: Runs) -> None:
    """A celery worker with its pool of forked processes works off its tasks under the agent."""
    broker = runs.directory.parent / "broker"
    broker.mkdir()
    runs.script(
        "tasks.py",
        f"""
        from celery import Celery
        app = Celery("tasks", broker="filesystem://", backend="file://{broker}")
        app.conf.broker_transport_options = {{
            "data_folder_in": {str(broker)!r}, "data_folder_out": {str(broker)!r},
            "control_folder": {str(broker)!r},
        }}
        KEPT = []
        @app.task
        def hold_for_task():
            KEPT.append([bytes(2000) for _ in range(2000)])
            return 42
        """,
    )
    worker = ("celery", "-A", "tasks", "worker", "-c", "2", "-l", "INFO")
    with runs.running("--", sys.executable, "-m", *worker) as process:
        wait_for(lambda: "ready." in runs.output(), runs)
        wait_for(lambda: len(runs.sockets()) == 3, runs)
        call = "import tasks; print(tasks.hold_for_task.delay().get(timeout=40))"
        answer = runs.finish(sys.executable, "-c", call)
        assert answer.stdout == "42\n", answer.stderr + runs.output()
        assert any("hold_for_task" in functions(heap(path)) for path in runs.sockets())
        assert len(runs.tables()) == 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, runs.output()
    assert "stanch:" not in runs.output()

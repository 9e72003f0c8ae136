"""A worker asked over the endpoint to end: gracefully, one by one, and only workers."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from stanch.agent.ending import END
from stanch.demo.host.ports import free_addresses
from tests.agent.serving import Reply, get

ASKING = {"X-Stanch-Recycle": "1"}
# Answers with its pid, after as many seconds as it is asked.
APPS = """
import asyncio, os, time

def wsgi(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"] or 0))
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    await asyncio.sleep(float(scope["query_string"] or 0))
    body = str(os.getpid()).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""
GUNICORN = ["gunicorn", "-w", "2", "--worker-class", "gthread", "--threads", "4", "-b"]


@dataclass
class Host:
    """A server under `stanch run`."""

    address: str
    profiles: str
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, seconds: float = 0.0) -> int:
        """Send a request that takes so long; return the pid that answered."""
        host, _, port = self.address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        try:
            connection.request("GET", f"/?{seconds:g}")
            answer = connection.getresponse()
            assert answer.status == 200
            return int(answer.read())
        finally:
            connection.close()

    def end(self, pid: int, headers: dict[str, str] | None = None, method: str = "POST") -> Reply:
        """Ask a process to end."""
        return get(self.profiles, f"{END}?pid={pid}", headers or ASKING, method)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition, two minutes at most; errors of connections count as no."""
        deadline = time.monotonic() + 120
        while True:
            try:
                if condition():
                    return
            except (OSError, http.client.HTTPException):
                pass
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def pids(self) -> list[int]:
        """The processes of the run, as the endpoint knows them, when it may be asked."""
        deadline = time.monotonic() + 120
        while (reply := get(self.profiles, "/debug/stanch/processes")).status == 429:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        return [int(each["pid"]) for each in _json(reply)]


def _json(reply: Reply) -> list[dict[str, object]]:
    return list(json.loads(reply.body))


@contextmanager
def hosting(tmp_path: Path, server: list[str], *options: str) -> Iterator[Host]:
    """Run a server; all that it started is killed after the block."""
    (tmp_path / "apps.py").write_text(APPS)
    address, profiles = free_addresses(2)
    if server[0] == "uvicorn":
        host, _, port = address.rpartition(":")
        server = [*server, "--host", host, "--port", port, "apps:asgi"]
    else:
        server = [*server, address, "apps:wsgi"]
    command = [sys.executable, "-m", "stanch.cli.main", "run", "--listen", profiles, *options]
    environ = os.environ | {"PYTHONPATH": str(tmp_path), "STANCH_DIR": str(tmp_path / "run")}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--", sys.executable, "-m", *server],
            cwd=tmp_path,
            env=environ,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        host_of = Host(address, profiles, process, log)
        host_of.until(host_of.ask)
        yield host_of
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.mark.parametrize("server", [GUNICORN, ["uvicorn", "--workers", "2"]], ids=lambda s: s[0])
def test_a_worker_ends_without_losing_a_request(tmp_path: Path, server: list[str]) -> None:
    """Requests in flight are finished, others go to the other worker, and a new one comes."""
    with hosting(tmp_path, server, "--recycle") as host:
        host.until(lambda: len(host.pids()) >= 3)
        before = set(host.pids())
        answers: list[int] = []
        errors: list[Exception] = []

        def client(seconds: float) -> None:
            try:
                answers.append(host.ask(seconds))
            except Exception as error:
                errors.append(error)

        slow = [threading.Thread(target=client, args=(2.0,)) for _ in range(4)]
        for thread in slow:
            thread.start()
        victim = host.ask()
        assert victim in before
        reply = host.end(victim)
        assert reply.status == 200, reply.text
        quick = [threading.Thread(target=client, args=(0.0,)) for _ in range(40)]
        for thread in quick:
            thread.start()
            time.sleep(0.02)
        for thread in (*slow, *quick):
            thread.join(60)
        assert errors == []
        assert len(answers) == 44
        host.until(lambda: victim not in host.pids() and set(host.pids()) - before)
        assert host.process.poll() is None


def test_only_workers_can_be_ended(tmp_path: Path) -> None:
    """Not the arbiter, not a stranger, not by GET, not without the header."""
    with hosting(tmp_path, GUNICORN, "--recycle") as host:
        host.until(lambda: len(host.pids()) == 3)
        worker = host.ask()
        cases = [
            (host.end(host.process.pid), 409, "no gunicorn or uvicorn above it"),
            (host.end(os.getpid()), 404, "this run has"),
            (host.end(worker, method="GET"), 405, "needs POST"),
            (host.end(worker, {"Host": "localhost"}), 403, "x-stanch-recycle: 1 is missing"),
            (get(host.profiles, END, ASKING, "POST"), 404, "pid is ''"),
        ]
        for reply, status, says in cases:
            assert (reply.status, says in reply.text) == (status, True), reply.text
        assert worker in host.pids()


def test_it_is_off_unless_asked_for(tmp_path: Path) -> None:
    """Without --recycle nobody is ended."""
    with hosting(tmp_path, GUNICORN) as host:
        worker = host.ask()
        reply = host.end(worker)
        assert reply.status == 403
        assert "stanch run --recycle" in reply.text


def test_a_server_without_an_arbiter_is_not_ended(tmp_path: Path) -> None:
    """A single uvicorn process has nobody who would start another."""
    with hosting(tmp_path, ["uvicorn"], "--recycle") as host:
        reply = host.end(host.ask())
        assert reply.status == 409
        assert "end it by what started it" in reply.text

"""`stanch watch` on real services: Go with net/http/pprof, and Flask under gunicorn."""

import http.client
import json
import os
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.watched import (
    STANCH,
    build_go,
    events,
    interrupt,
    lines_until,
    running,
    short_directory,
)
from tests.ports import free_ports


def is_confirmation(line: str) -> bool:
    """Whether a JSON line confirms a leak."""
    event = json.loads(line)
    return event["event"] == "finding" and event["finding"]["stage"] == "confirmed"


def test_names_the_line_of_a_leaky_go_service_and_not_its_healthy_twin(tmp_path: Path) -> None:
    """Without agent and metrics: RSS from /proc, the line from the heap profile, exit code 1."""
    program = build_go(tmp_path)
    with running(program, "leaky") as leaky, running(program, "healthy") as healthy:
        assert leaky.stdout is not None
        assert healthy.stdout is not None
        targets = tmp_path / "targets.txt"
        ports = [process.stdout.readline().strip() for process in (leaky, healthy)]
        targets.write_text(
            f"http://127.0.0.1:{ports[0]} service=ledger limit=160MiB\n"
            f"http://127.0.0.1:{ports[1]} service=twin limit=160MiB\n"
        )
        with running(*STANCH, "watch", "--json", "--every", "500ms", targets) as watch:
            lines = lines_until(watch, is_confirmation)
            code, rest = interrupt(watch)
    assert code == 1
    told = events(lines + rest)
    assert [event["event"] for event in (told[0], told[-1])] == ["start", "end"]
    finding = events(lines)[-1]["finding"]
    assert (finding["service"], finding["kind"]) == ("ledger", "leak")
    assert finding["file"].endswith("main.go")
    assert finding["function"] == "main.post"
    source = (Path(__file__).parent / "leaky_go" / "main.go").read_text().splitlines()
    assert "new(entry)" in source[finding["line"] - 1]
    assert finding["rate_bytes_per_second"] > 100_000
    soonest, likely, latest = finding["seconds_to_death"]
    assert 0 < soonest <= likely <= latest
    accused = {
        event["finding"]["service"]
        for event in told
        if event["event"] == "finding" and event["finding"]["stage"] == "confirmed"
    }
    assert accused == {"ledger"}
    rows = [event for event in told if event["event"] == "state"][-1]["targets"]
    assert all(10e6 < row["memory_bytes"] < 10e9 for row in rows)


APP = """
    from flask import Flask
    from orders import place

    app = Flask("shop")

    @app.get("/orders/<int:number>")
    def order(number):
        return str(place(number))
"""
ORDERS = """
    history = []

    def place(number):
        lines = [{"sku": sku, "cents": 100 + sku} for sku in range(10)]
        remember(number, lines)
        return sum(line["cents"] for line in lines)

    def remember(number, lines):
        history.append([f"<tr><td>{number}</td><td>{line}</td></tr>" * 4 for line in lines * 25])
"""


@contextmanager
def load(port: int) -> Iterator[None]:
    """Order without end, some hundred times a second at most."""
    stopping = threading.Event()

    def order() -> None:
        number = 0
        while not stopping.wait(0.005):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                connection.request("GET", f"/orders/{number}")
                connection.getresponse().read()
                number += 1
            except OSError:
                pass  # The server is still starting.
            finally:
                connection.close()

    thread = threading.Thread(target=order)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def test_names_the_line_of_a_leaky_flask_app_under_gunicorn() -> None:
    """`stanch run -- gunicorn` with two workers, watched over its unix socket: line and exit 1."""
    (port,) = free_ports(1)
    gunicorn = (sys.executable, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}")
    with short_directory() as directory:
        (directory / "shop.py").write_text(textwrap.dedent(APP))
        (directory / "orders.py").write_text(textwrap.dedent(ORDERS))
        socket_path = directory / "s"
        command = (*STANCH, "run", "--interval", "131072", "--service", "shop")
        command += ("--listen", f"unix:{socket_path}", "--", *gunicorn)
        environ = os.environ | {"STANCH_DIR": str(directory / "runs")}
        with (
            running(*command, "--no-control-socket", "shop:app", cwd=directory, env=environ) as app,
            load(port),
        ):
            target = f"unix:{socket_path}"
            options = ("--every", "1s", "--limit", "240MiB")
            with running(*STANCH, "watch", *options, target) as watch:
                lines = lines_until(watch, lambda line: "leak (confirmed)" in line)
                code, rest = interrupt(watch)
            app.terminate()
            app.wait(30)
    assert code == 1
    assert "leak (confirmed) in shop: " in lines[-1]
    source = ORDERS.splitlines()
    (number,) = (number for number, text in enumerate(source, 1) if "history.append" in text)
    assert f"orders.py:{number} remember" in lines[-1]
    facts = " ".join(rest)
    assert "a request" in facts
    assert "at its limit in" in facts
    assert "ended after" in rest[-1]

"""The server is one of its own targets: its memory, profile and a leak of its own in its pages."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx

from stanch.profile import parse
from stanch.server.selfwatch import SERVICE, told_to_people
from stanch.server.watch import WatchState
from tests.cli.watch_states import LEAK
from tests.cli.watched import PATIENCE_S, interrupt, lines_until, running

LEAKING = """
import sys, threading, time
kept = []

def remember():
    while True:
        kept.append(bytearray(4_000_000))
        time.sleep(0.5)

threading.Thread(target=remember, daemon=True).start()
from stanch.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def server(data: Path, program: str, *more: str, stanch_dir: Path) -> Iterator[str]:
    """A server that asks its targets twice a second, by its address."""
    command = [sys.executable, "-c", program, "server", *more, "--data", data]
    command += ["--listen", "127.0.0.1:0", "--every", "500ms"]
    environ = {**os.environ, "STANCH_DIR": str(stanch_dir)}
    with running(*command, stderr=sys.stderr, env=environ) as process:
        (line,) = lines_until(process, lambda line: "http://" in line)
        yield line.split()[-1]
        code, _ = interrupt(process)
        assert code == 0


def until(page: str, wanted: Callable[[str], bool]) -> str:
    """The text of a page once it is as wanted."""
    end = time.monotonic() + PATIENCE_S
    while True:
        text = httpx.get(page, timeout=PATIENCE_S).text
        if wanted(text):
            return text
        assert time.monotonic() < end, text[-3000:]
        time.sleep(0.2)


def test_a_server_watches_itself_and_names_its_own_leak(tmp_path: Path) -> None:
    """Memory, what it is made of, requests and the profile are in its store; a line that keeps
    memory in it is a finding. It is no service of anybody's, so the overview goes on to teach."""
    with server(tmp_path / "data", LEAKING, stanch_dir=tmp_path / "run") as url:
        parts = ("remember", "live Python heap", "the store&#39;s engine", "Requests a second")
        until(f"{url}services/{SERVICE}", lambda text: all(part in text for part in parts))
        profile = parse(httpx.get(f"{url}download/{SERVICE}", timeout=PATIENCE_S).content)
        assert any(
            line.function.name == "remember"
            for sample in profile.samples
            for location in sample.locations
            for line in location.lines
        )
        assert "scrape" in until(f"{url}targets", lambda text: SERVICE in text)
        overview = httpx.get(url).text
        assert "Nothing is watched yet" in overview
        assert "(this server)" in overview
        metrics = httpx.get(f"{url}metrics").text
        assert f'stanch_server_target_up{{service="{SERVICE}"' in metrics
        assert "stanch_server_store_memory_bytes" in metrics


def test_a_server_that_cannot_watch_itself_says_why(tmp_path: Path) -> None:
    """Where no directory can be had for the agent's socket it serves without, and says so."""
    (tmp_path / "file").touch()
    plain = "import sys; from stanch.cli.main import main; sys.exit(main(sys.argv[1:]))"
    with server(tmp_path / "data", plain, stanch_dir=tmp_path / "file") as url:
        settings = httpx.get(f"{url}settings", timeout=PATIENCE_S).text
        assert "the server does not watch itself: its agent has no endpoint" in settings


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    """Then it is no target, though others are."""
    config = tmp_path / "server.toml"
    config.write_text("watch_self = false\n")
    plain = "import sys; from stanch.cli.main import main; sys.exit(main(sys.argv[1:]))"
    more = ("http://127.0.0.1:1", "--config", str(config))
    with server(tmp_path / "data", plain, *more, stanch_dir=tmp_path / "run") as url:
        assert SERVICE not in until(f"{url}targets", lambda text: "cannot connect" in text)
        assert not (tmp_path / "run").exists()


def test_people_are_told_of_what_is_sure_only() -> None:
    """A suspicion against the server itself alarms nobody; one against a service may."""
    own = replace(LEAK, service=SERVICE)
    doubts = (replace(own, stage="suspect"), replace(LEAK, stage="suspect"))
    state = WatchState(1, 0.0, 0.0, (), findings=(own, *doubts))
    assert told_to_people(state).findings == (own, doubts[1])

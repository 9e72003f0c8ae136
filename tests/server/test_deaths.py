"""Deaths at a server: what it scrapes and what is pushed to it, in its pages, its interface and the
command, from one record that a restart keeps."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from stanch.cli.main import main
from stanch.profile import parse
from tests.cli.watched import PATIENCE_S, STANCH, interrupt, lines_until, running, short_directory
from tests.store.pprofs import heap_bytes

MIB = 1024 * 1024
HOARDER = """
import time
kept = []

def remember():
    for _ in range(20_000):
        kept.append(bytearray(1000))

remember()
print("kept", flush=True)
time.sleep(600)
"""


@contextmanager
def server(directory: Path, *targets: str) -> Iterator[str]:
    """A server that asks its targets twice a second, by its address."""
    config = directory / "server.toml"
    config.write_text(f'watch_self = false\ntables = ["{directory / "tables"}"]\n')
    command = [*STANCH, "server", *targets, "--data", str(directory / "data")]
    command += ["--listen", "127.0.0.1:0", "--every", "500ms", "--config", str(config)]
    with running(*command) as process:
        (line,) = lines_until(process, lambda line: "http://" in line)
        yield line.split()[-1]
        interrupt(process)


def deaths_until(url: str, wanted: Callable[[list[Any]], bool]) -> list[Any]:
    """The deaths that the interface lists, once they are as wanted."""
    end = time.monotonic() + PATIENCE_S
    while True:
        found: list[Any] = httpx.get(f"{url}api/v1/deaths", timeout=PATIENCE_S).json()["deaths"]
        if wanted(found):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.2)


def test_a_killed_process_is_on_record(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a scraped process the page, the interface and the command tell the same: why, and what it
    held, from its black box. Another life of the server tells it too."""
    with short_directory() as directory:
        socket = directory / "a.sock"
        command = [*STANCH, "run", "--listen", f"unix:{socket}", "--interval", "4096"]
        command += ["--table", str(directory / "tables"), "--service", "shop"]
        with running(*command, "--", sys.executable, "-c", HOARDER) as hoarder:
            lines_until(hoarder, lambda line: "kept" in line)
            with server(directory, f"unix:{socket}") as url:
                page = f"{url}services/shop"
                end = time.monotonic() + PATIENCE_S
                while "running" not in httpx.get(page, timeout=PATIENCE_S).text:
                    assert time.monotonic() < end
                    time.sleep(0.2)
                os.kill(hoarder.pid, signal.SIGKILL)
                hoarder.wait(PATIENCE_S)
                (death,) = deaths_until(url, bool)
                assert (death["cause"], death["service"]) == ("crash", "shop")
                assert death["pids"] == [hoarder.pid]
                assert (death["function"], death["profile_from"]) == ("remember", "table")
                name = death["death"]
                assert f"/deaths/{name}" in httpx.get(page, timeout=PATIENCE_S).text
        with server(directory) as url:
            text = httpx.get(f"{url}deaths/{name}", timeout=PATIENCE_S).text
            for part in ("Held the most", "remember", "no sign of a clean end", "Foretold"):
                assert part in text
            assert httpx.get(f"{url}api/v1/deaths/{name}").json() == death
            assert main(["deaths", "--url", url, "--service", "shop"]) == 0
            assert f"{name}  " in capsys.readouterr().out
            output = directory / "heap.pb.gz"
            assert main(["deaths", name, "--url", url, "-o", str(output)]) == 0
            profile = parse(output.read_bytes())
            functions = {line.function.name for s in profile.samples for x in s.locations
                         for line in x.lines}  # fmt: skip
            assert "remember" in functions
            assert main(["deaths", "none", "--url", url]) == 2


def test_the_end_of_what_is_pushed(tmp_path: Path) -> None:
    """Another process of the same name, where the last one stood at its limit: most likely killed,
    with what the last profile held and what it had served."""
    with server(tmp_path) as url:
        for pid, rss, requests in ((7, 98 * MIB, 1000), (8, 30 * MIB, 5)):
            comments = ("stanch=1", f"pid={pid}", f"requests={requests}")
            body = heap_bytes({"remember": rss // 2}, time_s=time.time(), comments=comments)
            headers = {
                "X-Stanch-Service": "shop",
                "X-Stanch-Instance": "shop-1",
                "X-Stanch-Pid": str(pid),
                "X-Stanch-Memory": f"rss={rss} limit={100 * MIB} in_flight=3",
            }
            answer = httpx.post(f"{url}api/v1/push", content=body, headers=headers, timeout=60)
            assert answer.json()["taken"]
        for wrong in ("0", "1001", "x", ""):
            refused = httpx.get(f"{url}api/v1/deaths?most={wrong}", timeout=PATIENCE_S)
            assert (refused.status_code, "expected a number" in refused.text) == (400, True)
        (death,) = deaths_until(url, bool)
        assert (death["cause"], death["sure"], death["pids"]) == ("oom", False, [7])
        assert (death["requests"], death["in_flight"]) == (1000.0, 3.0)
        assert death["memory_bytes"] == 98 * MIB
        text = httpx.get(f"{url}deaths/{death['death']}", timeout=PATIENCE_S).text
        assert "Requests served" in text
        assert "1,000" in text
        end = time.monotonic() + PATIENCE_S
        while "1 death in 24 hours" not in (page := httpx.get(url, timeout=PATIENCE_S).text):
            assert time.monotonic() < end, page
            time.sleep(0.2)

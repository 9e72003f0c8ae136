"""The incident in the pages: what the watch sees is shown by a process beside it."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import sync_playwright

from stanch.collect import Scrape, parse_target
from stanch.collect.scrape import ProcessHeap
from stanch.demo.showing import (
    SPOOL_NAME,
    Showing,
    end_pages,
    missing_packages,
    read_url,
    start_pages,
)
from stanch.demo.spool import Said, Spool, follow
from stanch.detect import Finding
from stanch.profile import parse
from stanch.server.ledger import finding_name
from stanch.server.watch import TargetRow, WatchState
from stanch.store import Look, ProcessLook
from tests.cli.test_flame_browser import ARGUMENTS, CHROMIUM
from tests.store.pprofs import heap_bytes

PATIENCE_S = 120.0
MIB = 1024 * 1024
SEEDED = {
    "shop": "shop/sessions.py:40 remember",
    "notify": "notify/deliveries.py:56 Deliveries._follow",
    "pricing": "pricing/tiers.py:13 TierList.__init__",
    "ledger": "ledger/ledger.go:53 main.(*Ledger).Post",
}
FINDING = Finding(
    service="shop",
    kind="leak",
    stage="confirmed",
    file="app/remember.py",
    line=10,
    function="remember",
    stack=("app/remember.py:10 remember", "app/main.py:10 main"),
    rate_bytes_per_second=MIB / 15,
    rates=(MIB / 15, MIB / 15, MIB / 15),
    rate_bytes_per_request=None,
    rate_count_per_second=None,
    grown_bytes=40.0 * MIB,
    confidence=0.9,
    seconds_to_death=(300.0, 330.0, 360.0),
    first_to_die="shop-1",
    instances=("shop-1",),
    evidence=("It does not slow down.",),
)
ROW = TargetRow("shop", "shop-1", "growing", 110.0 * MIB, 128.0 * MIB)
STATE = WatchState(1, 1.8e9, 1.0, (ROW,), (FINDING,), new=(FINDING,))
pytestmark = pytest.mark.skipif(bool(missing_packages()), reason="needs the extra stanch[server]")


def test_what_the_watch_says_is_in_the_pages(tmp_path: Path) -> None:
    """A finding of the watch has its page, and the heap of its target is there to look at.

    The process ends when it is told to; nothing was dropped.
    """
    showing = Showing(tmp_path / "pages", tmp_path / "pages.log")
    try:
        url = showing.url()
        assert url is not None, (tmp_path / "pages.log").read_text()
        now = time.time()
        data = heap_bytes({"remember": 50 * MIB}, time_s=now)
        process = ProcessLook(7, 60.0, 60.0, 110.0 * MIB)
        target = parse_target("http://127.0.0.1:1")
        heap = ProcessHeap(7, parse(data), True, data)
        showing.witness(
            Scrape(target, 1.0, now, heaps=(heap,)),
            Look("shop", "shop-1", 1.0, now, "python", (process,), 128.0 * MIB),
        )
        answer = {"paths": [{"bytes": 1, "reference": "module global KEPT"}]}
        showing.take(replace(STATE, unix_s=now), lambda finding: answer)
        with httpx.Client(timeout=PATIENCE_S) as client:
            until = time.monotonic() + PATIENCE_S
            while "remember" not in (page := client.get(f"{url}profiles/shop").text):
                assert time.monotonic() < until, page
                time.sleep(0.2)
            finding = client.get(f"{url}findings/{finding_name(FINDING)}").text
            assert "app/remember.py:10" in finding
            assert "app/main.py:10 main" in finding
            assert "module global KEPT" in finding
            assert "growing" in client.get(url).text
    finally:
        showing.stop()
    assert showing.dropped == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


@contextmanager
def shown(spool: Path, log: Path) -> Iterator[str]:
    """The URL of pages over a spool."""
    with log.open("wb") as errors:
        process = start_pages(spool, errors.fileno())
    try:
        url = read_url(process)
        assert url is not None, log.read_text()
        yield url
    finally:
        end_pages(process)
    assert process.returncode == 0, log.read_text()


def test_it_costs_nothing_while_nobody_looks(tmp_path: Path) -> None:
    """Until the first request the process has loaded neither a server nor a store."""
    spool = Spool(tmp_path / SPOOL_NAME)
    spool.append(Said(STATE, {}))
    spool.close()
    log = tmp_path / "pages.log"
    with log.open("wb") as errors:
        process = start_pages(tmp_path / SPOOL_NAME, errors.fileno())
    try:
        assert read_url(process) is not None
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
        assert "/python" in mapped
        assert "chdb" not in mapped
        assert "numpy" not in mapped
    finally:
        end_pages(process)
    assert process.returncode == 0
    assert log.read_text() == ""


def test_a_spool_that_is_being_written_is_read_up_to_its_last_whole_message(tmp_path: Path) -> None:
    """A message that is there in part is given when the rest has come."""
    path = tmp_path / SPOOL_NAME
    spool = Spool(path)
    spool.append(Said(STATE, {FINDING: {"paths": []}}))
    whole = path.read_bytes()
    spool.close()
    path.write_bytes(whole + whole[:-7])
    stop = threading.Event()
    messages = follow(path, stop)
    assert next(messages) == Said(STATE, {FINDING: {"paths": []}})
    with path.open("ab") as file:
        timer = threading.Timer(0.7, lambda: (file.write(whole[-7:]), file.flush()))
        timer.start()
        assert next(messages) == Said(STATE, {FINDING: {"paths": []}})
        timer.join()
    stop.set()
    assert list(messages) == []


def test_what_there_is_no_room_for_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The messages before it stay whole."""
    monkeypatch.setattr("stanch.demo.spool.MOST_BYTES", 10_000)
    spool = Spool(tmp_path / SPOOL_NAME)
    for _ in range(100):
        spool.append(Said(STATE, {}))
    spool.close()
    assert 0 < spool.dropped < 100
    stop = threading.Event()
    messages = follow(tmp_path / SPOOL_NAME, stop)
    assert [next(messages) for _ in range(100 - spool.dropped)] == [Said(STATE, {})] * (
        100 - spool.dropped
    )


@pytest.mark.skipif(
    "STANCH_TEST_DEMO" not in os.environ,
    reason="`make demo-pages` names the directory of `stanch demo --pages` in STANCH_TEST_DEMO",
)
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_each_seeded_leak_has_its_page(tmp_path: Path) -> None:
    """Chromium gets from the overview of the incident to each leak's line, path and graph."""
    shots = Path(os.environ.get("STANCH_SCREENSHOTS", tmp_path))
    shots.mkdir(parents=True, exist_ok=True)
    spool = Path(os.environ["STANCH_TEST_DEMO"]) / SPOOL_NAME
    with shown(spool, tmp_path / "pages.log") as url, sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS).new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        missing = dict(SEEDED)
        until = time.monotonic() + PATIENCE_S
        while missing:
            assert time.monotonic() < until, missing
            page.goto(url)
            for service, place in list(missing.items()):
                link = page.locator(".findings .confirmed a", has_text=place)
                if link.count() != 1:
                    continue
                link.click()
                page.wait_for_url("**/findings/*")
                title = page.locator("h1").inner_text()
                frames = " ".join(page.locator(".stack li").all_inner_texts())
                drawn = page.locator("#graph .frame").count()
                kept_by = page.locator(".paths li").count()
                # Pages and graphs come as what was seen is read; Go does not tell what keeps it.
                if drawn and (kept_by or service != "shop"):
                    assert place in title
                    assert place.partition(" ")[0] in frames
                    page.screenshot(path=shots / f"leak-{service}.png", full_page=True)
                    del missing[service]
                page.goto(url)
            page.wait_for_timeout(500)

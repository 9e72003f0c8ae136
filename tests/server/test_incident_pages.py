"""The incident in the pages: what the watch sees is shown by a process beside it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import sync_playwright

from stanch.collect import Scrape, parse_target
from stanch.collect.reading import Reader
from stanch.collect.scrape import ProcessHeap
from stanch.demo.showing import Showing, missing_packages
from stanch.detect import Finding
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
        heap = ProcessHeap(7, Reader().read(data), True, data)
        showing.witness(
            Scrape(target, 1.0, now, heaps=(heap,)),
            Look("shop", "shop-1", 1.0, now, "python", (process,), 128.0 * MIB),
        )
        row = TargetRow("shop", "shop-1", "growing", 110.0 * MIB, 128.0 * MIB)
        showing.take(WatchState(1, now, 1.0, (row,), (FINDING,), new=(FINDING,)))
        until = time.monotonic() + PATIENCE_S
        while "remember" not in (page := httpx.get(f"{url}profiles/shop").text):
            assert time.monotonic() < until, page
            time.sleep(0.2)
        finding = httpx.get(f"{url}findings/{finding_name(FINDING)}").text
        assert "app/remember.py:10" in finding
        assert "app/main.py:10 main" in finding
        assert "growing" in httpx.get(url).text
    finally:
        showing.stop()
    assert showing.dropped == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


@pytest.mark.skipif("STANCH_TEST_DEMO" not in os.environ, reason="STANCH_TEST_DEMO runs the demo")
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_each_seeded_leak_has_its_page(tmp_path: Path) -> None:
    """While the incident runs, Chromium gets from the overview to each leak's line and path."""
    command = [sys.executable, "-m", "stanch.cli.main", "demo", "--pages"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo,
        sync_playwright() as playwright,
    ):
        assert demo.stdout is not None
        line = next(line for line in demo.stdout if "See it live" in line)
        page = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS).new_page()
        missing = dict(SEEDED)
        until = time.monotonic() + PATIENCE_S
        while missing:
            assert time.monotonic() < until, missing
            page.goto(line.split()[-1])
            for service, place in list(missing.items()):
                link = page.locator(".findings .confirmed a", has_text=place)
                if link.count() == 1:
                    link.click()
                    assert place in page.locator("h1").inner_text()
                    frames = page.locator(".stack li").all_inner_texts()
                    assert place.partition(" ")[0] in " ".join(frames)
                    shots = Path(os.environ.get("STANCH_SCREENSHOTS", tmp_path))
                    page.screenshot(path=shots / f"leak-{service}.png", full_page=True)
                    del missing[service]
                    page.go_back()
            page.wait_for_timeout(3000)
        demo.stdout.read()
    assert demo.returncode == 0

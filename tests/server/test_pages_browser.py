"""The pages in a real browser: accessibility by axe-core, both themes and widths."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, sync_playwright

from stanch.store.sqlstore import SqlStore
from tests.cli.test_flame_browser import ARGUMENTS
from tests.server.test_pages import store, url  # noqa: F401

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text("utf-8")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_accessible_and_within_the_screen(
    browser: Browser,
    store: SqlStore,  # noqa: F811
    url: str,  # noqa: F811
    scheme: str,
    width: int,
    tmp_path: Path,
) -> None:
    """No page has a serious finding of axe-core, an error in the console or a sideways scroll."""
    shots = Path(os.environ.get("STANCH_SCREENSHOTS", tmp_path))
    (row,) = store.history.findings()
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    errors: list[str] = []
    page.on(
        "console", lambda message: errors.append(message.text) if message.type == "error" else None
    )
    paths = ["/", "/services/shop", f"/findings/{row.finding}", "/profiles/shop", "/targets"]
    for path in [*paths, "/settings", "/sign-in"]:
        page.goto(url + path)
        name = path.strip("/").split("/")[0] or "overview"
        page.screenshot(path=shots / f"{name}-{scheme}-{width}.png", full_page=True)
        # Evaluated by the debugger, so the page's policy need not allow it.
        page.evaluate(AXE)
        found = page.evaluate("axe.run()")["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert [(path, one["id"], one["nodes"][0]["html"]) for one in serious] == []
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert errors == []
    page.close()


def test_the_flame_graph_works_in_the_pages(
    browser: Browser,
    store: SqlStore,  # noqa: F811
    url: str,  # noqa: F811
) -> None:
    """Under the strict policy a frame zooms; a finding's page marks its function; the live update
    of the page leaves the graph as it is."""
    (row,) = store.history.findings()
    page = browser.new_page()
    page.goto(f"{url}/profiles/shop")
    page.locator('.frame[aria-label^="steady,"]').click()
    page.locator('.frame[aria-label^="remember,"]').wait_for(state="detached")
    page.goto(f"{url}/findings/{row.finding}")
    assert page.locator(".frame.match").get_attribute("aria-label").startswith("remember,")  # type: ignore[union-attr]
    page.locator('.frame[aria-label^="steady,"]').click()
    page.locator('[data-part="head"]').evaluate("part => { part.firstElementChild.remove() }")
    page.evaluate("last.fill(''); refresh()")
    page.locator("h1").wait_for()
    assert page.locator('.frame[aria-label^="remember,"]').count() == 0
    page.close()

"""The flame graph in a real browser: zoom, search, keyboard, sample types, themes."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from stanch.flame import FlameOptions, FlameSource, flame_page
from stanch.profile import Function, Granularity, Line, Location, Profile, Sample, ValueType

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TYPES = (ValueType("objects", "count"), ValueType("space", "bytes"))
NEW = (("main handle save", 600), ("main handle load", 200), ("main poll", 200))
OLD = (("main handle save", 100), ("main handle load", 200), ("main gone", 300))
KB = 1024
Scheme = Literal["light", "dark"]


def profile_of(*stacks: tuple[str, int]) -> Profile:
    """Make a profile with one object and so many kB for each stack, the root first."""
    return Profile(
        TYPES,
        tuple(
            Sample(
                tuple(
                    Location(lines=(Line(Function(name, filename=f"/srv/shop/{name}.py"), 1),))
                    for name in reversed(names.split())
                ),
                (1, kilobytes * KB),
            )
            for names, kilobytes in stacks
        ),
    )


class View:
    """A page with a flame graph, as a user works with it."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def frames(self) -> dict[str, float]:
        """Give the width of each frame that is drawn, in percent of the graph."""
        script = """frames => {
            const whole = document.getElementById("graph").clientWidth;
            return frames.map(frame => [
                frame.getAttribute("aria-label").split(",")[0],
                (frame.getBoundingClientRect().width + 1) / whole * 100,
            ]);
        }"""
        pairs = self.page.locator(".frame").evaluate_all(script)
        return {name: round(width, 1) for name, width in pairs}

    def frame(self, name: str) -> Locator:
        """Find the frame of a function."""
        return self.page.locator(f'.frame[aria-label^="{name},"]')

    def search(self, text: str) -> str:
        """Type into the search box and give what it says."""
        self.page.locator("#search").fill(text)
        return self.matched()

    def matched(self) -> str:
        """Give what the page says about the search."""
        return self.page.locator("#matched").inner_text()

    def marked(self, style: str) -> set[str]:
        """Name the frames with a class."""
        labels = self.page.locator(f".frame.{style}").evaluate_all(
            "frames => frames.map(frame => frame.getAttribute('aria-label').split(',')[0])"
        )
        return set(labels)

    def focused(self) -> str:
        """Name the frame that has the keyboard's focus."""
        label = self.page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''")
        return str(label).partition(",")[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH to look at the page with")
    with sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


Open = Callable[..., View]


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Open a page on a profile; what the browser complains about fails the test at its end."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1200, "height": 800})

    def open_page(
        new: Profile, old: Profile | None = None, scheme: Scheme = "light", name: str = "heap.pb.gz"
    ) -> View:
        options = FlameOptions(granularity=Granularity.FILEFUNCTIONS)
        path = tmp_path / "page.html"
        path.write_text(flame_page(FlameSource(name, new, "old", old), options), "utf-8")
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.goto(path.as_uri())
        return View(page)

    yield open_page
    context.close()
    assert complaints == []


def test_widths_are_the_values(show: Open) -> None:
    """Each frame is as wide as its part of the total, and stands below its caller."""
    view = show(profile_of(*NEW))
    assert view.frames() == {
        "all": 100, "main": 100, "handle": 80, "save": 60, "load": 20, "poll": 20,
    }  # fmt: skip
    boxes = [view.frame(name).bounding_box() for name in ("main", "handle", "save")]
    tops = [box["y"] for box in boxes if box]
    assert tops == sorted(tops) and len(set(tops)) == 3


def test_a_click_zooms_and_reset_goes_back(show: Open) -> None:
    """The frame clicked takes the whole width, its callers stay above, others go."""
    view = show(profile_of(*NEW))
    whole = view.frames()
    assert view.page.locator("#reset").is_disabled()
    view.frame("handle").click()
    assert view.frames() == {"all": 100, "main": 100, "handle": 100, "save": 75, "load": 25}
    assert view.marked("above") == {"all", "main"}
    view.page.locator("#reset").click()
    assert view.frames() == whole


def test_search_marks_and_tells_the_share(show: Open) -> None:
    """What matches is marked and added up, a frame inside another that matches only once."""
    view = show(profile_of(*NEW))
    assert view.search("save|poll") == "80.0% matched, 800kB"
    assert view.marked("match") == {"save", "poll"}
    assert view.marked("dim") == {"all", "main", "handle", "load"}
    assert view.search("handle|save") == "80.0% matched, 800kB"
    view.frame("handle").click()
    assert view.search("LOAD") == "25.0% matched, 200kB"
    assert view.search("") == ""
    assert view.marked("match") == view.marked("dim") == set()


def test_an_unfinished_expression_is_searched_as_it_stands(show: Open) -> None:
    """While a user still types an expression, the page finds the text itself."""
    view = show(profile_of(("main f(x", 5), ("main g", 5)))
    assert view.search("f(") == "50.0% matched, 5kB"


def test_the_keyboard_moves_zooms_and_searches(show: Open) -> None:
    """All of the graph is reached without a mouse."""
    view = show(profile_of(*NEW))
    keys = view.page.keyboard
    view.frame("all").focus()
    visited = []
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowUp", "ArrowRight"):
        keys.press(key)
        visited.append(view.focused())
    assert visited == ["main", "handle", "save", "load", "handle", "poll"]
    assert view.page.locator("#tooltip").is_visible()
    keys.press("ArrowLeft")
    keys.press("Enter")
    assert view.frames()["save"] == 75
    keys.press("Backspace")
    assert (view.focused(), view.frames()["save"]) == ("main", 60)
    keys.press("/")
    keys.type("save")
    assert view.marked("match") == {"save"}
    keys.press("Escape")
    assert view.marked("match") == set()
    view.frame("save").focus()
    keys.press("Enter")
    keys.press("Escape")
    assert view.frames()["main"] == 100 and "poll" in view.frames()


def test_the_tooltip_tells_flat_and_cum(show: Open) -> None:
    """Under the mouse a frame shows its place in the source and its values."""
    view = show(profile_of(*NEW, ("main handle", 24)))
    view.frame("handle").hover()
    text = view.page.locator("#tooltip").inner_text()
    assert "/srv/shop/handle.py" in text
    assert "824kB" in text and "80.5%" in text  # cum
    assert "24kB" in text and "2.34%" in text  # flat
    view.page.locator("h1").hover()
    assert view.page.locator("#tooltip").is_hidden()


def test_the_sample_type_can_be_changed(show: Open) -> None:
    """Widths follow the type that is chosen; each button shows its total."""
    view = show(profile_of(*NEW))
    buttons = view.page.locator("#types button")
    assert buttons.all_inner_texts() == ["objects3", "space1000kB"]
    buttons.first.click()
    assert view.frames()["save"] == 33.3
    assert buttons.first.get_attribute("aria-pressed") == "true"


def test_a_comparison_colours_what_grew_and_what_went(show: Open) -> None:
    """Grown frames are red, vanished ones blue and drawn as wide as they were, others grey."""
    view = show(profile_of(*NEW), profile_of(*OLD))
    assert view.frames() == {
        "all": 100, "main": 100, "handle": 61.5, "save": 46.2, "load": 15.4, "gone": 23.1,
        "poll": 15.4,
    }  # fmt: skip
    assert view.marked("c6") == {"handle", "save", "poll"}
    assert view.marked("c0") == {"gone"}
    assert view.marked("c3") == {"load"}
    view.frame("save").hover()
    assert "+500kB" in view.page.locator("#tooltip").inner_text()
    assert "+500.0%" in view.page.locator("#tooltip").inner_text()


def test_packages_in_the_legend_are_searched_by_a_click(show: Open) -> None:
    """The legend names the packages by their colours; a click finds their frames."""
    view = show(profile_of(*NEW))
    view.page.locator("#legend button", has_text="shop").click()
    assert view.matched() == "100% matched, 1000kB"


def test_dark_and_light_have_their_own_colours(show: Open) -> None:
    """The page follows the user's scheme, with readable contrast in both."""

    def colours(scheme: Scheme) -> list[str]:
        page = show(profile_of(*NEW), scheme=scheme).page
        script = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color].join()"
        return [page.locator(each).first.evaluate(script) for each in (":root", ".frame.hue")]

    light, dark = colours("light"), colours("dark")
    assert all(one != other for one, other in zip(light, dark, strict=True))


def test_hostile_names_run_nothing(show: Open) -> None:
    """Markup in a name is shown as text; the page adds no element of it and runs no script."""
    name = "<img/src=x/onerror=alert(1)></script><script>document.title='owned'</script>"
    view = show(profile_of((name, 5)), name=name)
    assert view.page.locator("img").count() == 0
    assert view.page.title() == f"{name} - Stanch flame graph"
    assert view.page.locator("h1").inner_text() == name
    view.page.locator(".frame").nth(1).hover()
    assert name in view.page.locator("#tooltip").inner_text()


def test_an_empty_profile_says_so(show: Open) -> None:
    """Without a value there is a sentence, not an empty page."""
    view = show(profile_of())
    assert view.page.locator("#empty").is_visible()
    assert view.frames() == {}

"""`stanch flame`: what the page holds, and that a hostile profile stays text in it."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stanch.flame import FlameOptions, FlameSource, flame_page
from stanch.flame.groups import group_of, short_name
from stanch.profile import (
    Frame,
    Function,
    Granularity,
    Line,
    Location,
    Profile,
    ProfileError,
    Sample,
    ValueType,
    encode,
    parse,
)
from tests.cli.command import stanch
from tests.profile.golden import GOLDEN, PROFILES, golden_id

HEAP = GOLDEN / "go1.26" / "heap.pb.gz"
TYPES = (ValueType("objects", "count"), ValueType("space", "bytes"))
OPTIONS = FlameOptions(granularity=Granularity.FILEFUNCTIONS)


class _Page(HTMLParser):
    """Collects the elements of a page, and the text of each script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, str] = {}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        kind = dict(attrs).get("type") or tag
        self._inside = kind if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.raw[self._inside] = self.raw.get(self._inside, "") + data


def profile_of(*stacks: tuple[str, int], file: str = "app.py") -> Profile:
    """Make a profile of stacks such as ("main handle", 5), the root first."""
    return Profile(
        TYPES,
        tuple(
            Sample(
                tuple(
                    Location(lines=(Line(Function(name, filename=file), 1),))
                    for name in reversed(names.split())
                ),
                (1, value),
            )
            for names, value in stacks
        ),
    )


def data_of(page: str) -> dict[str, Any]:
    """Read the data in a page."""
    loaded = json.loads(_Page(page).raw["application/json"])
    assert isinstance(loaded, dict)
    return loaded


def rows(data: dict[str, Any]) -> list[tuple[int, str, list[int]]]:
    """List a page's nodes: depth, name and values."""
    return [
        (depth, data["frames"][frame]["name"], [column[index] for column in data["values"]])
        for index, (depth, frame) in enumerate(zip(data["depths"], data["frameOf"], strict=True))
    ]


def test_the_page_holds_the_tree() -> None:
    """Nodes stand depth first, with their own values for each sample type."""
    profile = profile_of(("main handle", 5), ("main", 2))
    data = data_of(flame_page(FlameSource("heap.pb.gz", profile), OPTIONS))
    assert rows(data) == [(0, "all", [0, 0]), (1, "main", [1, 2]), (2, "handle", [1, 5])]
    assert [each["type"] for each in data["types"]] == ["objects", "space"]
    assert (data["selected"], data["compares"]) == (1, False)


def test_a_comparison_holds_both_sides() -> None:
    """With a base there are its values too, also for frames that only one side has."""
    source = FlameSource(
        "new", profile_of(("main grown", 9), ("main born", 1)), "old", profile_of(("main grown", 4))
    )
    data = data_of(flame_page(source, OPTIONS))
    assert data["compares"]
    assert sorted(rows(data)[2:]) == [(2, "born", [1, 1, 0, 0]), (2, "grown", [1, 9, 1, 4])]


def test_negative_values_count_as_what_was_before() -> None:
    """A difference, such as heap?seconds=30 gives, is drawn as a comparison."""
    data = data_of(flame_page(FlameSource("delta", profile_of(("freed", -7), ("got", 3))), OPTIONS))
    assert data["compares"]
    assert sorted(rows(data)[1:]) == [(1, "freed", [1, 0, 0, 7]), (1, "got", [1, 3, 0, 0])]


def test_a_base_of_another_kind_is_refused() -> None:
    """Profiles of different sample types have no common picture."""
    base = Profile((ValueType("cpu", "nanoseconds"),))
    with pytest.raises(ProfileError, match="expected the same sample types"):
        flame_page(FlameSource("new", profile_of(("a", 1)), "old", base), OPTIONS)


def test_small_frames_are_put_together_and_nothing_is_lost() -> None:
    """Below the fraction, siblings become one frame that says how many they are."""
    stacks = [("main big", 1000), *((f"main small{number} leaf", 1) for number in range(5))]
    options = FlameOptions(sample_index="space", node_fraction=0.3)
    data = data_of(flame_page(FlameSource("heap", profile_of(*stacks)), options))
    assert sorted(rows(data)[2:]) == [(2, "(5 smaller)", [5, 5]), (2, "big", [1, 1000])]


def test_a_page_never_holds_more_nodes_than_a_browser_bears() -> None:
    """A tree too large is cut at a larger fraction, and still adds up."""
    stacks = [(f"main f{number}", 1) for number in range(100_010)]
    options = FlameOptions(node_fraction=0.0)
    data = data_of(flame_page(FlameSource("heap", profile_of(*stacks)), options))
    assert len(data["depths"]) <= 100_000
    assert sum(data["values"][1]) == 100_010


@pytest.mark.parametrize("path", PROFILES, ids=golden_id)
def test_golden_profiles_add_up(path: Path) -> None:
    """The nodes of a real profile's page hold all its values, for each sample type."""
    profile = parse(path.read_bytes())
    options = FlameOptions(node_fraction=0.01)
    data = data_of(flame_page(FlameSource(path.name, profile), options))
    sums = [sum(column) for column in data["values"]]
    if data["compares"]:
        half = len(data["types"])
        sums = [now - was for now, was in zip(sums[:half], sums[half:], strict=True)]
    totals = [sum(column) for column in zip(*(s.values for s in profile.samples), strict=True)]
    assert sums == totals


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>{{data}}<!--&amp;"


def test_hostile_names_stay_text() -> None:
    """Markup in names, files, comments and sources adds no element and ends no script."""
    samples = profile_of((HOSTILE.replace(" ", "_"), 1), file=HOSTILE).samples
    profile = Profile(TYPES, samples, comments=(HOSTILE,))
    plain = _Page(flame_page(FlameSource("plain", profile_of(("main", 1))), OPTIONS))
    page = _Page(flame_page(FlameSource(HOSTILE, profile), OPTIONS))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert page.raw["script"] == plain.raw["script"]
    frame = json.loads(page.raw["application/json"])["frames"][1]
    assert frame["name"] == HOSTILE.replace(" ", "_")
    assert frame["file"].startswith("</script><script>alert(1)")


def test_the_policy_allows_this_style_and_this_script_only() -> None:
    """The hashes in the content security policy are those of the page's own two blocks."""
    page = _Page(flame_page(FlameSource("heap", profile_of(("main", 1))), OPTIONS))
    (policy,) = [
        attributes["content"] or ""
        for tag, attributes in page.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.raw[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")


def test_the_page_needs_no_other_file() -> None:
    """No element refers to anything outside the page, and no attribute holds script or style."""
    text = flame_page(FlameSource("heap", parse(HEAP.read_bytes())), OPTIONS)
    for _, attributes in _Page(text).elements:
        refused = {name for name in attributes if name.startswith("on")} | {"src", "href", "style"}
        assert refused.isdisjoint(attributes)
    assert re.search(r"@import|url\(|https?:", text) is None


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    """-o names the file, and the command says that it was written."""
    path = tmp_path / "heap.html"
    outcome = stanch("flame", "-o", path, "-base", HEAP, GOLDEN / "go1.26" / "heap_delta.pb.gz")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"wrote {path} (")
    assert data_of(path.read_text("utf-8"))["compares"]


def test_names_that_are_not_unicode_are_written(tmp_path: Path) -> None:
    """A file name of other bytes than UTF-8 does not fail the command."""
    source = tmp_path / "heap\udcff.pb.gz"
    source.write_bytes(encode(profile_of(("main", 1))))
    outcome = stanch("flame", "-o", tmp_path / "page.html", source)
    assert outcome.code == 0
    assert "heap\\udcff.pb.gz" in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((HEAP,), 2, "required: -o"),
        (("-o", "/nowhere/page.html", HEAP), 1, "cannot write /nowhere/page.html: No such file"),
        (("-o", "page.html", "-base", GOLDEN / "go1.26" / "cpu.pb.gz", HEAP), 1, "same sample"),
        (("-o", "page.html", "-sample_index=cpu", HEAP), 2, "no sample type 'cpu'"),
    ],
    ids=["no output", "no directory", "other base", "other sample type"],
)
def test_wrong_use_is_told(arguments: tuple[str | Path, ...], code: int, said: str) -> None:
    """One sentence on stderr and no file."""
    outcome = stanch("flame", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert said in outcome.err


@pytest.mark.parametrize(
    ("frame", "group", "short"),
    [
        (Frame("main.main", "/src/main.go"), "main", "main.main"),
        (Frame("net/http.(*conn).serve", "server.go"), "net/http", "http.(*conn).serve"),
        (Frame("a.b/c/d.F[x/y.T]", "d.go"), "a.b/c/d", "d.F[x/y.T]"),
        (Frame("net/http.(*conn).serve"), "net/http", "http.(*conn).serve"),
        (Frame("main.main"), "main", "main.main"),
        (Frame("Flask.run", "/v/lib/python3.11/site-packages/flask/app.py"), "flask", "Flask.run"),
        (Frame("get", "/v/lib/python3.11/site-packages/six.py"), "six", "get"),
        (Frame("dumps", "/usr/lib/python3.13/json/encoder.py"), "json", "dumps"),
        (Frame("run", "/usr/lib/python3.13/threading.py"), "threading", "run"),
        (Frame("load", "<frozen importlib._bootstrap>"), "importlib", "load"),
        (Frame("Cart.add", "/srv/shop/cart.py"), "shop", "Cart.add"),
        (Frame("<module>", "/srv/shop/cart.py"), "shop", "cart.py <module>"),
        (Frame("<module>", "/srv/shop/__init__.py"), "shop", "shop/__init__.py <module>"),
        (Frame("f", "run.py"), "run", "f"),
        (Frame(file="/srv/shop/cart.py"), "shop", "cart.py"),
        (Frame(binary="/usr/lib/libnode.so"), "libnode.so", "libnode.so"),
        (Frame(), "unknown", "<unknown>"),
    ],
)
def test_frames_are_grouped_by_package(frame: Frame, group: str, short: str) -> None:
    """Go's packages, Python's top-level packages and binaries have each their colour."""
    assert (group_of(frame), short_name(frame)) == (group, short)

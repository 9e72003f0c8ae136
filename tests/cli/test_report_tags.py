"""Which route and thread holds what: `stanch tags`, and labels in the other reports."""

import re
from pathlib import Path

import pytest

from stanch.profile import Function, Line, Location, Profile, Sample, ValueType, encode
from tests.cli.command import stanch
from tests.profile.golden import go_pprof

KB = 1024


def sample(stack: str, kilobytes: int, **labels: str) -> Sample:
    """Make a sample of a stack, the root first."""
    places = tuple(
        Location(lines=(Line(Function(name, filename=f"/app/{name}.py"), 1),))
        for name in reversed(stack.split())
    )
    births = (("birth", 5, "seconds"),) if kilobytes else ()
    allocated = 0 if kilobytes else 999 * KB
    values = (allocated, kilobytes * KB)
    return Sample(places, values, labels=tuple(labels.items()), num_labels=births)


@pytest.fixture
def heap(tmp_path: Path) -> Path:
    profile = Profile(
        (ValueType("alloc_space", "bytes"), ValueType("inuse_space", "bytes")),
        (
            sample("main serve keep", 500, thread="MainThread", route="GET /cart/<int:id>"),
            sample("main serve keep", 300, thread="pool_N", route="GET /items"),
            sample("main serve load", 100, thread="pool_N", route="GET /items"),
            sample("main load", 100, thread="MainThread"),
            sample("main load", 0),
        ),
        default_sample_type="inuse_space",
    )
    path = tmp_path / "heap.pb.gz"
    path.write_bytes(encode(profile))
    return path


def rows(text: str) -> list[tuple[str, ...]]:
    """Return the columns of the lines that begin with a value."""
    return [tuple(re.split(r"\s+", line.strip(), maxsplit=2)) for line in text.splitlines()
            if re.match(r"\s*[\d.]+kB", line)]  # fmt: skip


def test_tags_adds_up_to_the_total(heap: Path) -> None:
    """Each value of each label has its share, and so has what has none; texts come first."""
    lines = stanch("tags", heap).out.splitlines()
    assert lines[-9:] == [
        "route: Total 900kB of 1000kB (90.00%)",
        "     500kB 50.00%  GET /cart/<int:id>",
        "     400kB 40.00%  GET /items",
        "     100kB 10.00%  [no route]",
        "thread: Total 1000kB of 1000kB (100%)",
        "     600kB 60.00%  MainThread",
        "     400kB 40.00%  pool_N",
        "birth: Total 1000kB of 1000kB (100%)",
        "    1000kB   100%  5s",
    ]


def test_tags_is_cut_and_says_so(heap: Path) -> None:
    """-nodecount leaves the largest values; the others are one line."""
    text = stanch("tags", "-nodecount", "1", heap).out
    assert ("400kB", "40.00%", "[1 others; -nodecount 0 shows all]") in rows(text)
    assert "GET /items" not in text


def test_tags_of_a_function(heap: Path) -> None:
    """With -focus it answers which endpoint keeps what a line allocates; -base subtracts."""
    text = stanch("tags", "-focus", "keep", heap).out
    assert ("300kB", "30.00%", "GET /items") in rows(text)
    assert "Total 800kB of 1000kB" in text
    outcome = stanch("tags", "-base", heap, heap)
    assert (outcome.code, "has a label" in outcome.err) == (1, True)


def test_tags_without_labels(heap: Path) -> None:
    """Where the sample type has no labels, one sentence says so."""
    outcome = stanch("tags", "-alloc_space", heap)
    assert outcome.code == 1
    assert "no sample of alloc_space has a label" in outcome.err


@pytest.mark.parametrize(
    ("option", "left"),
    [
        ("-tagfocus=route=GET /items", 400),
        ("-tagfocus=GET /items", 400),
        ("-tagfocus=thread=^Main", 600),
        ("-tagignore=thread=pool", 600),
        ("-tagignore=route=.", 100),
    ],
)
def test_tag_filters_are_those_of_go_tool_pprof(heap: Path, option: str, left: int) -> None:
    """-tagfocus and -tagignore leave the samples that pprof's own leave."""
    text = stanch("top", option, heap).out
    assert f"Showing nodes accounting for {left}kB" in text
    theirs = go_pprof("-top", "-trim_path=/nowhere", option, heap).stdout
    start = "      flat  flat%"
    assert text[text.index(start) :].split() == theirs[theirs.index(start) :].split()


def test_a_filter_that_matches_no_label_says_so(heap: Path) -> None:
    """A typo does not pass for an answer, nor does a bad expression."""
    assert "-tagfocus matched no label" in stanch("top", "-tagfocus=rout=x", heap).err
    outcome = stanch("top", "-tagfocus=route=(", heap)
    assert outcome.code == 2
    assert "no regular expression" in outcome.err


def test_tagroot_makes_labels_frames(heap: Path, tmp_path: Path) -> None:
    """Labels become the outermost frames of tables and flame graphs, as in pprof."""
    text = stanch("top", "-cum", "-tagroot=thread,route", heap).out
    columns = (line.split(None, 5) for line in text.splitlines())
    found = {each[5]: each[3] for each in columns if len(each) == 6}
    assert found["MainThread"] == "600kB"
    assert found["GET /items"] == "400kB"
    assert found["[no route]"] == "100kB"
    theirs = go_pprof("-top", "-cum", "-trim_path=/nowhere", "-tagroot=route", heap).stdout
    assert re.search(r"500kB 50.00%  GET /cart", theirs)
    page = tmp_path / "heap.html"
    assert stanch("flame", "-tagroot=route", "-o", page, heap).code == 0
    assert "GET /items" in page.read_text()

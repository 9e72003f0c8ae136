"""top, tree, diff, peek and list on golden profiles: number for number what pprof says."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.profile import (
    Function,
    Line,
    Location,
    Profile,
    Sample,
    ValueType,
    encode,
)
from tests.cli.command import stanch
from tests.profile.golden import GOLDEN, PROFILES, go_pprof, golden_id

EXPECTED = GOLDEN / "expected"
GO126, GO127 = GOLDEN / "go1.26", GOLDEN / "go1.27"
HEAP = GO126 / "heap.pb.gz"

CASES: dict[str, tuple[str | Path, ...]] = {
    "top_heap": ("top", HEAP),
    "top_heap_objects_by_cum": ("top", "-sample_index=alloc_objects", "-cum", HEAP),
    "top_allocs_lines": ("top", "--lines", "--nodecount", "5", GO127 / "allocs.pb.gz"),
    "top_cpu": ("top", GO127 / "cpu.pb.gz"),
    "top_goroutineleak": ("top", GO127 / "goroutineleak.pb.gz"),
    "top_threadcreate": ("top", GO127 / "threadcreate.pb.gz"),
    "top_merged_files": ("top", "-files", HEAP, GO127 / "heap.pb.gz"),
    "top_filtered": ("top", "-focus=remember", "-hide=^runtime", HEAP),
    "tree_block": ("tree", GO126 / "block.pb.gz"),
    "tree_mutex_in_ns": ("tree", "-unit=ns", GO127 / "mutex.pb.gz"),
    "peek_goroutine": ("peek", "leakGoroutines", GO126 / "goroutine.pb.gz"),
    "diff_heap": ("diff", HEAP, GO126 / "heap_delta.pb.gz"),
    "top_base": ("top", f"-base={HEAP}", GO126 / "heap_delta.pb.gz"),
    "list_remember": ("list", "remember|grow$", f"-source_path={GOLDEN / 'gen'}", HEAP),
}


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Print times in UTC, whatever the machine's zone, in our reports and in Go's."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("name", CASES)
def test_reports_on_golden_profiles(name: str, update: bool) -> None:
    """Each report prints the text kept beside the golden profiles; --update writes it."""
    outcome = stanch(*CASES[name])
    assert (outcome.code, outcome.err) == (0, "")
    expected = EXPECTED / f"{name}.txt"
    if update:
        expected.parent.mkdir(exist_ok=True)
        expected.write_text(outcome.out, "utf-8")
    assert outcome.out == expected.read_text("utf-8")


@pytest.mark.parametrize(
    "options",
    [
        ("-top",),
        ("-top", "-sample_index=0", "-cum", "-lines", "-nodecount=7"),
        ("-tree", "-focus=main", "-hide=allocate", "-nodefraction=0"),
        ("-peek=.",),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("path", PROFILES, ids=golden_id)
def test_reports_are_those_of_go_tool_pprof(path: Path, options: tuple[str, ...]) -> None:
    """Every line of top, tree and peek is Go's own tool's; what fails here, fails there."""
    command, _, expression = options[0].removeprefix("-").partition("=")
    ours = stanch(command, *filter(None, [expression]), *options[1:], path)
    # A trim path stops pprof from guessing one from the name of the current directory.
    arguments: tuple[str | Path, ...] = ("-trim_path=/nowhere", *options, path)
    if ours.code:  # one golden profile has no frame at all
        with pytest.raises(subprocess.CalledProcessError):
            go_pprof(*arguments)
        return
    theirs = go_pprof(*arguments).stdout
    assert ours.out.splitlines() == [line.rstrip() for line in theirs.splitlines()]


def test_diff_and_diff_base_are_the_same() -> None:
    """`diff OLD NEW` and `top -diff_base OLD NEW` print one table."""
    new = GO126 / "heap_delta.pb.gz"
    assert stanch("diff", HEAP, new).out == stanch("top", f"-diff_base={HEAP}", new).out


def test_the_numbers_of_diff_base_are_those_of_go_tool_pprof() -> None:
    """Percentages refer to the base, as pprof's do; the header, which is ours, is left out."""
    new = GO126 / "heap_delta.pb.gz"
    options = ("-lines", "-nodefraction=0", f"-diff_base={HEAP}")
    theirs = go_pprof("-top", "-trim_path=/nowhere", *options, new).stdout.splitlines()
    ours = stanch("top", *options, new).out.splitlines()
    start = next(number for number, line in enumerate(ours) if line.startswith("Showing"))
    assert ours[start:] == [line.rstrip() for line in theirs[-len(ours[start:]) :]]


def test_a_diff_of_equal_profiles_has_no_rows() -> None:
    """Nothing grew, nothing shrank: the table is empty and 0 % of the base."""
    lines = stanch("diff", HEAP, HEAP).out.splitlines()
    assert lines[-1].split() == ["flat", "flat%", "sum%", "cum", "cum%"]
    assert lines[-2].startswith("Showing nodes accounting for 0, 0% of")


def test_options_take_one_dash_or_two() -> None:
    """pprof's spelling and the usual one are the same option."""
    one = stanch("top", "-sample_index", "alloc_space", "-nodecount=3", "-cum", HEAP)
    two = stanch("top", "--sample_index=alloc_space", "--nodecount", "3", "--cum", HEAP)
    short = stanch("top", "-alloc_space", "-nodecount=3", "-cum", HEAP)
    assert one.out == two.out == short.out
    assert "Type: alloc_space" in one.out


@pytest.mark.parametrize("command", [("top",), ("tree",), ("flame", "-o", "/dev/null")])
def test_a_filter_without_a_match_is_told(command: tuple[str, ...]) -> None:
    """A typo in a filter does not pass for an answer."""
    outcome = stanch(*command, "-focus=nowhere", HEAP)
    assert outcome.code == 0
    assert outcome.err == "stanch: -focus matched no frame\n"


HOSTILE = "evil\x1b[31m\r\n<b>\x00"


def test_control_characters_of_a_profile_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """Names and comments are data of strangers: escapes are shown and lines stay lines."""
    stack = (Location(lines=(Line(Function(HOSTILE, filename=HOSTILE), 1),)),)
    profile = Profile((ValueType("space", "bytes"),), (Sample(stack, (1,)),), comments=(HOSTILE,))
    path = tmp_path / "hostile.pb.gz"
    path.write_bytes(encode(profile))
    for command in (("top", "-lines"), ("tree",), ("peek", "evil"), ("list", "evil")):
        out = stanch(*command, path).out
        assert "evil\\x1b[31m\\x0d\\x0a<b>\\x00" in out
        assert set(out) & set("\x1b\r\x00") == set()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("top", "-focus=(", HEAP), 2, "-focus '(' is no regular expression"),
        (("peek", "[", HEAP), 2, "REGEX '[' is no regular expression"),
        (("top", "-sample_index=cpu", HEAP), 2, "no sample type 'cpu'; expected one of alloc"),
        (("top", "-nodecount=many", HEAP), 2, "'many' was given; expected a whole number"),
        (("top", "-nodefraction=2", HEAP), 2, "'2' was given; expected a number from 0 to 1"),
        (("top",), 2, "required: SOURCE"),
        (("top", "-nodeco=1", HEAP), 2, "unrecognized arguments"),
        (("top", "-base", HEAP, "-diff_base", HEAP, HEAP), 2, "not allowed with argument"),
        (("peek", "nowhere", HEAP), 1, "no function of the profile matches 'nowhere'"),
        (("list", "nowhere", HEAP), 1, "no function of the profile matches 'nowhere'"),
        (("diff", HEAP, GO126 / "cpu.pb.gz"), 1, "expected the same sample types"),
        (("top", HEAP, GO126 / "cpu.pb.gz"), 1, "expected the same sample types"),
    ],
    ids=lambda value: " ".join(map(str, value[:2])) if isinstance(value, tuple) else "",
)
def test_wrong_use_is_told(arguments: tuple[str | Path, ...], code: int, said: str) -> None:
    """One sentence on stderr, nothing on stdout: 2 for wrong use, 1 for what cannot be done."""
    outcome = stanch(*arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert said in outcome.err

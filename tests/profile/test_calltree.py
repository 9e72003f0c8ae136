"""call_tree and call_graph: flat and cum, recursion, inlining, granularity and trimming."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.profile import (
    CallNode,
    Frame,
    Function,
    Granularity,
    Line,
    Location,
    Mapping,
    Profile,
    Sample,
    Trim,
    ValueType,
    call_graph,
    call_tree,
    frame_label,
    parse,
)
from tests.profile.golden import PROFILES, golden_id
from tests.profile.strategies import profiles

TYPES = (ValueType("objects", "count"), ValueType("space", "bytes"))


def at(name: str, line: int = 1) -> Location:
    """Make a frame of a function in a file of the same name."""
    return Location(lines=(Line(Function(name, filename=f"/srv/{name}.py"), line),))


def profile_of(*stacks: tuple[str, int]) -> Profile:
    """Make a profile of stacks such as ("main handle save", 5), the root first."""
    return Profile(
        TYPES,
        tuple(
            Sample(tuple(at(name) for name in reversed(names.split())), (1, value))
            for names, value in stacks
        ),
    )


def table(profile: Profile, trim: Trim | None = None) -> dict[str, tuple[int, int]]:
    """Give flat and cum of each function."""
    graph = call_graph(call_tree(profile, (1,)), trim or Trim())
    return {node.label: (node.flat, node.cum) for node in graph.nodes}


def edges(profile: Profile, trim: Trim | None = None) -> dict[tuple[str, str], int]:
    """Give the weight of each call."""
    graph = call_graph(call_tree(profile, (1,)), trim or Trim())
    return {
        (node.label, edge.callee.label): edge.weight
        for node in graph.nodes
        for edge in node.callees.values()
    }


def walk(node: CallNode) -> list[CallNode]:
    """List a tree's nodes."""
    return [node, *(each for child in node.children.values() for each in walk(child))]


def test_flat_is_the_leaf_and_cum_is_everything_on_the_stack() -> None:
    """A value counts as flat where it was allocated and as cum in every caller."""
    profile = profile_of(("main handle save", 5), ("main handle", 2), ("main", 1))
    assert table(profile) == {"save": (5, 5), "handle": (2, 7), "main": (1, 8)}
    assert edges(profile) == {("main", "handle"): 7, ("handle", "save"): 5}


def test_recursion_counts_once() -> None:
    """A function that calls itself, directly or not, has the sample's value as cum only once."""
    profile = profile_of(("main visit walk visit walk visit", 10), ("main visit", 1))
    assert table(profile) == {"visit": (11, 11), "main": (0, 11), "walk": (0, 10)}
    assert edges(profile) == {("main", "visit"): 11, ("visit", "walk"): 10, ("walk", "visit"): 10}


def test_the_tree_keeps_paths_apart() -> None:
    """One function reached by two paths is two nodes, each with its own values."""
    root = call_tree(profile_of(("a c", 1), ("b c", 2), ("a c", 4)), (0, 1))
    assert root.cum == (3, 7)
    found = {(node.frame.name, node.cum) for node in walk(root)}
    assert found == {("", (3, 7)), ("a", (2, 5)), ("b", (1, 2)), ("c", (2, 5)), ("c", (1, 2))}


def test_samples_that_are_zero_in_the_chosen_types_are_left_out() -> None:
    """What was allocated and freed leaves no empty frame in the tree of live memory."""
    assert len(call_tree(profile_of(("freed", 0), ("live", 1)), (1,)).children) == 1
    assert len(call_tree(profile_of(("freed", 0), ("live", 1)), (0,)).children) == 2


def test_inlined_frames_are_frames_of_their_own() -> None:
    """Lines of one location are calls, the last the outermost, and are marked as inlined."""
    inner, outer = Line(Function("inner"), 3), Line(Function("outer"), 9)
    both = Sample((Location(1, None, (inner, outer)),), (1, 4))
    apart = Sample((Location(2, None, (inner,)), Location(3, None, (outer,))), (1, 1))

    def inlined(*samples: Sample) -> dict[str, bool]:
        graph = call_graph(call_tree(Profile(TYPES, samples), (1,)))
        return {
            f"{edge.caller.label} {edge.callee.label}": edge.inlined
            for node in graph.nodes
            for edge in node.callers.values()
        }

    assert inlined(both) == {"outer inner": True}
    assert inlined(both, apart) == {"outer inner": False}


@pytest.mark.parametrize(
    ("granularity", "labels"),
    [
        (Granularity.FUNCTIONS, ["f"]),
        (Granularity.FILEFUNCTIONS, ["f a.py", "f b.py"]),
        (Granularity.FILES, ["a.py", "b.py"]),
        (Granularity.LINES, ["f a.py:1", "f a.py:2", "f b.py:1"]),
    ],
)
def test_granularity_says_what_is_one_frame(granularity: Granularity, labels: list[str]) -> None:
    """Functions of one name are told apart by file and line only where that is asked for."""
    places = (("a.py", 1), ("a.py", 2), ("./b.py", 1))
    samples = tuple(
        Sample((Location(0, None, (Line(Function("f", filename=file), line),)),), (1, 1))
        for file, line in places
    )
    graph = call_graph(call_tree(Profile(TYPES, samples), (1,), granularity))
    assert sorted(node.label for node in graph.nodes) == labels


def test_what_has_no_name_is_shown_by_its_binary() -> None:
    """A native frame is its binary's name, and a frame without anything is unknown."""
    binary = Location(1, Mapping(file="/usr/lib/libnode.so"))
    profile = Profile(TYPES, (Sample((binary,), (1, 3)), Sample((Location(2),), (1, 2))))
    assert table(profile) == {"[libnode.so]": (3, 3), "<unknown>": (2, 2)}


def test_labels_tell_a_line_without_a_function() -> None:
    """A file and line alone are a name too."""
    assert frame_label(Frame(file="a.py", line=3)) == "a.py:3"
    assert frame_label(Frame("f", "a.py", 3, "/bin/app")) == "f a.py:3"


def test_trimming_connects_callers_to_what_is_left() -> None:
    """Below the cutoff a frame and its own value go; what it called hangs on its caller."""
    profile = profile_of(
        ("main thin save", 40), ("main thin", 9), ("main handle save", 60), ("main rare", 1)
    )
    trim = Trim(node_fraction=0.5)
    assert table(profile, trim) == {"save": (100, 100), "handle": (0, 60), "main": (0, 110)}
    assert edges(profile, trim) == {
        ("main", "save"): 40,
        ("main", "handle"): 60,
        ("handle", "save"): 60,
    }
    graph = call_graph(call_tree(profile, (1,)), trim)
    assert (graph.dropped, graph.kept) == (2, 3)


def test_node_count_keeps_the_largest() -> None:
    """Only so many nodes are left, by flat or by cum as asked, and the rest is counted."""
    profile = profile_of(("main a", 5), ("main b", 7), ("main c", 3))
    tree = call_tree(profile, (1,))
    by_flat = call_graph(tree, Trim(node_count=2))
    assert [node.label for node in by_flat.nodes] == ["b", "a"]
    assert (by_flat.dropped, by_flat.kept) == (0, 4)
    by_cum = call_graph(tree, Trim(node_count=2), by_cum=True)
    assert [node.label for node in by_cum.nodes] == ["main", "b"]


def test_edges_below_the_fraction_are_dropped_on_both_ends() -> None:
    """A call too small to show disappears from caller and callee alike."""
    profile = profile_of(("main a", 99), ("main b", 1))
    graph = call_graph(call_tree(profile, (1,)), Trim(edge_fraction=0.05))
    by_name = {node.label: node for node in graph.nodes}
    assert [edge.callee.label for edge in by_name["main"].callees.values()] == ["a"]
    assert by_name["b"].callers == {}


def test_a_very_deep_stack_is_no_problem() -> None:
    """Depth is bounded by the profile's limits, not by Python's recursion."""
    depth = 4096
    stack = tuple(at(f"f{level}") for level in range(depth))
    graph = call_graph(call_tree(Profile(TYPES, (Sample(stack, (1, 1)),)), (1,)))
    assert len(graph.nodes) == depth


@given(profiles(TYPES, tuple(at(name) for name in "abcd"), st.integers(-50, 50)))
def test_flat_and_cum_are_those_counted_sample_by_sample(profile: Profile) -> None:
    """The graph agrees with the definition: leaf for flat, once per sample for cum and calls."""
    flat: Counter[str] = Counter()
    cum: Counter[str] = Counter()
    calls: Counter[tuple[str, str]] = Counter()
    for sample in profile.samples:
        names = [location.lines[0].function.name for location in sample.locations]
        for name in names[:1]:
            flat[name] += sample.values[1]
        for name in set(names):
            cum[name] += sample.values[1]
        for callee, caller in set(pairwise(names)):
            if caller != callee:
                calls[caller, callee] += sample.values[1]
    shown = {name: (flat[name], cum[name]) for name in cum if flat[name] or cum[name]}
    assert table(profile) == shown
    assert {call: weight for call, weight in edges(profile).items() if weight} == {
        call: weight for call, weight in calls.items() if weight and call[0] in shown
    }


@pytest.mark.parametrize("path", PROFILES, ids=golden_id)
def test_trees_of_golden_profiles_add_up(path: Path) -> None:
    """In real profiles each node's cum is its flat and its children's cum, for every type."""
    profile = parse(path.read_bytes())
    root = call_tree(profile, range(len(profile.sample_types)), Granularity.LINES)
    for node in walk(root):
        below = [child.cum for child in node.children.values()]
        assert node.cum == tuple(map(sum, zip(node.flat, *below, strict=True)))
    totals = tuple(map(sum, zip(*(s.values for s in profile.samples), strict=True)))
    assert root.cum == totals

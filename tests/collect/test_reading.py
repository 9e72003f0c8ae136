"""Profiles as a watcher reads them: the same as the profile model says, each stack made once."""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.collect import reading
from stanch.collect.reading import Reader
from stanch.profile import (
    Function,
    Line,
    Location,
    Profile,
    ProfileError,
    Sample,
    ValueType,
    encode,
)
from stanch.profile import parse as parse_model
from stanch.store import Frame, Stack
from stanch.store.lookprofile import HEAP_TYPES
from tests.profile.golden import GOLDEN
from tests.profile.strategies import profiles
from tests.store.pprofs import heap_bytes

_LIVE = st.integers(-(2**40), 2**40)


def stack_of(sample: Sample) -> Stack:
    """The frames of a sample by the model, at most 64."""
    frames = []
    for location in sample.locations:
        frames += [
            Frame(line.function.name, line.function.filename, max(line.line, 0) % 2**32)
            for line in location.lines
        ] or [Frame(f"{location.address:#x}", "", 0)]
    return tuple(frames[:64])


@settings(max_examples=40)
@given(profiles(types=HEAP_TYPES, values=_LIVE))
def test_a_heap_says_what_the_model_says(profile: Profile) -> None:
    """Bytes and objects of each stack are the sums over its labels; below zero is zero."""
    expected: dict[Stack, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for sample in profile.samples:
        values = [max(value, 0) for value in sample.values]
        if any(values):
            total = expected[stack_of(sample)]
            for position, value in enumerate((values[1], values[3], values[2])):
                total[position] += value
    heap = Reader().read(encode(profile)).heap
    found = {one.stack: [one.allocated_bytes, one.live_bytes, one.live_objects] for one in heap}
    assert len(found) == len(heap)
    assert found == expected


def test_births_are_added_up_over_the_labels_of_a_stack() -> None:
    """Two routes that keep memory from one line are one stack with one band."""
    stack = (Location(0, None, (Line(Function("keep", "", "app.py"), 3),)),)
    born = (("birth", 5, "seconds"),)
    samples = tuple(
        Sample(stack, (0, 0, 1, 1000), (("route", route),), born) for route in ("/a", "/b")
    )
    (heap,) = Reader().read(encode(Profile(HEAP_TYPES, samples))).heap
    assert heap.births == ((5.0, 2000.0),)
    assert heap.stack == (Frame("keep", "app.py", 3),)


def test_counts_have_their_kind() -> None:
    """Threads and tasks are told apart by their label; what has none is a goroutine."""
    stack = (Location(0, None, (Line(Function("wait", "", "app.py"), 3),)),)
    samples = [Sample(stack, (2,), (("kind", kind),)) for kind in ("task", "thread", "other")]
    samples.append(Sample(stack, (4,)))
    profile = Profile((ValueType("goroutine", "count"),), tuple(samples))
    counts = Reader().read(encode(profile)).counts
    assert {count.kind: count.count for count in counts} == {
        "task": 2.0,
        "thread": 2.0,
        "goroutine": 6.0,
    }


def test_a_go_program_is_told_by_its_first_mapping() -> None:
    """The file and the build id of a Go binary are those of the profile's first mapping."""
    data = (GOLDEN / "go1.26" / "heap.pb.gz").read_bytes()
    said, model = Reader().read(data), parse_model(data)
    assert said.executable.is_go
    assert said.executable.name == model.mappings[0].file
    assert said.build_id == model.mappings[0].build_id
    assert said.period == model.period


def test_a_stack_is_made_once_and_few_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks share their stacks; those beyond the bound are forgotten and read right again."""
    monkeypatch.setattr(reading, "_MAX_STACKS", 3)
    reader = Reader()
    first = reader.read(heap_bytes({"a": 1000, "b": 1000}))
    again = reader.read(heap_bytes({"a": 2000, "b": 1000}))
    assert [one.stack for one in again.heap] == [one.stack for one in first.heap]
    assert all(one.stack is other.stack for one, other in zip(first.heap, again.heap, strict=True))
    assert first.fingerprint != again.fingerprint
    for names in ("cd", "ab", "cd"):
        heap = reader.read(heap_bytes(dict.fromkeys(names, 1000))).heap
        assert [one.stack[0].function for one in heap] == list(names)


def test_what_is_no_profile_is_refused_in_words() -> None:
    """A page of HTML is told to be one."""
    with pytest.raises(ProfileError, match="HTML"):
        Reader().read(b"<!doctype html><html></html>")

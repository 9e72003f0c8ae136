"""focus, ignore, hide and show: which samples and frames are left."""

import re

import pytest

from stanch.profile import (
    Filters,
    Function,
    Line,
    Location,
    Mapping,
    Profile,
    Sample,
    ValueType,
    apply_filters,
)

TYPES = (ValueType("space", "bytes"),)
STACKS = ("main handle save", "main handle json.dumps", "main poll")


def profile_of(*stacks: str) -> Profile:
    """Make a profile of stacks, the root first; `json.dumps` is in a file json.py."""
    return Profile(
        TYPES,
        tuple(
            Sample(tuple(location(name) for name in reversed(stack.split())), (1,))
            for stack in stacks
        ),
    )


def location(name: str) -> Location:
    """Make a frame of a function."""
    module = name.partition(".")[0]
    return Location(lines=(Line(Function(name, filename=f"/lib/{module}.py"), 1),))


def left(profile: Profile) -> list[str]:
    """List the stacks of a profile, the root first."""
    return [
        " ".join(line.function.name for each in reversed(sample.locations) for line in each.lines)
        for sample in profile.samples
    ]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, STACKS),
        ({"focus": "handle"}, STACKS[:2]),
        ({"ignore": "handle"}, STACKS[2:]),
        ({"focus": "handle", "ignore": "save"}, STACKS[1:2]),
        ({"focus": r"/lib/json\.py"}, STACKS[1:2]),
        ({"focus": "^(save|poll)$"}, (STACKS[0], STACKS[2])),
        ({"hide": "^handle$"}, ("main save", "main json.dumps", "main poll")),
        ({"show": "main|save"}, ("main save", "main", "main")),
        ({"show": "handle"}, ("handle", "handle")),
        ({"focus": "save", "hide": "save"}, ("main handle",)),
        ({"focus": "nowhere"}, ()),
    ],
)
def test_filters(filters: dict[str, str], expected: tuple[str, ...]) -> None:
    """Each filter leaves what pprof's filter of that name leaves."""
    compiled = Filters(**{name: re.compile(text) for name, text in filters.items()})
    assert tuple(left(apply_filters(profile_of(*STACKS), compiled).profile)) == expected


def test_idle_filters_are_named() -> None:
    """A filter that matches no frame is told, so that a typo does not pass for an answer."""
    filters = Filters(focus=re.compile("save"), hide=re.compile("nowhere"), ignore=re.compile("x"))
    assert apply_filters(profile_of(*STACKS), filters).idle == ("ignore", "hide")


def test_the_binary_counts_as_a_name() -> None:
    """Frames without a function are found by the file of their mapping."""
    native = Location(1, Mapping(file="/usr/lib/libnode.so"))
    profile = Profile(TYPES, (Sample((native, location("main")), (1,)),))
    assert apply_filters(profile, Filters(focus=re.compile("libnode"))).profile == profile
    hidden = apply_filters(profile, Filters(hide=re.compile("libnode"))).profile
    assert left(hidden) == ["main"]


def test_hiding_one_inlined_frame_keeps_the_others() -> None:
    """Of a location with several lines only those that match are hidden."""
    inner, outer = Line(Function("inner"), 1), Line(Function("outer"), 2)
    profile = Profile(TYPES, (Sample((Location(1, None, (inner, outer)),), (1,)),))
    (sample,) = apply_filters(profile, Filters(hide=re.compile("inner"))).profile.samples
    assert sample.locations[0].lines == (outer,)

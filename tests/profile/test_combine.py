"""merge, scale and diff: arithmetic on profiles, checked as laws and on real profiles."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.profile import (
    Function,
    Line,
    Location,
    Mapping,
    Profile,
    ProfileError,
    Sample,
    ValueType,
    diff,
    encode,
    merge,
    parse,
    scale,
)
from tests.profile.golden import GOLDEN, PROFILES, go_pprof, golden_id
from tests.profile.strategies import profiles

TYPES = (ValueType("objects", "count"), ValueType("space", "bytes"))
PERIOD = ValueType("space", "bytes")
# Few frames, so that stacks of different profiles are often equal.
FRAMES = tuple(
    Location(0, None, (Line(Function(name, filename=f"{name}.py"), line),))
    for name in ("main", "handle", "remember")
    for line in (1, 2)
)
ALIKE = profiles(TYPES, FRAMES, st.integers(-1000, 1000)).map(
    lambda profile: replace(profile, period_type=PERIOD)
)

Sums = Counter[tuple[object, ...]]


def sums(profile: Profile) -> list[Sums]:
    """Add up each sample type by stack and labels; what is 0 is left out."""
    columns: list[Sums] = [Counter() for _ in profile.sample_types]
    for sample in profile.samples:
        key = (sample.locations, tuple(sorted(sample.labels)), tuple(sorted(sample.num_labels)))
        for column, value in zip(columns, sample.values, strict=True):
            column[key] += value
    return [Counter({key: value for key, value in each.items() if value}) for each in columns]


@given(ALIKE, ALIKE, ALIKE)
def test_merge_is_associative(a: Profile, b: Profile, c: Profile) -> None:
    """How profiles are grouped does not change the result, its header included."""
    left, right, flat = merge((merge((a, b)), c)), merge((a, merge((b, c)))), merge((a, b, c))
    assert sums(left) == sums(right) == sums(flat)
    assert replace(left, samples=()) == replace(right, samples=()) == replace(flat, samples=())


@given(ALIKE, ALIKE)
def test_merge_adds_and_does_not_depend_on_order(a: Profile, b: Profile) -> None:
    """Every value of the result is the sum of those given, whichever comes first."""
    side_by_side = replace(a, samples=a.samples + b.samples)
    assert sums(merge((a, b))) == sums(merge((b, a))) == sums(side_by_side)


@given(ALIKE)
def test_a_profile_less_itself_is_empty(profile: Profile) -> None:
    """diff(p, p) has no sample left."""
    assert diff(profile, profile).samples == ()


@given(ALIKE, ALIKE)
def test_old_plus_the_difference_is_new(old: Profile, new: Profile) -> None:
    """diff gives exactly what has to be added to the old profile to get the new one."""
    assert sums(merge((old, diff(old, new)))) == sums(new)


@given(ALIKE, st.integers(-5, 5))
def test_scaling_by_a_whole_number_multiplies(profile: Profile, factor: int) -> None:
    """A whole ratio is exact."""
    assert [sample.values for sample in scale(profile, factor).samples] == [
        tuple(value * factor for value in sample.values) for sample in profile.samples
    ]


def test_scaling_rounds_and_keeps_large_values_exact_for_whole_ratios() -> None:
    """A broken ratio rounds to the nearest; -1 does not lose the low bits of large values."""
    profile = Profile(TYPES, (Sample((FRAMES[0],), (3, 2**62 + 1)),))
    assert scale(profile, 0.5).samples[0].values[0] == 2
    assert scale(profile, -1).samples[0].values == (-3, -(2**62) - 1)


@pytest.mark.parametrize("ratio", [float("nan"), float("inf"), float("-inf")])
def test_scaling_by_what_is_no_number_is_refused(ratio: float) -> None:
    """A ratio that is not finite is told, before any value is touched."""
    with pytest.raises(ProfileError, match="expected a finite number"):
        scale(Profile(TYPES), ratio)


def test_merge_combines_headers_as_pprof_does() -> None:
    """Earliest time, summed durations, longest period, comments once, the first name known."""
    first = Profile(TYPES, (), "", PERIOD, 512, time_nanos=0, duration_nanos=5, comments=("a", "b"))
    second = Profile(
        TYPES, (), "space", PERIOD, 1024, time_nanos=70, duration_nanos=6, comments=("b", "c")
    )
    third = replace(second, time_nanos=60, default_sample_type="objects")
    assert merge((first, second, third)) == Profile(
        TYPES, (), "space", PERIOD, 1024, 60, 17, ("a", "b", "c")
    )


def test_a_difference_has_the_header_of_the_new_profile() -> None:
    """Time, duration and comments say which snapshot the difference leads to."""
    old = Profile(TYPES, time_nanos=10, duration_nanos=1, comments=("requests=1",))
    new = Profile(TYPES, time_nanos=20, duration_nanos=2, comments=("requests=9",))
    assert diff(old, new) == new


def test_merge_interns_across_profiles() -> None:
    """Equal locations of different profiles are one object in the result."""
    function, mapping = Function("f"), Mapping(file="/app")
    profiles_of_two = [
        Profile(
            TYPES,
            tuple(
                Sample(
                    (
                        Location(
                            1,
                            replace(mapping),
                            (Line(replace(function), line),),
                        ),
                    ),
                    (1, 1),
                )
                for line in (1, 2)
            ),
        )
        for _ in range(2)
    ]
    first, second = merge(profiles_of_two).samples
    assert (first.values, second.values) == ((2, 2), (2, 2))
    assert first.locations[0].lines[0].function is second.locations[0].lines[0].function
    assert first.locations[0].mapping is second.locations[0].mapping


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Profile(TYPES[:1]), r"\(objects/count, space/bytes\) and of \(objects/count\)"),
        (Profile(TYPES, period_type=PERIOD), "periods in / and in space/bytes"),
    ],
    ids=["sample types", "period type"],
)
def test_profiles_of_different_kinds_are_not_merged(other: Profile, said: str) -> None:
    """The error names both kinds."""
    with pytest.raises(ProfileError, match=said):
        merge((Profile(TYPES), other))


def test_merging_nothing_is_refused() -> None:
    """An empty merge has no sample types to give."""
    with pytest.raises(ProfileError, match="expected at least one"):
        merge(())


@pytest.mark.parametrize("path", PROFILES, ids=golden_id)
def test_golden_profiles_merge_with_themselves(path: Path) -> None:
    """Twice a real profile is the profile scaled by two, and less itself it is empty."""
    profile = parse(path.read_bytes())
    assert sums(merge((profile, profile))) == sums(scale(profile, 2))
    assert diff(profile, profile).samples == ()


def test_go_gives_the_same_difference(tmp_path: Path) -> None:
    """go tool pprof -base and diff agree on every value."""
    old, new = GOLDEN / "go1.26" / "heap.pb.gz", GOLDEN / "go1.26" / "heap_delta.pb.gz"
    ours = tmp_path / "diff.pb.gz"
    ours.write_bytes(encode(diff(parse(old.read_bytes()), parse(new.read_bytes()))))
    report = ("-top", "-lines", "-nodefraction=0", "-compact_labels")
    assert go_pprof(*report, ours).stdout == go_pprof(*report, f"-base={old}", new).stdout

"""How values are written: as go tool pprof writes them."""

import pytest

from stanch.profile import (
    Profile,
    ProfileError,
    ValueType,
    format_percentage,
    format_value,
    report_unit,
    sample_index,
    scale_value,
)


@pytest.mark.parametrize(
    ("value", "unit", "to", "text"),
    [
        (0, "bytes", "minimum", "0"),
        (512, "bytes", "minimum", "512B"),
        (1536, "bytes", "minimum", "1.50kB"),
        (1 << 20, "bytes", "minimum", "1MB"),
        (-(1 << 20), "bytes", "minimum", "-1MB"),
        (3 << 60, "bytes", "minimum", "3072PB"),
        (1 << 20, "bytes", "kb", "1024kB"),
        (2, "kilobytes", "B", "2048B"),
        (1, "bytes", "GB", "0"),
        (1500, "nanoseconds", "minimum", "1.50us"),
        (90_000_000_000, "nanoseconds", "minimum", "90s"),
        (7200, "seconds", "auto", "2hrs"),
        (12, "count", "minimum", "12"),
        (12, "widgets", "widgets", "12widgets"),
        (5, "bytes", "seconds", "5B"),
    ],
)
def test_values(value: int, unit: str, to: str, text: str) -> None:
    """A value is scaled to the unit asked for, or to the largest that leaves it at least 1."""
    assert format_value(value, unit, to) == text


@pytest.mark.parametrize(
    ("value", "total", "text"),
    [
        (0, 100, "    0%"),
        (0, 0, "    0%"),
        (50, 100, "50.00%"),
        (-50, 100, "50.00%"),
        (9996, 10000, "  100%"),
        (300, 100, "300.00%"),
        (1, 300, " 0.33%"),
        (1, 1000000, "0.0001%"),
    ],
)
def test_percentages(value: int, total: int, text: str) -> None:
    """Percentages have two digits at least, and close to the whole they are 100."""
    assert format_percentage(value, total) == text


def test_the_unit_of_a_report_is_that_of_its_smallest_value() -> None:
    """All values of a table are in one unit, in which the smallest can still be read."""
    assert report_unit([2048, 4096], 6144, "bytes") == "kB"
    assert report_unit([100, 5 << 20], 6 << 20, "bytes") == "kB"
    assert report_unit([], 5 << 20, "bytes") == "MB"
    assert report_unit([3], 4, "count") == "count"


def test_seconds_below_a_nanosecond_stay_seconds() -> None:
    """A value too small for any unit is given in its kind's default."""
    assert scale_value(0, "nanoseconds") == (0.0, "s")


TYPES = tuple(
    ValueType(name, "count") for name in ("alloc_objects", "alloc_space", "inuse_space", "space")
)


@pytest.mark.parametrize(
    ("name", "default", "index"),
    [
        ("", "", 3),
        ("", "alloc_space", 1),
        ("", "no such type", 3),
        ("alloc_objects", "alloc_space", 0),
        ("2", "", 2),
        ("inuse_space", "", 2),
    ],
)
def test_sample_types_are_found_by_name_or_number(name: str, default: str, index: int) -> None:
    """Without a name, it is the profile's default, or else the last, as in pprof."""
    assert sample_index(Profile(TYPES, default_sample_type=default), name) == index


def test_inuse_space_also_finds_space() -> None:
    """Old profiles have the types without the prefix."""
    assert sample_index(Profile(TYPES[3:]), "inuse_space") == 0


@pytest.mark.parametrize("name", ["cpu", "4", "-1", "²"])
def test_a_sample_type_that_is_not_there_is_told_with_those_that_are(name: str) -> None:
    """The error lists the names to choose from."""
    with pytest.raises(ProfileError, match="alloc_objects, alloc_space, inuse_space, space"):
        sample_index(Profile(TYPES), name)

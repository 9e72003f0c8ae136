"""A profile from one function's point of view."""

from stanch.profile import Function, Line, Location, Profile, Sample, ValueType, callees, callers


def profile_of(*stacks: tuple[str, int]) -> Profile:
    """A profile of stacks such as ("main handle", 5), the root first."""
    return Profile(
        (ValueType("space", "bytes"),),
        tuple(
            Sample(
                tuple(Location(lines=(Line(Function(name), 1),)) for name in names.split()[::-1]),
                (value,),
            )
            for names, value in stacks
        ),
    )


def stacks_of(profile: Profile) -> list[tuple[str, int]]:
    """The stacks of a profile, the root first."""
    return [
        (
            " ".join(each.lines[0].function.name for each in reversed(sample.locations)),
            sample.values[0],
        )
        for sample in profile.samples
    ]


PROFILE = profile_of(
    ("main handle save write", 5),
    ("main poll save", 3),
    ("main poll", 2),
    ("main save a save b", 1),
)


def test_callees_begin_at_the_function() -> None:
    """What a function calls stands below it, for each way into it; the rest is left out."""
    assert stacks_of(callees(PROFILE, "save")) == [
        ("save write", 5),
        ("save", 3),
        ("save a save b", 1),
    ]


def test_callers_are_turned_round() -> None:
    """Who calls a function stands below it, the nearest first; no value counts twice."""
    assert stacks_of(callers(PROFILE, "save")) == [
        ("save handle main", 5),
        ("save poll main", 3),
        ("save main", 1),
    ]


def test_an_unknown_function_has_neither() -> None:
    """Nothing is left of a profile in which the function does not stand."""
    assert callees(PROFILE, "x").samples == callers(PROFILE, "x").samples == ()

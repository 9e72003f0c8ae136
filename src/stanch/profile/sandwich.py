"""A profile as one function sees it: what it calls, or who calls it.

Both give a profile whose stacks all begin at that function, so that tables and flame graphs draw
them like any other. In a recursion the outermost call counts, so no value counts twice.
"""

from dataclasses import replace

from stanch.profile.model import Profile, Sample


def callees(profile: Profile, function: str) -> Profile:
    """The samples through a function, from its outermost call down; the others are left out."""
    found = []
    for sample in profile.samples:
        calls = _calls(sample, function)
        if calls:
            found.append(replace(sample, locations=sample.locations[: calls[-1] + 1]))
    return replace(profile, samples=tuple(found))


def callers(profile: Profile, function: str) -> Profile:
    """The samples through a function, its callers turned round to stand below it."""
    found = []
    for sample in profile.samples:
        calls = _calls(sample, function)
        if calls:
            found.append(replace(sample, locations=sample.locations[calls[-1] :][::-1]))
    return replace(profile, samples=tuple(found))


def _calls(sample: Sample, function: str) -> list[int]:
    """Where a function stands in a stack, innermost first."""
    return [
        position
        for position, location in enumerate(sample.locations)
        if any(line.function.name == function for line in location.lines)
    ]

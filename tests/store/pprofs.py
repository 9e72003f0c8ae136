"""Profiles for the tests of the lasting store: heaps in the agent's shape."""

from collections.abc import Mapping

from stanch.profile import Function, Line, Location, Profile, Sample, ValueType, encode
from stanch.store.lookprofile import HEAP_TYPES


def frames(*names: str) -> tuple[Location, ...]:
    """A stack, leaf first; each function in a file of its own."""
    return tuple(
        Location(0, None, (Line(Function(name, "", f"/srv/app/{name}.py", 5), 10),))
        for name in names
    )


def heap_profile(
    live: Mapping[str, int],
    *,
    age_s: float = 60.0,
    labels: tuple[tuple[str, str], ...] = (),
    time_s: float = 0.0,
    comments: tuple[str, ...] = (),
) -> Profile:
    """A heap of stacks NAME < main with so many live bytes, born in the first band."""
    samples = []
    for name, size in live.items():
        stack = frames(name, "main")
        samples.append(Sample(stack, (size // 50, size * 2, 0, 0)))
        samples.append(Sample(stack, (0, 0, size // 100, size), labels, (("birth", 0, "seconds"),)))
    return Profile(
        HEAP_TYPES,
        tuple(samples),
        "inuse_space",
        ValueType("space", "bytes"),
        524_288,
        round(time_s * 1e9),
        round(age_s * 1e9),
        comments,
    )


def heap_bytes(live: Mapping[str, int], **options: object) -> bytes:
    """Such a heap as it is sent."""
    return encode(heap_profile(live, **options))  # type: ignore[arg-type]

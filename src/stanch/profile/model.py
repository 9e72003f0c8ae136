"""The values of a pprof profile, in the words of profile.proto, with its tables resolved.

Where the protocol buffer refers by id into tables of strings, functions, locations and mappings,
these values refer to each other. All are immutable and compare by value. What `parse` and `merge`
give is interned too: inside one profile, equal functions, locations and stacks are one object.

Source of the fields: https://github.com/google/pprof/blob/main/proto/profile.proto
"""

from dataclasses import dataclass

from stanch.profile.errors import ProfileError


@dataclass(frozen=True, slots=True)
class ValueType:
    """What a number counts and in which unit, such as ("inuse_space", "bytes")."""

    type: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Mapping:
    """A binary or library mapped into the process; addresses are virtual, `limit` is exclusive."""

    start: int = 0
    limit: int = 0
    offset: int = 0
    file: str = ""
    build_id: str = ""
    has_functions: bool = False
    has_filenames: bool = False
    has_line_numbers: bool = False
    has_inline_frames: bool = False


# What stands in a file for "no mapping, but names": without it, pprof looks for a binary to take
# names from and warns that there is none. Decoded, it is None.
NAMES_WITHOUT_BINARY = Mapping(has_functions=True, has_filenames=True, has_line_numbers=True)


@dataclass(frozen=True, slots=True)
class Function:
    """A function; `start_line` is 0 when unknown."""

    name: str
    system_name: str = ""
    filename: str = ""
    start_line: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """A place in a function's source; `line` counts from 1, 0 when unknown, `column` likewise."""

    function: Function
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Location:
    """A frame of a stack: `lines` holds what was inlined here, innermost first, the caller last."""

    address: int = 0
    mapping: Mapping | None = None
    lines: tuple[Line, ...] = ()
    is_folded: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """A stack, leaf first, with one value per sample type of the profile.

    labels: (key, value) pairs. num_labels: (key, value, unit) triples.
    """

    locations: tuple[Location, ...]
    values: tuple[int, ...]
    labels: tuple[tuple[str, str], ...] = ()
    num_labels: tuple[tuple[str, int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """Samples and what is common to them.

    period: the mean distance between two samples, in units of `period_type`.
    time_nanos: when it was taken, ns since the Unix epoch. duration_nanos: what it covers, in ns.
    mappings: the first one is the main binary; those that samples refer to need not be listed.
    """

    sample_types: tuple[ValueType, ...]
    samples: tuple[Sample, ...] = ()
    default_sample_type: str = ""
    period_type: ValueType = ValueType()
    period: int = 0
    time_nanos: int = 0
    duration_nanos: int = 0
    comments: tuple[str, ...] = ()
    mappings: tuple[Mapping, ...] = ()
    drop_frames: str = ""
    keep_frames: str = ""
    doc_url: str = ""


def sample_index(profile: Profile, name: str = "") -> int:
    """Find the position of a sample type by its name, or by its position written as a number.

    As in pprof, an empty name is the profile's default sample type, else the last one, and
    "inuse_space" also finds a type called "space".
    Raises ProfileError with the names there are.
    """
    types = [value_type.type for value_type in profile.sample_types]
    if not types:
        raise ProfileError("the profile has no sample type; expected at least one, take it again")
    if not name:
        name = profile.default_sample_type
        return types.index(name) if name in types else len(types) - 1
    for wanted in (name, name.removeprefix("inuse_")):
        if wanted in types:
            return types.index(wanted)
    if name.isascii() and name.isdigit() and int(name) < len(types):
        return int(name)
    raise ProfileError(
        f"the profile has no sample type {name!r}; expected one of {', '.join(types)}"
        f" or a number below {len(types)}"
    )

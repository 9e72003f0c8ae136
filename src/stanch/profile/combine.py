"""Profiles to one profile: merge, scale, and diff, which is both of them.

A profile stands for the sums of its samples' values per stack and labels, so order and grouping of
a merge do not matter to what the result says; they do to the order of its samples, which is that
of first appearance, and to nothing else.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from stanch.profile.errors import ProfileError
from stanch.profile.model import Function, Line, Location, Mapping, Profile, Sample

_SampleKey = tuple[tuple[int, ...], tuple[tuple[str, str], ...], tuple[tuple[str, int, str], ...]]


def merge(profiles: Iterable[Profile]) -> Profile:
    """Add profiles up: one sample for each stack and set of labels; samples of zeros are dropped.

    As pprof has it, the result has the earliest known time, the durations' sum, the longest period
    and all comments once; the other fields are the first profile's that has them.
    Raises ProfileError when none is given, or when their sample types or period types differ.
    """
    given = tuple(profiles)
    if not given:
        raise ProfileError("no profile was given to merge; expected at least one")
    first = given[0]
    for other in given[1:]:
        require_same_types(first, other)
    interner = _Interner()
    sums: dict[_SampleKey, Sample] = {}
    for profile in given:
        for sample in profile.samples:
            stack = tuple(map(interner.location, sample.locations))
            key = (
                tuple(map(id, stack)),
                tuple(sorted(sample.labels)),
                tuple(sorted(sample.num_labels)),
            )
            known = sums.get(key)
            if known is None:
                sums[key] = Sample(stack, sample.values, sample.labels, sample.num_labels)
            else:
                values = tuple(map(int.__add__, known.values, sample.values))
                sums[key] = Sample(known.locations, values, known.labels, known.num_labels)
    mappings = (interner.mapping(each) for profile in given for each in profile.mappings)
    return Profile(
        sample_types=first.sample_types,
        samples=tuple(sample for sample in sums.values() if any(sample.values)),
        default_sample_type=_first_known(profile.default_sample_type for profile in given),
        period_type=first.period_type,
        period=max(profile.period for profile in given),
        time_nanos=min((each.time_nanos for each in given if each.time_nanos), default=0),
        duration_nanos=sum(profile.duration_nanos for profile in given),
        comments=tuple(dict.fromkeys(text for profile in given for text in profile.comments)),
        mappings=tuple(dict.fromkeys(mappings)),
        drop_frames=_first_known(profile.drop_frames for profile in given),
        keep_frames=_first_known(profile.keep_frames for profile in given),
        doc_url=_first_known(profile.doc_url for profile in given),
    )


def scale(profile: Profile, ratio: float) -> Profile:
    """Multiply every value by `ratio`, rounding to the nearest; a whole `ratio` is exact.

    Raises ProfileError when `ratio` is not finite.
    """
    if not math.isfinite(ratio):
        raise ProfileError(f"the ratio {ratio} was given; expected a finite number to scale by")
    return replace(
        profile,
        samples=tuple(
            replace(sample, values=tuple(round(value * ratio) for value in sample.values))
            for sample in profile.samples
        ),
    )


def diff(old: Profile, new: Profile) -> Profile:
    """Give what `new` has more than `old`, less being negative; equal samples are absent.

    Time, duration and comments are those of `new`. Raises ProfileError as `merge` does.
    """
    difference = merge((scale(old, -1), new))
    return replace(
        difference,
        time_nanos=new.time_nanos,
        duration_nanos=new.duration_nanos,
        comments=new.comments,
    )


def require_same_types(first: Profile, other: Profile) -> None:
    """Raise ProfileError unless the profiles have the same sample types and period type."""
    if first.sample_types != other.sample_types:
        named = [
            ", ".join(f"{each.type}/{each.unit}" for each in profile.sample_types)
            for profile in (first, other)
        ]
        raise ProfileError(
            f"profiles of ({named[0]}) and of ({named[1]}) were given together;"
            " expected the same sample types, so combine profiles of one kind"
        )
    if first.period_type != other.period_type:
        raise ProfileError(
            f"profiles with periods in {first.period_type.type}/{first.period_type.unit} and in"
            f" {other.period_type.type}/{other.period_type.unit} were given together;"
            " expected the same, so combine profiles of one kind"
        )


def _first_known(texts: Iterable[str]) -> str:
    return next(filter(None, texts), "")


class _Interner:
    """Gives one object for all equal locations, and within them for functions and mappings."""

    def __init__(self) -> None:
        self._by_identity: dict[int, Location] = {}
        self._locations: dict[Location, Location] = {}
        self._functions: dict[Function, Function] = {}
        self._mappings: dict[Mapping, Mapping] = {}

    def location(self, location: Location) -> Location:
        known = self._by_identity.get(id(location))
        if known is None:
            known = self._locations.get(location) or self._add(location)
            self._by_identity[id(location)] = known
        return known

    def mapping(self, mapping: Mapping) -> Mapping:
        return self._mappings.setdefault(mapping, mapping)

    def _add(self, location: Location) -> Location:
        interned = Location(
            location.address,
            location.mapping and self.mapping(location.mapping),
            tuple(
                Line(
                    self._functions.setdefault(line.function, line.function), line.line, line.column
                )
                for line in location.lines
            ),
            location.is_folded,
        )
        self._locations[interned] = interned
        return interned

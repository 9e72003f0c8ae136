"""The decoder in C: the same sums as the profile model gives, for any profile and any garbage."""

import gzip
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.profile import Profile, ProfileError, ValueType, encode, parse
from stanch.store.decoder import Decoded, digest
from stanch.store.lookprofile import HEAP_TYPES
from stanch.store.rows import Rows, band_width_s, is_heap, kind_of, open_profile, rows_of
from tests.profile.golden import PROFILES, golden_id
from tests.profile.strategies import LOCATIONS, profiles
from tests.store.pprofs import heap_bytes, heap_profile

_FRAMES = 256
Key = tuple[tuple[tuple[str, str, int, int], ...], tuple[tuple[str, str], ...]]


def decoded_sums(rows: Rows) -> dict[Key, tuple[int, ...]]:
    """The four values by stack and labels."""
    values = [
        np.frombuffer(column, np.uint64)
        for column in (rows.alloc_objects, rows.alloc_bytes, rows.live_objects, rows.live_bytes)
    ]
    labels = np.frombuffer(rows.labels, np.uint32)
    sums = {}
    for row in range(rows.count):
        stack = rows.new_stacks[rows.stacks[16 * row : 16 * row + 16]]
        key = (tuple(stack), tuple(sorted(rows.label_sets[labels[row]])))
        assert key not in sums
        sums[key] = tuple(int(column[row]) for column in values)
    return sums


def parsed_sums(profile: Profile) -> dict[Key, tuple[int, ...]]:
    """The same from the model: values below zero count as zero, lines too."""
    types = [value_type.type for value_type in profile.sample_types]
    order = [types.index(value_type.type) for value_type in HEAP_TYPES]
    sums: dict[Key, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for sample in profile.samples:
        frames = []
        for location in sample.locations:
            frames += [
                (line.function.name, line.function.filename, _u32(line.line), _start(line))
                for line in location.lines
            ] or [(f"{location.address:#x}", "", 0, 0)]
        values = [max(sample.values[position], 0) for position in order]
        if any(values):
            total = sums[tuple(frames[:_FRAMES]), tuple(sorted(sample.labels))]
            for number, value in enumerate(values):
                total[number] = min(total[number] + value, 2**64 - 1)
    return {key: tuple(total) for key, total in sums.items()}


def _u32(line: int) -> int:
    return max(line, 0) % 2**32


def _start(line: object) -> int:
    return line.function.start_line % 2**32  # type: ignore[attr-defined]


def _without_starts(sums: dict[Key, tuple[int, ...]]) -> dict[Key, tuple[int, ...]]:
    """A function's first line is not part of a stack's name: any of several may be told."""
    merged: dict[Key, tuple[int, ...]] = {}
    for (stack, labels), values in sums.items():
        key = (tuple((*frame[:3], 0) for frame in stack), labels)
        before = merged.get(key, (0,) * len(values))
        merged[key] = tuple(one + other for one, other in zip(before, values, strict=True))
    return merged


def rows_from(data: bytes, band_s: int = 5, offset_s: float = 0.0) -> Rows:
    """All rows of a profile."""
    return rows_of(open_profile(data), set(), offset_s, band_s)


@pytest.mark.parametrize("path", PROFILES, ids=golden_id)
def test_reads_what_go_writes(path: Path) -> None:
    """The golden profiles of three Go versions have the sums that the model finds in them."""
    profile = parse(path.read_bytes())
    decoded = open_profile(path.read_bytes())
    assert [ValueType(*names) for names in decoded.sample_types] == list(profile.sample_types)
    assert decoded.is_go == ("threadcreate" not in path.name)  # which has no functions
    assert (decoded.time_nanos, decoded.period) == (profile.time_nanos, profile.period)
    assert is_heap(decoded) == ("heap" in path.name or "allocs" in path.name)
    rows = rows_of(decoded, set(), 0.0, 0)
    if is_heap(decoded):
        assert decoded_sums(rows) == parsed_sums(profile)
    else:
        position = -1
        wanted = sum(max(sample.values[position], 0) for sample in profile.samples)
        assert np.frombuffer(rows.live_objects, np.uint64).sum() == wanted
        assert kind_of(decoded) == profile.sample_types[-1].type


@settings(max_examples=40)
@given(profiles(types=HEAP_TYPES, values=st.integers(-(2**40), 2**40)))
def test_agrees_with_the_model(profile: Profile) -> None:
    """Any profile has the sums that the model finds in it."""
    rows = rows_from(encode(profile))
    assert _without_starts(decoded_sums(rows)) == _without_starts(parsed_sums(profile))


@settings(max_examples=30)
@given(st.lists(LOCATIONS, min_size=1, max_size=4), st.data())
def test_names_a_stack_by_its_frames_alone(locations: list[object], data: st.DataObject) -> None:
    """The name of a stack does not depend on ids, order or what else is in the profile."""
    profile = data.draw(profiles(HEAP_TYPES, tuple(locations)))  # type: ignore[arg-type]
    turned = Profile(profile.sample_types, tuple(reversed(profile.samples)))
    one, other = rows_from(encode(profile)), rows_from(encode(turned))
    named = {name: [frame[:3] for frame in frames] for name, frames in one.new_stacks.items()}
    assert named == {
        name: [frame[:3] for frame in frames] for name, frames in other.new_stacks.items()
    }


def test_keeps_births_by_band() -> None:
    """Live bytes are kept by their second of birth, moved and put into wider bands as asked."""
    profile = parse(heap_bytes({"a": 1000}))
    samples = tuple(
        type(sample)(sample.locations, (0, 0, 1, size), (), (("birth", second, "seconds"),))
        for sample in profile.samples[:1]
        for second, size in ((0, 1), (5, 2), (10, 4), (15, 8), (40, 16))
    )
    data = encode(Profile(profile.sample_types, samples))
    for band_s, offset_s, wanted in (
        (5, 0.0, {0: 1, 5: 2, 10: 4, 15: 8, 40: 16}),
        (10, 0.0, {0: 3, 10: 12, 40: 16}),
        (10, -7.0, {0: 7, 30: 16} | {0: 1 + 2 + 4 + 8}),
        (5, 3.0, {0: 1, 5: 2, 10: 4, 15: 8, 40: 16}),
        (0, 0.0, {}),
    ):
        rows = rows_from(data, band_s, offset_s)
        found = dict(
            zip(
                np.frombuffer(rows.birth_s, np.uint32).tolist(),
                np.frombuffer(rows.birth_bytes, np.uint64).tolist(),
                strict=True,
            )
        )
        assert found == wanted
        assert np.frombuffer(rows.birth_ends, np.uint64).tolist() == [len(wanted)]


def test_tells_only_of_stacks_that_are_new() -> None:
    """Frames of known stacks are not told again."""
    first = rows_from(heap_bytes({"a": 1000, "b": 1000}))
    data = heap_bytes({"a": 1000, "c": 1000})
    again = rows_of(open_profile(data), set(first.new_stacks), 0.0, 5)
    assert [frames[0][0] for frames in again.new_stacks.values()] == ["c"]


def test_garbage_is_refused_in_words() -> None:
    """Cut, flipped and made-up bytes give an error with a reason or a profile, never a crash."""
    whole = gzip.decompress(heap_bytes({"a": 1000, "b": 2000}, labels=(("route", "/x"),)))
    chance = random.Random(2)
    refused = 0
    for number in range(4000):
        data = bytearray(whole)
        if number % 2:
            del data[chance.randrange(len(data)) :]
        for _ in range(chance.randrange(4)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            rows_of(open_profile(bytes(data) or b"\0"), set(), 0.0, 5)
        except ProfileError as error:
            assert "; " in str(error) or ": " in str(error)
            refused += 1
    assert refused > 1000


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Whatever comes is read or refused."""
    try:
        decoded = Decoded(data)
        decoded.rows(set(), 0.0, 5)
    except ValueError:
        pass


def test_what_is_wrong_is_named() -> None:
    """An HTML page, an unknown location and a wrong number of values each have their sentence."""
    with pytest.raises(ProfileError, match="HTML page"):
        open_profile(b"<html>sign in</html>")
    with pytest.raises(ValueError, match="no sample type"):
        Decoded(b"")
    with pytest.raises(ProfileError, match="location that is not there"):
        rows_from(b"\x0a\x00\x12\x04\x08\x07\x10\x01")
    with pytest.raises(ProfileError, match="another number of values"):
        rows_from(b"\x0a\x00\x12\x04\x10\x01\x10\x02")


def test_digests_are_the_same_for_ever() -> None:
    """Names of stacks are on disk, so their function must never change."""
    assert digest(b"").hex() == EMPTY_DIGEST
    assert digest(bytes(range(33))).hex() == LONG_DIGEST
    rows = rows_from(encode(heap_profile({"a": 1000})))
    assert rows.stacks[:16].hex() == STACK_NAME


EMPTY_DIGEST = "4ae8128015572f34af3e95ecd1331076"
LONG_DIGEST = "184de7914c4945853522494bc8e6f3ed"
STACK_NAME = "080de22c33f5fe8e971ab760aad6dca4"


def test_bands_double_so_that_they_are_few() -> None:
    """A band is 5 s wide until there would be more than 96, then twice that, and so on."""
    assert [band_width_s(age) for age in (0, 479, 480, 959, 960, 86_400)] == [
        5,
        5,
        10,
        10,
        20,
        1280,
    ]

"""parse on damaged, hostile and foreign data: a ProfileError with a sentence, and nothing else."""

import gzip
import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.profile import Limits, Profile, ProfileError, encode, parse
from stanch.profile.wire import bytes_field, number_field
from tests.profile.golden import GOLDEN, PROFILES, golden_id

HEAP = (GOLDEN / "go1.26" / "heap.pb.gz").read_bytes()
PLAIN = gzip.decompress(HEAP)
SMALL = [gzip.decompress(path.read_bytes()) for path in PROFILES if path.stat().st_size < 1200]


def message(*fields: bytes, strings: tuple[bytes, ...] = (b"", b"space", b"f")) -> bytes:
    """Make a plain profile with one sample type, these fields and these strings."""
    return b"".join(
        (
            bytes_field(1, number_field(1, 1)),
            *fields,
            *(bytes_field(6, text) for text in strings),
        )
    )


SAMPLE = bytes_field(2, bytes_field(1, b"\x01") + bytes_field(2, b"\x05"))
LOCATION = bytes_field(4, number_field(1, 1) + bytes_field(4, number_field(1, 1)))
FUNCTION = bytes_field(5, number_field(1, 1) + number_field(2, 2))


def test_the_message_that_the_cases_below_damage_is_a_profile() -> None:
    """Without the damage, the same bytes are read."""
    (sample,) = parse(message(SAMPLE, LOCATION, FUNCTION)).samples
    assert sample.locations[0].lines[0].function.name == "f"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "got 0 bytes"),
        (b"<!DOCTYPE html><title>Log in</title>", "looks like an HTML page"),
        (b"\n\n  <html>", "looks like an HTML page"),
        (b'{"error": "not found"}', "looks like JSON"),
        ((GOLDEN / "go1.26" / "heap_legacy.txt").read_bytes(), "Go's legacy text format"),
        (b"goroutine profile: total 3\n", "Go's legacy text format"),
        (b"404 page not found\n", "expected pprof's protocol buffer"),
        (gzip.compress(b"<html>"), "looks like an HTML page"),
        (HEAP[:100], "ends too early"),
        (HEAP[:-1], "ends too early"),
        (HEAP[:40] + b"\x00\xff\x00\xff" + HEAP[44:], "gzip stream is damaged"),
        (HEAP + b"trailing", "gzip stream is damaged"),
        (gzip.compress(b"\n") * 17, "more than 16 members"),
        (PLAIN[:-1], "ends in the middle of a field"),
        (b"\x0a\x02\x08\x01" + b"\x82" * 11, "longer than 10 bytes"),
        (message(b"\x13"), "wire type 3"),
        (message(SAMPLE, FUNCTION), "refers to location 1"),
        (message(SAMPLE, LOCATION), "refers to function 1"),
        (message(SAMPLE, LOCATION, bytes_field(5, b"\x08\x01\x10\x63")), "refers to string 99"),
        (message(SAMPLE, LOCATION, FUNCTION, FUNCTION), "function with the same id 1"),
        (message(LOCATION, LOCATION, FUNCTION), "location with the same id 1"),
        (message(bytes_field(5, b"\x10\x02")), "function with id 0"),
        (message(bytes_field(3, b"\x08\x01") * 2), "mapping with the same id 1"),
        (message(bytes_field(2, b"\x12\x02\x05\x06")), "has more than 1 values; expected 1"),
        (message(bytes_field(2, b"")), "has 0 values; expected 1"),
        (message(b"\x10\x05"), "where text or a message is expected"),
        (message(bytes_field(9, b"x")), "where a number is expected"),
        (message(b"\x49" + b"12345678"), "where a number is expected"),
        (message(strings=()), "string table is missing"),
        (message(strings=(b"space",)), "does not begin with an empty string"),
        (bytes_field(6, b""), "no sample type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_profile_is_told(data: bytes, said: str) -> None:
    """Each kind of damage has its own sentence."""
    with pytest.raises(ProfileError) as caught:
        parse(data)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_zip_bomb_is_refused_at_the_limit() -> None:
    """A gigabyte in a megabyte is not unpacked beyond the cap."""
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(1024)) + bomb.flush()
    with pytest.raises(ProfileError, match="unpacks to more than 1,000,000 bytes"):
        parse(data, Limits(decompressed_bytes=1_000_000))


def test_members_of_a_zip_bomb_count_together() -> None:
    """The cap holds for all gzip members, not for each."""
    with pytest.raises(ProfileError, match="unpacks to more than 1,000 bytes"):
        parse(gzip.compress(bytes(600)) * 2, Limits(decompressed_bytes=1_000))


DEEP = bytes_field(2, bytes_field(1, b"\x01" * 300) + bytes_field(2, b"\x05"))
UNPACKED = bytes_field(2, b"\x08\x01" * 300 + bytes_field(2, b"\x05"))
LINES = bytes_field(4, b"\x08\x01" + bytes_field(4, number_field(1, 1)) * 300)
LABELLED = bytes_field(2, b"\x10\x05" + bytes_field(3, b"\x08\x02\x10\x02") * 300)


@pytest.mark.parametrize(
    ("limits", "data"),
    [
        (Limits(sample_types=0), message()),
        (Limits(samples=2), message(SAMPLE * 3, LOCATION, FUNCTION)),
        (Limits(stack_depth=299), message(DEEP, LOCATION, FUNCTION)),
        (Limits(stack_depth=299), message(UNPACKED, LOCATION, FUNCTION)),
        (Limits(stack_depth=299), message(LINES, FUNCTION)),
        (Limits(frames=299), message(DEEP, LOCATION, FUNCTION)),
        (Limits(labels_per_sample=299), message(LABELLED)),
        (Limits(labels_per_sample=300, labels=299), message(LABELLED)),
        (Limits(lines=299), message(LINES, FUNCTION)),
        (Limits(strings=2), message()),
        (Limits(functions=0), message(FUNCTION)),
        (Limits(locations=0), message(LOCATION, FUNCTION)),
        (Limits(mappings=0), message(bytes_field(3, b"\x08\x01"))),
        (Limits(comments=1), message(bytes_field(13, b"\x01\x01"))),
        (Limits(compressed_bytes=3), message()),
        (Limits(decompressed_bytes=3), message()),
    ],
)
def test_each_limit_holds_and_is_named(limits: Limits, data: bytes) -> None:
    """Beyond a limit, the error names it; with the default limits the same data is read."""
    changed = [
        name for name in Limits.__slots__ if getattr(limits, name) != getattr(Limits(), name)
    ]
    with pytest.raises(ProfileError, match=rf"Limits\.{changed[-1]}\b"):
        parse(data, limits)
    parse(data, Limits(labels_per_sample=300))


def parse_or_refuse(data: bytes) -> None:
    """Parse; anything but a Profile that can be encoded again or a ProfileError is a failure."""
    try:
        profile = parse(data)
    except ProfileError:
        return
    assert isinstance(profile, Profile)
    assert parse(encode(profile)) == profile


@pytest.mark.parametrize("path", PROFILES, ids=golden_id)
def test_flipped_bytes_of_golden_profiles(path: Path) -> None:
    """Damage anywhere in a real profile ends in a profile or in a ProfileError."""
    plain = gzip.decompress(path.read_bytes())
    chance = random.Random(path.parent.name + path.name)
    for _ in range(150):
        damaged = bytearray(plain)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        parse_or_refuse(bytes(damaged))
        parse_or_refuse(plain[: chance.randrange(len(plain))])


@given(st.sampled_from(SMALL), st.data())
def test_mutated_profiles(plain: bytes, data: st.DataObject) -> None:
    """Deleting, repeating and replacing parts never gives another error."""
    start = data.draw(st.integers(0, len(plain)))
    end = data.draw(st.integers(start, min(start + 40, len(plain))))
    parse_or_refuse(plain[:start] + data.draw(st.binary(max_size=12)) + plain[end:])
    parse_or_refuse(plain[:end] + plain[start:])


@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    """Bytes of no meaning are refused, gzipped too."""
    parse_or_refuse(data)
    parse_or_refuse(gzip.compress(data))

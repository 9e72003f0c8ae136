"""parse and encode: round trips, interning, determinism, and what Go's own tool makes of it."""

import gzip
import zlib
from pathlib import Path

import pytest
from hypothesis import given

from stanch.profile import (
    Function,
    Line,
    Location,
    Mapping,
    Profile,
    ProfileError,
    Sample,
    ValueType,
    encode,
    parse,
)
from stanch.profile.wire import bytes_field, number_field, varint
from tests.profile.golden import PROFILES, go_pprof, golden_id
from tests.profile.strategies import profiles

SPACE = ValueType("inuse_space", "bytes")


def one_sample(function: Function, **others: object) -> Profile:
    """Make the smallest profile with a function in it."""
    stack = (Location(lines=(Line(function, 7),)),)
    return Profile((SPACE,), (Sample(stack, (4096,)),), **others)  # type: ignore[arg-type]


@given(profiles())
def test_what_is_encoded_is_parsed_as_it_was(profile: Profile) -> None:
    """Any profile comes back equal from its bytes, gzipped or plain."""
    assert parse(encode(profile)) == profile
    assert parse(encode(profile, compress=False)) == profile


@given(profiles())
def test_equal_profiles_encode_to_equal_bytes(profile: Profile) -> None:
    """Encoding depends on values alone, not on which objects are shared."""
    assert encode(parse(encode(profile))) == encode(profile)


@pytest.mark.parametrize("path", PROFILES, ids=golden_id)
def test_golden_profiles_survive_a_round_trip(path: Path) -> None:
    """A profile of a real Go program is the same after encode and parse."""
    profile = parse(path.read_bytes())
    assert parse(encode(profile)) == profile


@pytest.mark.parametrize("path", PROFILES, ids=golden_id)
def test_gzip_and_plain_give_the_same_profile(path: Path) -> None:
    """The protocol buffer is read with and without its gzip wrapping."""
    data = path.read_bytes()
    assert parse(gzip.decompress(data)) == parse(data)


@pytest.mark.parametrize("path", PROFILES, ids=golden_id)
def test_go_reads_what_we_encode_without_a_warning(path: Path, tmp_path: Path) -> None:
    """go tool pprof makes the same report of our encoding as of the original, and no complaint."""
    ours = tmp_path / path.name
    ours.write_bytes(encode(parse(path.read_bytes())))
    report = go_pprof("-top", "-lines", ours)
    assert report.stderr == ""
    assert report.stdout == go_pprof("-top", "-lines", path).stdout


def test_go_reads_a_profile_without_mappings(tmp_path: Path) -> None:
    """Functions known by name alone, as those of Python are, need no binary for go tool pprof."""
    path = tmp_path / "python.pb.gz"
    path.write_bytes(encode(one_sample(Function("Cart.add", filename="/srv/shop/cart.py"))))
    report = go_pprof("-top", path)
    assert report.stderr == ""
    assert "4kB   100%   100%        4kB   100%  Cart.add" in report.stdout


def test_the_first_mapping_stays_the_main_binary(tmp_path: Path) -> None:
    """A native library in a stack of Python functions is what go tool pprof names as the file."""
    native = Location(0x1000, Mapping(0x1000, 0x2000, 0, "/usr/lib/libfast.so", has_functions=True))
    python = Location(lines=(Line(Function("Cart.add"), 3),))
    profile = Profile((SPACE,), (Sample((python, native), (4096,)),))
    path = tmp_path / "mixed.pb.gz"
    path.write_bytes(encode(profile))
    assert parse(path.read_bytes()).samples == profile.samples
    assert go_pprof("-top", path).stdout.startswith("File: libfast.so\n")


def test_go_sees_the_labels_we_write(tmp_path: Path) -> None:
    """Text labels, number labels and their units reach go tool pprof, a number of 0 included."""
    profile = one_sample(Function("Cart.add"))
    labelled = Sample(
        profile.samples[0].locations,
        (4096,),
        (("kind", "task"),),
        (("birth", 0, "seconds"), ("size", -3, "")),
    )
    path = tmp_path / "labels.pb.gz"
    path.write_bytes(encode(Profile((SPACE,), (labelled,))))
    raw = go_pprof("-raw", path).stdout
    assert "kind:[task]" in raw
    assert "birth:[0 seconds]" in raw
    assert "size:[-3]" in raw


def test_locations_and_functions_of_a_parsed_profile_are_interned() -> None:
    """Equal entries under different ids become one object, and so do repeated stacks."""
    function, location = Function("f"), Location(lines=(Line(Function("f"), 1),))
    plain = b"".join(
        (
            bytes_field(1, number_field(1, 1)),
            bytes_field(2, bytes_field(1, b"\x01\x02") + bytes_field(2, b"\x05")),
            bytes_field(2, bytes_field(1, b"\x01\x02") + bytes_field(2, b"\x06")),
            *(
                bytes_field(
                    4, number_field(1, key) + bytes_field(4, number_field(1, key) + b"\x10\x01")
                )
                for key in (1, 2)
            ),
            *(bytes_field(5, number_field(1, key) + number_field(2, 2)) for key in (1, 2)),
            *(bytes_field(6, text) for text in (b"", b"space", b"f")),
        )
    )
    first, second = parse(plain).samples
    assert first.locations == (location, location)
    assert first.locations[0] is first.locations[1]
    assert first.locations is second.locations
    assert first.locations[0].lines[0].function == function


def test_numbers_that_are_not_packed_and_fields_that_are_unknown_are_read() -> None:
    """Writers need not pack repeated numbers, may repeat ids at length and may know more fields."""
    unknown = number_field(9, 5) + b"\x51" + b"12345678" + b"\x55" + b"1234" + bytes_field(15, b"x")
    sample = b"\x08\x81\x00" + b"\x10\x05" + b"\x10\x06" + unknown  # location 1 in two bytes
    plain = b"".join(
        (
            bytes_field(2, sample),
            bytes_field(1, number_field(1, 1)) * 2,
            bytes_field(4, b"\x08\x01" + unknown),
            bytes_field(6, b""),
            bytes_field(6, b"space"),
            b"\x68\x01",  # a comment, not packed
            varint(99 << 3),
            b"\x07",
        )
    )
    profile = parse(plain)
    assert profile.samples == (Sample((Location(),), (5, 6)),)
    assert profile.comments == ("space",)


def test_text_that_is_not_utf8_is_shown_with_backslashes() -> None:
    """A name of other bytes is read, as Go's tool does, and two such names stay different."""
    profile = one_sample(Function("name"))
    damaged = encode(profile, compress=False).replace(b"name", b"n\xffm\xfe")
    assert parse(damaged).samples[0].locations[0].lines[0].function.name == "n\\xffm\\xfe"


def test_a_name_with_a_lone_surrogate_is_written() -> None:
    """A file name that is not valid Unicode, as Linux allows, never fails an encoding."""
    profile = one_sample(Function("f", filename="/srv/\udcff.py"))
    assert "\\udcff.py" in parse(encode(profile)).samples[0].locations[0].lines[0].function.filename


def test_gzip_of_several_members_is_read_whole() -> None:
    """Concatenated gzip members are one stream, as Go's reader has it."""
    plain = encode(one_sample(Function("f")), compress=False)
    assert parse(gzip.compress(plain[:10]) + gzip.compress(plain[10:])) == parse(plain)


def test_the_encoding_carries_no_time_stamp_of_its_own() -> None:
    """The gzip header's time is 0, so that equal profiles are equal files."""
    data = encode(one_sample(Function("f")))
    assert data[4:8] == bytes(4)
    assert zlib.decompress(data, 31) == encode(one_sample(Function("f")), compress=False)


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (Profile(()), "without a sample type"),
        (Profile((SPACE,), (Sample((), (1, 2)),)), "2 values was given; expected 1"),
        (Profile((SPACE,), (Sample((), (2**64,)),)), "does not fit in the 64 bits"),
        (Profile((SPACE,), time_nanos=-(2**63) - 1), "does not fit in the 64 bits"),
    ],
    ids=["no sample type", "too many values", "value too large", "time too small"],
)
def test_what_the_format_cannot_hold_is_refused(profile: Profile, said: str) -> None:
    """Encoding never writes a profile that could not be read again."""
    with pytest.raises(ProfileError, match=said):
        encode(profile)

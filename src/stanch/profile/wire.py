"""The wire format of protocol buffers: varints and fields, read strictly and written canonically.

Source: https://protobuf.dev/programming-guides/encoding/. Numbers are 64 bit: reading gives them
unsigned, `signed` makes them signed, and writing takes either.
"""

import re
from collections.abc import Iterator

from stanch.profile.errors import ProfileError

_MASK = (1 << 64) - 1
_SIGN = 1 << 63
_MAX_VARINT_BITS = 70

# One varint in a packed field, the last byte of which has the high bit clear.
_VARINT = re.compile(rb"[\x80-\xff]*[\x00-\x7f]")

_FIX = " check that the data is a pprof profile and take it again"
_TRUNCATED = "the profile ends in the middle of a field; expected a whole one, so take it again"

# A field's number, and its value: int for a varint, bytes for a length-delimited field,
# None for the fixed-width fields, which profile.proto does not have.
Field = tuple[int, int | bytes | None]


def read_varint(data: bytes, pos: int) -> tuple[int, int]:
    """Read the varint at `pos`; give its value below 2**64 and the position behind it.

    Raises ProfileError when it does not end within the data or within 10 bytes.
    """
    value, shift, end = 0, 0, len(data)
    while pos < end:
        byte = data[pos]
        pos += 1
        if byte < 0x80:
            return (value | byte << shift) & _MASK, pos
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift == _MAX_VARINT_BITS:
            raise ProfileError(
                "the profile has a number longer than 10 bytes; expected a varint, so take it again"
            )
    raise ProfileError(_TRUNCATED)


def read_fields(data: bytes) -> Iterator[Field]:
    """Give the fields of a message in order. Raises ProfileError where the data is no message."""
    pos, end = 0, len(data)
    while pos < end:
        key = data[pos]
        pos += 1
        if key >= 0x80:
            key, pos = read_varint(data, pos - 1)
        wire_type = key & 7
        if wire_type == 2:
            size = data[pos] if pos < end else 0x80
            pos += 1
            if size >= 0x80:
                size, pos = read_varint(data, pos - 1)
            start, pos = pos, pos + size
            if pos > end:
                raise ProfileError(_TRUNCATED)
            yield key >> 3, data[start:pos]
        elif wire_type == 0:
            number = data[pos] if pos < end else 0x80
            pos += 1
            if number >= 0x80:
                number, pos = read_varint(data, pos - 1)
            yield key >> 3, number
        elif wire_type in (1, 5):
            pos += 8 if wire_type == 1 else 4
            if pos > end:
                raise ProfileError(_TRUNCATED)
            yield key >> 3, None
        else:
            raise ProfileError(
                f"the data has a field of wire type {wire_type} at byte {pos - 1} of a message;"
                " expected pprof's protocol buffer, so check where the data comes from"
            )


def read_numbers(message: bytes, last_field: int) -> list[int]:
    """Read a message all of whose fields, 1 to `last_field`, are single numbers.

    Gives them, unsigned, at the position of their field; 0 where absent. Other fields are skipped.
    Raises ProfileError where the data is no such message.
    """
    numbers = [0] * (last_field + 1)
    for field, value in read_fields(message):
        if 0 < field <= last_field:
            numbers[field] = expect_number(value)
    return numbers


def expect_number(value: int | bytes | None) -> int:
    """Give a field's value, which has to be a number. Raises ProfileError."""
    if isinstance(value, int):
        return value
    raise ProfileError("the profile has a field of another type where a number is expected;" + _FIX)


def expect_bytes(value: int | bytes | None) -> bytes:
    """Give a field's value, which has to be text or a message. Raises ProfileError."""
    if isinstance(value, bytes):
        return value
    raise ProfileError(
        "the profile has a field of another type where text or a message is expected;" + _FIX
    )


def split_varints(packed: bytes) -> list[bytes]:
    """Split a packed field into the bytes of each varint. Raises ProfileError if it is cut off."""
    if packed and packed[-1] >= 0x80:
        raise ProfileError(_TRUNCATED)
    return _VARINT.findall(packed)


def read_packed(packed: bytes) -> list[int]:
    """Read a packed field; each number is unsigned. Raises ProfileError when it is damaged."""
    if packed.isascii():
        return list(packed)
    numbers = []
    pos, end = 0, len(packed)
    while pos < end:
        number = packed[pos]
        pos += 1
        if number >= 0x80:
            number, pos = read_varint(packed, pos - 1)
        numbers.append(number)
    return numbers


def signed(number: int) -> int:
    """Turn an unsigned 64-bit number into the int64 of the same bits."""
    return number - (1 << 64) if number & _SIGN else number


def varint(number: int) -> bytes:
    """Encode an int64 or uint64. Raises ProfileError when it does not fit in 64 bits."""
    if 0 <= number < 0x80:
        return _ONE_BYTE[number]
    if 0 < number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    if not -_SIGN <= number <= _MASK:
        raise ProfileError(
            f"the number {number} does not fit in the 64 bits that pprof has for it;"
            " expected a smaller one, so merge fewer profiles or scale them down"
        )
    number &= _MASK
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def number_field(field: int, number: int) -> bytes:
    """Encode a varint field below 16; nothing for 0, which is what an absent field means."""
    return _ONE_BYTE[field << 3] + varint(number) if number else b""


def bytes_field(field: int, payload: bytes) -> bytes:
    """Encode a length-delimited field below 16, empty or not."""
    return _ONE_BYTE[field << 3 | 2] + varint(len(payload)) + payload


_ONE_BYTE = tuple(bytes((number,)) for number in range(0x80))

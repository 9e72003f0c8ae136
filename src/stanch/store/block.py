"""Blocks in ClickHouse's Native format, made of whole columns: what is inserted.

A block is the same bytes for the same columns, on each machine. Integers are little-endian, as
numpy has them on the machines that Stanch runs on.
Format: https://clickhouse.com/docs/interfaces/formats/Native
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stanch.store.schema import Table, native_types

DICTIONARY = "LowCardinality(String)"
"""The type of a column made by `dictionary`."""
_LOW_CARDINALITY_VERSION = 1
_ADDITIONAL_KEYS = 0x600
"""The keys come with the block, and no others are known."""
_MOST_KEYS = (2**8, 2**16, 2**32)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a block: its name, its ClickHouse type and its values as bytes."""

    name: str
    type: str
    data: bytes


def block(rows: int, columns: Sequence[Column]) -> bytes:
    """All columns, each with `rows` values, as one block."""
    parts = [varint(len(columns)), varint(rows)]
    for column in columns:
        parts += [text(column.name), text(column.type), column.data]
    return b"".join(parts)


def table_block(
    table: Table, rows: int, data: Sequence[bytes], dictionaries: Sequence[str] = ()
) -> bytes:
    """The block of a table's sent columns in their order; dictionaries: those by `dictionary`."""
    types = native_types(table) | dict.fromkeys(dictionaries, DICTIONARY)
    columns = [
        Column(name, types[name], column) for name, column in zip(table.sent, data, strict=True)
    ]
    return block(rows, columns)


def varint(number: int) -> bytes:
    """A length as LEB128."""
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def text(value: str | bytes) -> bytes:
    """A string with its length in front, which is one value of a String column."""
    data = value.encode("utf-8", "replace") if isinstance(value, str) else value
    return varint(len(data)) + data


def texts(values: Iterable[str | bytes]) -> bytes:
    """The values of a String column."""
    return b"".join(map(text, values))


def dictionary(values: Sequence[str | bytes], at: NDArray[np.unsignedinteger[Any]]) -> bytes:
    """The values of a LowCardinality(String) column: of each row its position in `values`.

    A fifth of the bytes of a String column, and the engine need not look every value up.
    """
    size = next(number for number, most in enumerate(_MOST_KEYS) if len(values) <= most)
    keys = struct.pack("<3Q", _LOW_CARDINALITY_VERSION, _ADDITIONAL_KEYS | size, len(values))
    rows = struct.pack("<Q", at.size) + at.astype(f"<u{1 << size}").tobytes()
    return b"".join((keys, texts(values), rows))


def integers(values: Iterable[int], kind: str) -> bytes:
    """The values of an integer column; kind: numpy's name, such as "uint64"."""
    return np.fromiter(values, dtype=kind).tobytes()


def floats(values: Iterable[float | None]) -> bytes:
    """The values of a Float64 column; None is NaN."""
    known = (np.nan if value is None else value for value in values)
    return np.fromiter(known, dtype=np.float64).tobytes()


def list_ends(lists: Sequence[Sequence[object]]) -> bytes:
    """What an Array column begins with: where each list ends."""
    return np.cumsum([len(one) for one in lists], dtype=np.uint64).tobytes()

"""Blocks in ClickHouse's Native format, made of whole columns: what is inserted.

A block is the same bytes for the same columns, on each machine. Integers are little-endian, as
numpy has them on the machines that Stanch runs on.
Format: https://clickhouse.com/docs/interfaces/formats/Native
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


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

"""From records to rows: what a profile is decoded to, a pure function of the record."""

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np

from stanch.profile import Limits, ProfileError
from stanch.profile.inflate import GZIP_WINDOW, Member, inflate, recognise
from stanch.store.decoder import Decoded, digest
from stanch.store.history import HEAP
from stanch.store.record import Record

COUNTED_TOGETHER = "goroutine"
"""The kind of a profile whose samples carry their own kind as a label: threads and tasks."""
MAX_BANDS = 96

StackFrame: TypeAlias = tuple[str, str, int, int]
"""Function, file, line and the function's first line."""

_LIMITS = Limits(compressed_bytes=32 * 1024 * 1024, decompressed_bytes=64 * 1024 * 1024)
_U64 = np.dtype("<u8")


def _quickest_gunzip() -> tuple[Callable[[], Member], type[Exception]]:
    """ISA-L's, in half of the time of zlib's, where it is installed: with the server, on most."""
    try:
        from isal import igzip_lib, isal_zlib
    except ImportError:
        return lambda: zlib.decompressobj(GZIP_WINDOW), zlib.error
    # Its stub says that the class is an instance.
    damaged = cast("type[Exception]", igzip_lib.IsalError)
    return lambda: isal_zlib.decompressobj(GZIP_WINDOW), damaged


_GUNZIP = _quickest_gunzip()


@dataclass(frozen=True, slots=True)
class Rows:
    """The samples of one profile, as columns; see _decode.pyi."""

    count: int
    stacks: bytes
    label_sets: list[list[tuple[str, str]]]
    labels: bytes
    alloc_objects: bytes
    alloc_bytes: bytes
    live_objects: bytes
    live_bytes: bytes
    birth_ends: bytes
    birth_s: bytes
    birth_bytes: bytes
    new_stacks: dict[bytes, list[StackFrame]]

    @property
    def total_live_bytes(self) -> int:
        """All live bytes."""
        return int(np.frombuffer(self.live_bytes, _U64).sum())

    @property
    def total_alloc_bytes(self) -> int:
        """All bytes ever allocated."""
        return int(np.frombuffer(self.alloc_bytes, _U64).sum())


@dataclass(frozen=True, slots=True)
class Decoding:
    """A record with the rows of its payloads, in their order."""

    record: Record
    rows: tuple[Rows, ...]

    @property
    def count(self) -> int:
        """How many samples there are."""
        return sum(rows.count for rows in self.rows)


def open_profile(data: bytes) -> Decoded:
    """The tables of a profile, gzip or plain. Raises ProfileError."""
    plain = inflate(data, _LIMITS, *_GUNZIP)
    try:
        return Decoded(plain)
    except ValueError as error:
        reason = recognise(plain) or f"{error}; expected pprof, so check where the data comes from"
        raise ProfileError(f"cannot read the profile of {len(plain):,} bytes; {reason}") from error


def rows_of(decoded: Decoded, known: set[bytes], offset_s: float, band_s: int) -> Rows:
    """The samples of a profile. Raises ProfileError."""
    try:
        return Rows(*decoded.rows(known, offset_s, band_s))
    except ValueError as error:
        raise ProfileError(f"cannot read the profile: {error}") from error


def decode_payloads(record: Record, known: set[bytes]) -> Decoding:
    """The rows of a record's payloads. Raises ProfileError."""
    return Decoding(
        record,
        tuple(
            rows_of(open_profile(payload.data), known, payload.offset_s, payload.band_s)
            for payload in record.payloads
        ),
    )


def band_width_s(age_s: float) -> int:
    """The width of the bands of birth at an age: at most MAX_BANDS of them, doubling from 5 s."""
    width = 5
    while age_s >= width * MAX_BANDS:
        width *= 2
    return width


def payload_name(service: str, instance: str, data: bytes) -> str:
    """The name of a profile: 32 hex digits, the same when the same one is sent again."""
    return digest(f"{service}\0{instance}\0".encode() + digest(data)).hex()


def label_text(pairs: Iterable[tuple[str, str]]) -> str:
    """A set of labels as one text: `key=value` lines in order; see `label_pairs`."""
    return "\n".join(sorted(f"{key}={value}" for key, value in pairs))


def label_pairs(text_of_labels: str) -> tuple[tuple[str, str], ...]:
    """The labels of such a text."""
    parts = (line.partition("=") for line in text_of_labels.split("\n") if line)
    return tuple((key, value) for key, _, value in parts)


def is_heap(decoded: Decoded) -> bool:
    """Whether a profile is one of memory that is alive."""
    return any(name in ("inuse_space", "space") for name, _ in decoded.sample_types)


def kind_of(decoded: Decoded) -> str:
    """The kind of a profile's samples: HEAP, or the name of its default type."""
    if is_heap(decoded):
        return HEAP
    names = [name for name, _ in decoded.sample_types]
    return decoded.default_type if decoded.default_type in names else names[-1]

"""From records to blocks: what is inserted for a batch, a pure function of the records."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stanch.profile import Limits, ProfileError
from stanch.profile.inflate import inflate, recognise
from stanch.store.block import (
    DICTIONARY,
    Column,
    block,
    dictionary,
    floats,
    integers,
    list_ends,
    texts,
)
from stanch.store.decoder import Decoded, digest
from stanch.store.history import HEAP
from stanch.store.record import Record
from stanch.store.schema import (
    LIVES,
    MEMORY,
    PROFILES,
    RAW,
    ROLLED,
    SAMPLES,
    STACKS,
    Table,
    native_types,
)

COUNTED_TOGETHER = "goroutine"
"""The kind of a profile whose samples carry their own kind as a label: threads and tasks."""
MAX_BANDS = 96

StackFrame: TypeAlias = tuple[str, str, int, int]
"""Function, file, line and the function's first line."""

_LIMITS = Limits(compressed_bytes=32 * 1024 * 1024, decompressed_bytes=64 * 1024 * 1024)
_U64 = np.dtype("<u8")


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
    plain = inflate(data, _LIMITS)
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


def blocks(batch: Sequence[Decoding], *, keep_raw: bool) -> list[tuple[Table, bytes]]:
    """What is to be inserted for a batch, in this order: the list of profiles comes last.

    A profile that is listed is wholly there.
    """
    tables = (STACKS, LIVES, MEMORY, SAMPLES, ROLLED, *((RAW,) if keep_raw else ()), PROFILES)
    made = [(table, block_of(table, batch)) for table in tables]
    return [(table, block) for table, block in made if block is not None]


def block_of(table: Table, batch: Sequence[Decoding]) -> bytes | None:
    """The block of one table of those above; None when the batch has no rows for it."""
    return _BLOCKS[table.name](batch)


def _lives(batch: Sequence[Decoding]) -> bytes | None:
    lives = [life for decoding in batch for life in decoding.record.lives]
    if not lives:
        return None
    return _table(
        LIVES,
        len(lives),
        [
            texts(life.service for life in lives),
            texts(life.instance for life in lives),
            integers((life.life for life in lives), "uint64"),
            integers((life.start_ms for life in lives), "int64"),
            integers((life.seen_ms for life in lives), "int64"),
            texts(life.end for life in lives),
            texts(life.release for life in lives),
            texts(life.language for life in lives),
            integers((-1 if life.pid is None else life.pid for life in lives), "int64"),
            floats(life.limit_bytes for life in lives),
            floats(life.memory_bytes for life in lives),
        ],
    )


def label_text(pairs: Iterable[tuple[str, str]]) -> str:
    """A set of labels as one text: `key=value` lines in order; see `label_pairs`."""
    return "\n".join(sorted(f"{key}={value}" for key, value in pairs))


def label_pairs(text_of_labels: str) -> tuple[tuple[str, str], ...]:
    """The labels of such a text."""
    parts = (line.partition("=") for line in text_of_labels.split("\n") if line)
    return tuple((key, value) for key, _, value in parts)


def _table(
    table: Table, rows: int, data: Sequence[bytes], dictionaries: Sequence[str] = ()
) -> bytes:
    """dictionaries: the columns that `dictionary` has made."""
    types = native_types(table) | dict.fromkeys(dictionaries, DICTIONARY)
    columns = [
        Column(name, types[name], column)
        for (name, _), column in zip(table.columns, data, strict=True)
    ]
    return block(rows, columns)


def _stacks(batch: Sequence[Decoding]) -> bytes | None:
    found: dict[bytes, tuple[int, list[StackFrame]]] = {}
    for decoding in batch:
        for rows in decoding.rows:
            for name, frames in rows.new_stacks.items():
                found.setdefault(name, (decoding.record.unix_ms, frames))
    if not found:
        return None
    stacks = [frames for _, frames in found.values()]
    ends = list_ends(stacks)
    return _table(
        STACKS,
        len(found),
        [
            b"".join(found),
            integers((unix_ms for unix_ms, _ in found.values()), "int64"),
            ends + texts(frame[0] for one in stacks for frame in one),
            ends + texts(frame[1] for one in stacks for frame in one),
            ends + integers((frame[2] for one in stacks for frame in one), "uint32"),
            ends + integers((frame[3] for one in stacks for frame in one), "uint32"),
        ],
    )


def _memory(batch: Sequence[Decoding]) -> bytes | None:
    records = [decoding.record for decoding in batch]
    if not records:
        return None
    numbers = [record.numbers for record in records]
    parts = [sorted(each.breakdown.items()) for each in numbers]

    def column(name: str) -> bytes:
        return floats(getattr(each, name) for each in numbers)

    ends = list_ends(parts)
    return _table(
        MEMORY,
        len(records),
        [
            texts(record.service for record in records),
            texts(record.instance for record in records),
            integers((record.life for record in records), "uint64"),
            integers((record.unix_ms for record in records), "int64"),
            floats(record.age_s for record in records),
            *(column(name) for name in _MEASURED),
            integers((int(each.fresh) for each in numbers), "uint8"),
            ends + texts(name for one in parts for name, _ in one),
            ends + integers((size for one in parts for _, size in one), "uint64"),
            *(column(name) for name in _MEASURED_TOO),
            integers((int(record.rolled) for record in records), "uint8"),
        ],
    )


_MEASURED = (
    "rss_bytes",
    "memory_bytes",
    "limit_bytes",
    "heap_bytes",
    "runtime_bytes",
    "requests",
    "in_flight",
    "latency_s",
    "period_bytes",
)
_MEASURED_TOO = ("slack_bytes", "page_cache_bytes", "open_fds", "max_fds")


def _rolled(batch: Sequence[Decoding]) -> bytes | None:
    return _samples([decoding for decoding in batch if decoding.record.rolled])


def _samples(batch: Sequence[Decoding]) -> bytes | None:
    pieces = [
        (decoding.record, payload.kind, rows)
        for decoding in batch
        for payload, rows in zip(decoding.record.payloads, decoding.rows, strict=True)
        if rows.count
    ]
    if not pieces:
        return None
    # Names are told once, and each row has the position of its own.
    services, instances, kinds, labels = _Names(), _Names(), _Names(), _Names()
    for record, kind, rows in pieces:
        services.repeat(record.service, rows.count)
        instances.repeat(record.instance, rows.count)
        kind_names, label_names = _label_texts(kind, rows)
        of_row = np.frombuffer(rows.labels, np.uint32)
        kinds.choose(kind_names, of_row)
        labels.choose(label_names, of_row)
    ends = _joined_ends(rows for _, _, rows in pieces)
    times = [np.full(rows.count, record.unix_ms, np.int64).tobytes() for record, _, rows in pieces]
    lives = [np.full(rows.count, record.life, np.uint64).tobytes() for record, _, rows in pieces]
    return _table(
        SAMPLES,
        sum(rows.count for _, _, rows in pieces),
        [
            services.column(),
            instances.column(),
            b"".join(lives),
            b"".join(times),
            kinds.column(),
            b"".join(rows.stacks for _, _, rows in pieces),
            labels.column(),
            b"".join(rows.alloc_objects for _, _, rows in pieces),
            b"".join(rows.alloc_bytes for _, _, rows in pieces),
            b"".join(rows.live_objects for _, _, rows in pieces),
            b"".join(rows.live_bytes for _, _, rows in pieces),
            ends + b"".join(rows.birth_s for _, _, rows in pieces),
            ends + b"".join(rows.birth_bytes for _, _, rows in pieces),
        ],
        dictionaries=("service", "instance", "kind", "labels"),
    )


class _Names:
    """A column of names of which most rows have the same few."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}
        self._rows: list[NDArray[np.uint32]] = []

    def repeat(self, name: str, count: int) -> None:
        """Add rows that all have one name."""
        self._rows.append(np.full(count, self._position(name), np.uint32))

    def choose(self, names: Sequence[str], at: NDArray[np.uint32]) -> None:
        """Add rows, each with one of the names."""
        positions = np.array([self._position(name) for name in names], np.uint32)
        self._rows.append(positions[at])

    def column(self) -> bytes:
        return dictionary([*self._positions], np.concatenate(self._rows))

    def _position(self, name: str) -> int:
        return self._positions.setdefault(name, len(self._positions))


def _label_texts(kind: str, rows: Rows) -> tuple[list[str], list[str]]:
    """For each set of labels the kind and the labels of its rows."""
    kinds, labels = [], []
    for pairs in rows.label_sets:
        own = kind
        if kind == COUNTED_TOGETHER:
            named = dict(pairs).get("kind", "")
            own = named if named in ("thread", "task") else kind
            pairs = [pair for pair in pairs if pair[0] != "kind"]
        kinds.append(own)
        labels.append(label_text(pairs))
    return kinds, labels


def _joined_ends(pieces: Iterable[Rows]) -> bytes:
    """Where each row's births end when those of all pieces stand one after the other."""
    before, parts = 0, []
    for rows in pieces:
        ends = np.frombuffer(rows.birth_ends, _U64)
        parts.append((ends + np.uint64(before)).tobytes())
        before += int(ends[-1])
    return b"".join(parts)


def _profiles(batch: Sequence[Decoding]) -> bytes | None:
    pieces = [
        (decoding.record, payload, rows)
        for decoding in batch
        for payload, rows in zip(decoding.record.payloads, decoding.rows, strict=True)
    ]
    if not pieces:
        return None
    return _table(
        PROFILES,
        len(pieces),
        [
            texts(record.service for record, _, _ in pieces),
            texts(record.instance for record, _, _ in pieces),
            integers((record.life for record, _, _ in pieces), "uint64"),
            integers((record.unix_ms for record, _, _ in pieces), "int64"),
            b"".join(bytes.fromhex(payload.name) for _, payload, _ in pieces),
            texts(payload.kind for _, payload, _ in pieces),
            integers((rows.count for _, _, rows in pieces), "uint32"),
            integers((rows.total_live_bytes for _, _, rows in pieces), "uint64"),
            integers((int(record.rolled) for record, _, _ in pieces), "uint8"),
        ],
    )


def _raw(batch: Sequence[Decoding]) -> bytes | None:
    pieces = [
        (decoding.record, payload) for decoding in batch for payload in decoding.record.payloads
    ]
    if not pieces:
        return None
    return _table(
        RAW,
        len(pieces),
        [
            texts(record.service for record, _ in pieces),
            integers((record.unix_ms for record, _ in pieces), "int64"),
            b"".join(bytes.fromhex(payload.name) for _, payload in pieces),
            texts(payload.data for _, payload in pieces),
        ],
    )


_BLOCKS = {
    STACKS.name: _stacks,
    LIVES.name: _lives,
    MEMORY.name: _memory,
    SAMPLES.name: _samples,
    ROLLED.name: _rolled,
    RAW.name: _raw,
    PROFILES.name: _profiles,
}


def is_heap(decoded: Decoded) -> bool:
    """Whether a profile is one of memory that is alive."""
    return any(name in ("inuse_space", "space") for name, _ in decoded.sample_types)


def kind_of(decoded: Decoded) -> str:
    """The kind of a profile's samples: HEAP, or the name of its default type."""
    if is_heap(decoded):
        return HEAP
    names = [name for name, _ in decoded.sample_types]
    return decoded.default_type if decoded.default_type in names else names[-1]

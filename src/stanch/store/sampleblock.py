"""The block of a batch's samples, its rows in the order in which the engine keeps them.

What arrives in order the engine need not sort, which it does more slowly, and what is not, it
sorts: so the order is a matter of speed and never of what is stored.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stanch.store.block import dictionary, table_block
from stanch.store.decoder import order
from stanch.store.record import Record
from stanch.store.rows import COUNTED_TOGETHER, Decoding, Rows, label_text
from stanch.store.schema import ROLLED, SAMPLES, Table

_HOUR_MS = 3_600_000
_U64 = np.dtype("<u8")
_U32 = np.dtype("<u4")
_NAME = np.dtype("V16")

_Piece: TypeAlias = tuple[Record, str, Rows]
"""A record, and the kind and the rows of one of its payloads."""


def samples_block(batch: Sequence[Decoding]) -> bytes | None:
    """The rows of all samples; None when there are none."""
    return _block(SAMPLES, batch, _place_in_samples)


def rolled_block(batch: Sequence[Decoding]) -> bytes | None:
    """The rows of the samples that are rolled up; None when there are none."""
    rolled = [decoding for decoding in batch if decoding.record.rolled]
    return _block(ROLLED, rolled, _place_in_rolled)


def _place_in_samples(record: Record) -> tuple[tuple[object, ...], tuple[Any, ...]]:
    """What rows are ordered by before their stack, and after it; see schema.SAMPLES."""
    return (record.service, record.unix_ms // _HOUR_MS), (record.instance, record.unix_ms)


def _place_in_rolled(record: Record) -> tuple[tuple[object, ...], tuple[Any, ...]]:
    return (record.service, record.life), (record.unix_ms,)


def _block(
    table: Table,
    batch: Sequence[Decoding],
    place: Callable[[Record], tuple[tuple[object, ...], tuple[Any, ...]]],
) -> bytes | None:
    pieces = [
        (decoding.record, payload.kind, rows)
        for decoding in batch
        for payload, rows in zip(decoding.record.payloads, decoding.rows, strict=True)
        if rows.count
    ]
    if not pieces:
        return None
    # In this order of the pieces, rows need only be ordered by group and stack, what is equal left
    # as it is.
    pieces.sort(key=lambda piece: place(piece[0]))
    groups: dict[tuple[object, ...], int] = {}
    for record, _, _ in pieces:
        groups.setdefault(place(record)[0], len(groups))

    def repeated(values: Iterable[int], kind: str) -> NDArray[Any]:
        return np.repeat(np.fromiter(values, kind, len(pieces)), counts)

    def joined(name: str, kind: np.dtype[Any]) -> NDArray[Any]:
        return np.frombuffer(b"".join(getattr(rows, name) for _, _, rows in pieces), kind)

    counts = np.fromiter((rows.count for _, _, rows in pieces), np.int64, len(pieces))
    stacks = joined("stacks", _NAME)
    at = np.frombuffer(
        order(
            repeated((groups[place(record)[0]] for record, _, _ in pieces), "<u4"),
            len(groups),
            stacks,
        ),
        _U32,
    )
    # Names are told once, and each row has the position of its own.
    services, instances, kinds, labels = _Names(), _Names(), _Names(), _Names()
    for record, kind, rows in pieces:
        services.repeat(record.service, rows.count)
        instances.repeat(record.instance, rows.count)
        kind_names, label_names = _label_texts(kind, rows)
        of_row = np.frombuffer(rows.labels, np.uint32)
        kinds.choose(kind_names, of_row)
        labels.choose(label_names, of_row)
    ends, births_at = _births_in_order(pieces, at)
    return table_block(
        table,
        len(at),
        [
            services.column(at),
            instances.column(at),
            repeated((record.life for record, _, _ in pieces), "<u8")[at].tobytes(),
            repeated((record.unix_ms for record, _, _ in pieces), "<i8")[at].tobytes(),
            kinds.column(at),
            stacks[at].tobytes(),
            labels.column(at),
            joined("alloc_objects", _U64)[at].tobytes(),
            joined("alloc_bytes", _U64)[at].tobytes(),
            joined("live_objects", _U64)[at].tobytes(),
            joined("live_bytes", _U64)[at].tobytes(),
            ends + joined("birth_s", _U32)[births_at].tobytes(),
            ends + joined("birth_bytes", _U64)[births_at].tobytes(),
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

    def column(self, at: NDArray[np.uint32]) -> bytes:
        """The column, with the rows in the order `at`."""
        return dictionary([*self._positions], np.concatenate(self._rows)[at])

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


def _births_in_order(
    pieces: Sequence[_Piece], at: NDArray[np.uint32]
) -> tuple[bytes, NDArray[np.int64]]:
    """Where each row's births end when the rows stand in the order `at`, and for each birth its
    position among those of all pieces, one after the other."""
    lengths = np.concatenate(
        [np.diff(np.frombuffer(rows.birth_ends, "<i8"), prepend=0) for _, _, rows in pieces]
    )
    starts = np.cumsum(lengths) - lengths
    chosen = lengths[at]
    ends = np.cumsum(chosen)
    return ends.tobytes(), np.repeat(starts[at] - (ends - chosen), chosen) + np.arange(ends[-1])

"""The block of a batch's samples, its rows in the order in which the engine keeps them.

What arrives in order the engine need not sort, which it does more slowly, and what is not, it
sorts: so the order is a matter of speed and never of what is stored.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stanch.store.block import dictionary, table_block
from stanch.store.decoder import gather, gather_lists, order
from stanch.store.record import Record
from stanch.store.rows import COUNTED_TOGETHER, Decoding, Rows, label_text
from stanch.store.schema import ROLLED, SAMPLES, Table

_HOUR_MS = 3_600_000
_U32 = np.dtype("<u4")


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
    at = order(
        [groups[place(record)[0]] for record, _, _ in pieces],
        len(groups),
        [rows.stacks for _, _, rows in pieces],
    )
    piece_of_row = np.frombuffer(at, _U32)[1::2]
    # Names are told once, and each row has the position of its own.
    services, instances = _Names(), _Names()
    kinds, labels = _Names(), _Names()
    set_counts: list[int] = []
    for record, kind, rows in pieces:
        services.add([record.service])
        instances.add([record.instance])
        set_counts.append(len(rows.label_sets))
        kind_names, label_names = _label_texts(kind, rows)
        kinds.add(kind_names)
        labels.add(label_names)
    counts = np.array(set_counts)
    first_set = np.cumsum(counts) - counts
    set_of_row = first_set[piece_of_row] + np.frombuffer(
        gather(at, [rows.labels for _, _, rows in pieces], 4), _U32
    )

    def spread(values: Iterable[int], kind: str) -> bytes:
        return np.fromiter(values, kind, len(pieces))[piece_of_row].tobytes()

    def gathered(name: str, size: int) -> bytes:
        return gather(at, [getattr(rows, name) for _, _, rows in pieces], size)

    def births(name: str, size: int) -> bytes:
        ends = [rows.birth_ends for _, _, rows in pieces]
        return gather_lists(at, ends, [getattr(rows, name) for _, _, rows in pieces], size)

    return table_block(
        table,
        len(piece_of_row),
        [
            services.column(piece_of_row),
            instances.column(piece_of_row),
            spread((record.life for record, _, _ in pieces), "<u8"),
            spread((record.unix_ms for record, _, _ in pieces), "<i8"),
            kinds.column(set_of_row),
            gathered("stacks", 16),
            labels.column(set_of_row),
            gathered("alloc_objects", 8),
            gathered("alloc_bytes", 8),
            gathered("live_objects", 8),
            gathered("live_bytes", 8),
            births("birth_s", 4),
            births("birth_bytes", 8),
        ],
        dictionaries=("service", "instance", "kind", "labels"),
    )


class _Names:
    """A column of names of which most rows have the same few."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}
        self._added: list[int] = []

    def add(self, names: Sequence[str]) -> None:
        """Add names that rows may have."""
        self._added += [self._positions.setdefault(name, len(self._positions)) for name in names]

    def column(self, at: NDArray[np.integer[Any]]) -> bytes:
        """The column: for each row the name at this position among those that were added."""
        return dictionary([*self._positions], np.array(self._added, _U32)[at])


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

"""From decoded records to blocks: what is inserted for a batch, a pure function of the records."""

from collections.abc import Sequence

from stanch.store.block import floats, integers, list_ends, table_block, texts
from stanch.store.rows import Decoding, StackFrame
from stanch.store.sampleblock import rolled_block, samples_block
from stanch.store.schema import LIVES, MEMORY, PROFILES, RAW, ROLLED, SAMPLES, STACKS, Table


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
    return table_block(
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
    return table_block(
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
    return table_block(
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


def _profiles(batch: Sequence[Decoding]) -> bytes | None:
    pieces = [
        (decoding.record, payload, rows)
        for decoding in batch
        for payload, rows in zip(decoding.record.payloads, decoding.rows, strict=True)
    ]
    if not pieces:
        return None
    return table_block(
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
    return table_block(
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
    SAMPLES.name: samples_block,
    ROLLED.name: rolled_block,
    RAW.name: _raw,
    PROFILES.name: _profiles,
}

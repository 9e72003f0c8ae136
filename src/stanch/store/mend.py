"""What a killed process left half done in the tables, made whole when its segment is taken again.

The engine writes down the token of a block a moment before the block's rows count. A process that
is killed between the two leaves a token whose rows are nowhere, and the same block under the same
token is then passed over as known. So after a segment of an earlier process was inserted it is
looked up whether its rows are there; where all are missing they are inserted under another token.

A block is there wholly or not at all in each partition and shard, so the records of one service
within ten minutes, which lie in one, are asked for together.
"""

import uuid
from collections import defaultdict
from collections.abc import Sequence

from stanch.store.blocks import block_of
from stanch.store.engine import Engine
from stanch.store.rows import Decoding
from stanch.store.schema import BETWEEN, PROFILE_NAME, PROFILES, RAW, ROLLED, SAMPLES, Table

_SLOT_MS = 600_000


def insert_missing(engine: Engine, table: Table, batch: Sequence[Decoding]) -> None:
    """Insert what a table lacks of a batch that was inserted into it. Raises StoreError."""
    if table.replacing is not None:
        _insert(engine, table, batch)  # written twice it does no harm
        return
    slots: defaultdict[tuple[str, int], list[Decoding]] = defaultdict(list)
    for decoding in batch:
        slots[decoding.record.service, decoding.record.unix_ms // _SLOT_MS].append(decoding)
    for (service, slot), some in slots.items():
        if not _is_there(engine, table, service, slot, some):
            _insert(engine, table, some)


def _insert(engine: Engine, table: Table, batch: Sequence[Decoding]) -> None:
    block = block_of(table, batch)
    if block is not None:
        engine.insert(table, block, f"{uuid.uuid4().hex}-{table.name}")


def _has_rows(table: Table, one: Decoding) -> bool:
    """Whether a record has rows in a table; all have a row of memory."""
    if table is PROFILES:
        return bool(one.rows)
    if table is ROLLED:
        return one.record.rolled and one.count > 0
    return table is not SAMPLES or one.count > 0


def _is_there(
    engine: Engine, table: Table, service: str, slot: int, some: Sequence[Decoding]
) -> bool:
    """Whether most of what a table would have of these records is in it.

    Most and not any, since another record may be of the same instance and millisecond.
    """
    wanted: set[tuple[str, int] | str]
    if table is RAW:
        columns = PROFILE_NAME
        wanted = {payload.name for one in some for payload in one.record.payloads}
    else:
        columns = "instance, toUnixTimestamp64Milli(time)"
        wanted = {
            (one.record.instance, one.record.unix_ms) for one in some if _has_rows(table, one)
        }
    rows = engine.query(
        f"SELECT DISTINCT {columns} FROM {table.name}"
        f" WHERE service = {{service:String}} AND {BETWEEN}",
        {"service": service, "since": slot * _SLOT_MS, "until": (slot + 1) * _SLOT_MS},
    )
    found = {row[0] if table is RAW else row for row in rows}
    return 2 * len(wanted & found) >= len(wanted)

"""What the server itself writes into the store: findings and the health of targets.

These rows are few and replace their predecessors, so they go into the tables at once.
"""

import json
import secrets
from collections.abc import Iterable, Sequence

from stanch.store.block import floats, integers, table_block, texts
from stanch.store.engine import Engine
from stanch.store.history import FindingRow, TargetRow
from stanch.store.schema import FINDINGS, TARGETS, Table


def write_findings(engine: Engine, findings: Sequence[FindingRow]) -> None:
    """Replace the rows of these findings. Raises StoreError."""
    insert(
        engine,
        FINDINGS,
        len(findings),
        [
            texts(row.service for row in findings),
            integers((int(row.finding, 16) for row in findings), "uint64"),
            texts(row.kind for row in findings),
            texts(row.stage for row in findings),
            texts(row.status for row in findings),
            texts(row.file for row in findings),
            integers((row.line for row in findings), "uint32"),
            texts(row.function for row in findings),
            times(row.first_unix_s for row in findings),
            times(row.last_unix_s for row in findings),
            texts(row.release for row in findings),
            texts(json.dumps(dict(row.document)) for row in findings),
            texts(json.dumps(dict(row.retention)) if row.retention else "" for row in findings),
        ],
    )


def write_targets(engine: Engine, targets: Sequence[TargetRow]) -> None:
    """Replace the rows of these targets. Raises StoreError."""
    insert(
        engine,
        TARGETS,
        len(targets),
        [
            texts(row.service for row in targets),
            texts(row.instance for row in targets),
            texts(row.address for row in targets),
            texts(row.origin for row in targets),
            texts(row.verdict for row in targets),
            texts(row.error for row in targets),
            floats(row.duration_s for row in targets),
            times(row.last_unix_s for row in targets),
            times(row.last_good_unix_s or 0.0 for row in targets),
            texts(row.server for row in targets),
        ],
    )


def times(unix_s: Iterable[float]) -> bytes:
    """A column of times, given in seconds since the Unix epoch."""
    return integers((round(second * 1000) for second in unix_s), "int64")


def insert(engine: Engine, table: Table, rows: int, data: Sequence[bytes]) -> None:
    """Insert so many rows, a column after the other, once. Raises StoreError."""
    if not rows:
        return
    engine.insert(table, table_block(table, rows, data), secrets.token_hex(16))

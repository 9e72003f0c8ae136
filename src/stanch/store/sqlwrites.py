"""What the server itself writes into the store: findings, the health of targets, autopsies.

These rows are few and replace their predecessors, so they go into the tables at once.
"""

import json
import secrets
from collections.abc import Iterable, Sequence

from stanch.store.block import Column, block, floats, integers, texts
from stanch.store.engine import Engine
from stanch.store.history import Autopsy, FindingRow, TargetRow
from stanch.store.schema import AUTOPSIES, FINDINGS, TARGETS, Table, native_types


def write_findings(engine: Engine, findings: Sequence[FindingRow]) -> None:
    """Replace the rows of these findings. Raises StoreError."""
    _insert(
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
            _times(row.first_unix_s for row in findings),
            _times(row.last_unix_s for row in findings),
            texts(row.release for row in findings),
            texts(json.dumps(dict(row.document)) for row in findings),
            texts(json.dumps(dict(row.retention)) if row.retention else "" for row in findings),
        ],
    )


def write_targets(engine: Engine, targets: Sequence[TargetRow]) -> None:
    """Replace the rows of these targets. Raises StoreError."""
    _insert(
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
            _times(row.last_unix_s for row in targets),
            _times(row.last_good_unix_s or 0.0 for row in targets),
        ],
    )


def write_autopsy(engine: Engine, autopsy: Autopsy, data: bytes) -> None:
    """Keep the evidence of a death; data: its profile as pprof. Raises StoreError."""
    _insert(
        engine,
        AUTOPSIES,
        1,
        [
            texts([autopsy.life.service]),
            integers([int(autopsy.life.life, 16)], "uint64"),
            _times([autopsy.life.end_unix_s]),
            texts([json.dumps(dict(autopsy.facts))]),
            texts([data]),
        ],
    )


def _times(unix_s: Iterable[float]) -> bytes:
    return integers((round(second * 1000) for second in unix_s), "int64")


def _insert(engine: Engine, table: Table, rows: int, data: Sequence[bytes]) -> None:
    if not rows:
        return
    types = native_types(table)
    columns = [
        Column(name, types[name], column)
        for (name, _), column in zip(table.columns, data, strict=True)
    ]
    engine.insert(table, block(rows, columns), secrets.token_hex(16))

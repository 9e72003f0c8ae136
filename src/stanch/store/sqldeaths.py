"""Deaths in a store: how processes ended, each a document, and what they held, as pprof.

A row replaces an earlier one of the same death; it is written at once, as they are few, and can be
read as soon as it is written. Profiles are aged like other profiles, deaths are kept.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from stanch.store.block import integers, texts
from stanch.store.engine import Engine
from stanch.store.history import DeathRow, TimeRange
from stanch.store.schema import DEATH_PROFILES, DEATHS
from stanch.store.sqlprofiles import life_name, milliseconds
from stanch.store.sqlwrites import insert, times

_COLUMNS = "death, service, instance, cause, toUnixTimestamp64Milli(time), document"
_MS = "fromUnixTimestamp64Milli"


def write_death(engine: Engine, row: DeathRow, written_unix_s: float) -> None:
    """Replace the row of a death. Raises StoreError."""
    insert(
        engine,
        DEATHS,
        1,
        [
            texts([row.service]),
            texts([row.instance]),
            integers([int(row.death, 16)], "uint64"),
            times([row.died_unix_s]),
            times([written_unix_s]),
            texts([row.cause]),
            texts([json.dumps(dict(row.document))]),
        ],
    )


def write_death_profile(engine: Engine, row: DeathRow, data: bytes, unix_s: float) -> None:
    """Replace the profile of a death; data: pprof. Raises StoreError."""
    insert(
        engine,
        DEATH_PROFILES,
        1,
        [
            texts([row.service]),
            integers([int(row.death, 16)], "uint64"),
            times([unix_s]),
            texts([data]),
        ],
    )


def read_deaths(
    engine: Engine, within: TimeRange, service: str, instance: str, most: int
) -> tuple[DeathRow, ...]:
    """The deaths of a range, the newest first. Raises StoreError."""
    rows = engine.query(
        f"SELECT {_COLUMNS} FROM deaths FINAL"
        f" WHERE time >= {_MS}({{since:Int64}}) AND time < {_MS}({{until:Int64}})"
        " AND ({service:String} = '' OR service = {service:String})"
        " AND ({instance:String} = '' OR instance = {instance:String})"
        " ORDER BY time DESC, death LIMIT {most:UInt32}",
        {"service": service, "instance": instance, "most": most, **milliseconds(within)},
    )
    return tuple(map(_row, rows))


def read_death(engine: Engine, death: int) -> DeathRow | None:
    """One death. Raises StoreError."""
    rows = engine.query(
        f"SELECT {_COLUMNS} FROM deaths FINAL WHERE death = {{death:UInt64}}", {"death": death}
    )
    return _row(rows[0]) if rows else None


def read_death_profile(engine: Engine, death: int) -> bytes | None:
    """What a dead process held, pprof; None when there is none any more. Raises StoreError."""
    rows = engine.query(
        "SELECT base64Encode(data) FROM death_profiles FINAL WHERE death = {death:UInt64}",
        {"death": death},
    )
    return base64.b64decode(rows[0][0]) if rows else None


def has_death_profile(engine: Engine, service: str, death: int) -> bool:
    """Whether `read_death_profile` has an answer, without reading it. Raises StoreError."""
    rows = engine.query(
        "SELECT 1 FROM death_profiles"
        " WHERE service = {service:String} AND death = {death:UInt64} LIMIT 1",
        {"service": service, "death": death},
    )
    return bool(rows)


def _row(row: tuple[Any, ...]) -> DeathRow:
    document: Mapping[str, Any] = json.loads(row[5])
    return DeathRow(life_name(row[0]), row[1], row[2], row[3], row[4] / 1000, document)

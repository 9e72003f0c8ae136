"""What servers that share a store tell each other in it: signs of life, alarms told, silences.

These rows are few, go into the tables at once and can be read as soon as they are written. Times
are the store's own, as the clocks of servers may differ.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from stanch.store.block import integers, list_ends, texts
from stanch.store.engine import Engine
from stanch.store.schema import ALARMS, SERVERS, SILENCES
from stanch.store.sqlwrites import insert


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life of a server.

    incarnation: which life of the server this is. beat: rises with each. members: the servers that
    it divides services by, empty while it takes none. left: that it has ended, and takes none.
    """

    server: str
    incarnation: int
    beat: int
    members: tuple[str, ...]
    left: bool = False


@dataclass(frozen=True, slots=True)
class ToldRow:
    """What is known of an alarm that was told, JSON. A higher version replaces a lower one."""

    service: str
    fingerprint: str
    version: int
    document: str


def write_beat(engine: Engine, beat: Beat) -> None:
    """Write a sign of life. Raises StoreError."""
    insert(
        engine,
        SERVERS,
        1,
        [
            texts([beat.server]),
            integers([beat.incarnation], "uint64"),
            integers([beat.beat], "uint64"),
            list_ends([beat.members]) + texts(beat.members),
            integers([int(beat.left)], "uint8"),
        ],
    )


def read_beats(engine: Engine) -> tuple[Beat, ...]:
    """The last sign of life of each server, those of a day. Raises StoreError."""
    rows = engine.query("SELECT server, incarnation, beat, members, left FROM servers FINAL")
    return tuple(
        Beat(server, incarnation, beat, tuple(members), bool(left))
        for server, incarnation, beat, members, left in rows
    )


def write_told(engine: Engine, rows: Sequence[ToldRow]) -> None:
    """Replace what is known of alarms. Raises StoreError."""
    insert(
        engine,
        ALARMS,
        len(rows),
        [
            texts(row.service for row in rows),
            texts(row.fingerprint for row in rows),
            integers((row.version for row in rows), "uint64"),
            texts(row.document for row in rows),
        ],
    )


def read_told(engine: Engine, services: Collection[str]) -> tuple[ToldRow, ...]:
    """What is known of the alarms of services. Raises StoreError."""
    rows = engine.query(
        "SELECT service, fingerprint, version, document FROM alarms FINAL"
        " WHERE service IN {services:Array(String)}",
        {"services": sorted(services)},
    )
    return tuple(ToldRow(*row) for row in rows)


def read_services_on_record(engine: Engine) -> frozenset[str]:
    """The services of findings that fire and of alarms that were told. Raises StoreError."""
    rows = engine.query(
        "SELECT DISTINCT service FROM findings FINAL WHERE status = 'firing'"
        " UNION DISTINCT SELECT DISTINCT service FROM alarms"
    )
    return frozenset(row[0] for row in rows)


def write_silences(engine: Engine, documents: Mapping[str, str]) -> None:
    """Replace marks and windows by name; "" removes one. Raises StoreError."""
    insert(engine, SILENCES, len(documents), [texts(documents), texts(documents.values())])


def read_silences(engine: Engine) -> dict[str, str]:
    """All marks and windows by name, those removed as "". Raises StoreError."""
    return dict(engine.query("SELECT name, document FROM silences FINAL"))

"""What one target told at one instant, as it is kept first: numbers, and profiles as they came.

A record is the unit of the write-ahead log. It holds everything that its rows are made of, so the
same bytes give the same rows, however often and whenever they are made.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stanch.store.errors import StoreError


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of an instant; None is unknown. Bytes, seconds, and counts since the start.

    memory_bytes counts against the limit. latency_s: mean seconds of a request. fresh: False
    when the heap profile was an older one again, which is then not in the record. slack_bytes:
    what allocators hold free. page_cache_bytes: of the container.
    """

    rss_bytes: float | None = None
    memory_bytes: float | None = None
    limit_bytes: float | None = None
    heap_bytes: float | None = None
    runtime_bytes: float | None = None
    requests: float | None = None
    in_flight: float | None = None
    latency_s: float | None = None
    period_bytes: float = 512 * 1024
    fresh: bool = True
    breakdown: Mapping[str, int] = field(default_factory=dict)
    slack_bytes: float | None = None
    page_cache_bytes: float | None = None
    open_fds: float | None = None
    max_fds: float | None = None


@dataclass(frozen=True, slots=True)
class LifeState:
    """A row of the table of lives, as of `seen_ms`; times in ms since the Unix epoch.

    end: "running", "killed" or "restarted"; the others of `history.End` are told at reading.
    """

    life: int
    service: str
    instance: str
    start_ms: int
    seen_ms: int
    end: str
    release: str
    language: str
    pid: int | None
    limit_bytes: float | None
    memory_bytes: float | None


@dataclass(frozen=True, slots=True)
class Payload:
    """One profile of a record: gzip or plain pprof.

    name: 32 hex digits, the same when the same profile is sent again. kind: "heap", or what is
    counted. offset_s: from the birth seconds of this process to those of the life.
    band_s: width of the bands of birth to keep.
    """

    name: str
    kind: str
    data: bytes
    offset_s: float = 0.0
    band_s: int = 5


@dataclass(frozen=True, slots=True)
class Record:
    """Everything of one target at one instant; `age_s` is the life's clock.

    rolled: whether its samples are kept in the coarse table too.
    """

    service: str
    instance: str
    life: int
    unix_ms: int
    age_s: float
    numbers: Numbers
    payloads: tuple[Payload, ...] = ()
    lives: tuple[LifeState, ...] = ()
    rolled: bool = False


_LENGTH = struct.Struct("<I")


def encode_record(record: Record) -> bytes:
    """The bytes of a record."""
    header = {
        "service": record.service,
        "instance": record.instance,
        "life": record.life,
        "unix_ms": record.unix_ms,
        "age_s": record.age_s,
        "numbers": _plain(record.numbers),
        "payloads": [
            [each.name, each.kind, each.offset_s, each.band_s, len(each.data)]
            for each in record.payloads
        ],
        "lives": [_plain(life) for life in record.lives],
        "rolled": record.rolled,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"".join((_LENGTH.pack(len(text)), text, *(each.data for each in record.payloads)))


def _plain(value: Numbers | LifeState) -> dict[str, Any]:
    """The fields by name, as they are: `asdict` copies them deeply, at ten times the cost."""
    return {name: getattr(value, name) for name in value.__slots__}


def decode_record(data: bytes) -> Record:
    """The record of some bytes. Raises StoreError when they are not one."""
    try:
        (size,) = _LENGTH.unpack_from(data)
        at = _LENGTH.size + size
        header = json.loads(data[_LENGTH.size : at])
        payloads = []
        for name, kind, offset_s, band_s, length in header["payloads"]:
            payloads.append(Payload(name, kind, data[at : at + length], offset_s, band_s))
            at += length
        return Record(
            service=header["service"],
            instance=header["instance"],
            life=header["life"],
            unix_ms=header["unix_ms"],
            age_s=header["age_s"],
            numbers=Numbers(**header["numbers"]),
            payloads=tuple(payloads),
            lives=tuple(LifeState(**life) for life in header["lives"]),
            rolled=header.get("rolled", False),
        )
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"a record of the write-ahead log cannot be read ({error}); it was written by"
            " another version of Stanch, so start that one once to finish it"
        ) from error

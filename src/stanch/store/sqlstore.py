"""The store that lasts: takes looks and profiles, and gives detection its series.

Everything that is taken goes through the write-ahead log (`intake.py`) into the tables
(`schema.py`) of chDB or ClickHouse (`engine.py`). It may be used from several threads.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stanch.profile import ProfileError
from stanch.store.decoder import Decoded
from stanch.store.engine import CHDB_MEMORY_BYTES, Engine, open_chdb, open_http
from stanch.store.errors import StoreError
from stanch.store.history import HEAP, DeathRow, FindingRow, History, TargetRow
from stanch.store.intake import Intake, IntakeBounds
from stanch.store.life import is_sound, memory_of
from stanch.store.lookprofile import look_profiles
from stanch.store.model import FILES, Look, StackHeap, thin
from stanch.store.record import LifeState, Numbers, Payload, Record
from stanch.store.retention import Retention, RetentionBounds
from stanch.store.rows import (
    Decoding,
    Rows,
    band_width_s,
    open_profile,
    payload_name,
    rows_of,
)
from stanch.store.series import LifeSeries, ServiceSeries
from stanch.store.sqldeaths import write_death, write_death_profile
from stanch.store.sqlhistory import SqlHistory, known
from stanch.store.sqlseries import SeriesBounds, read_series, read_services
from stanch.store.sqlwrites import write_findings, write_targets
from stanch.store.track import Tracker
from stanch.store.wal import Log

_MOST_NOTICES = 100
_TEND_EVERY_S = 20.0
_LIFE_SILENT_MS = 24 * 3_600_000
"""A life that is not heard of for so long is not taken up."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A profile of a look: which of its processes it is of, and its bytes, gzip or plain.

    decoded: its tables, where the caller has them already.
    """

    kind: str
    data: bytes
    process: int = 0
    decoded: Decoded | None = None


@dataclass(frozen=True, slots=True)
class Extra:
    """What a look does not carry; latency_s: mean of a request; breakdown: bytes by name."""

    latency_s: float | None = None
    breakdown: Mapping[str, int] = field(default_factory=dict)


class SqlStore:
    """The Store protocol, over an engine. Close it to have everything inserted."""

    def __init__(
        self,
        engine: Engine,
        log: Log,
        *,
        bounds: IntakeBounds | None = None,
        series_bounds: SeriesBounds | None = None,
        retention: RetentionBounds | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take over what an earlier process left in the log. Raises StoreError.

        retention: what an embedded engine keeps; a cluster's tables see to that themselves.
        """
        self.engine = engine
        self._series_bounds = series_bounds or SeriesBounds()
        self._wall = wall
        self._lock = threading.Lock()
        self.on_end: Callable[[LifeState, Look], None] = lambda life, last: None
        """Told of each life that another one follows, with its last look, from the thread of that
        look, before it is kept."""
        self._ended: dict[int, LifeSeries] = {}
        self._tracker = Tracker(_running(engine, self._now_ms() - _LIFE_SILENT_MS))
        self._notices: deque[str] = deque(maxlen=_MOST_NOTICES)
        self._retention = Retention(
            engine, retention or RetentionBounds(), wall=wall, notice=self.notice
        )
        self.intake = Intake(
            engine, log, bounds=bounds, keep_raw=self._retention.keeps_raw, notice=self.notice
        )
        if engine.is_embedded:
            self._retention.start(_TEND_EVERY_S)
        self.history: History = SqlHistory(
            engine, wall=wall, waiting=self._waiting, notices=lambda: tuple(self._notices)
        )

    def __enter__(self) -> "SqlStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, look: Look, profiles: Sequence[Taken], extra: Extra | None = None) -> bool:
        """Keep a look with its profiles; the heaps in the look itself are not read.

        Returns False when all its profiles were taken before, and nothing is done. When it
        returns True, the look outlives a crash.
        Raises ProfileError for a profile that cannot be read, StoreFullError and StoreError.
        """
        names = [payload_name(look.service, look.instance, taken.data) for taken in profiles]
        if names and all(self.intake.knows(name) for name in names):
            self.intake.skipped += 1
            return False
        opened = [taken.decoded or open_profile(taken.data) for taken in profiles]
        ages_known = all(process.age_s is not None for process in look.processes)
        rows: list[Rows] | None = None
        if not ages_known:
            rows = [rows_of(one, self.intake.stacks, 0.0, 0) for one in opened]
            look = _with_sums(look, profiles, rows)
        self._learn_lives(look)
        with self._lock:
            memory_bytes = memory_of(look)
            chosen = extra or Extra()
            moment = self._tracker.place(
                thin(look), memory_bytes, {taken.kind for taken in profiles}
            )
        if moment.ended is not None:
            self.on_end(*moment.ended)
        band_s = band_width_s(moment.age_s) if ages_known else 0
        offsets_s = moment.offsets_s or (0.0,)
        if rows is None:
            rows = [
                rows_of(one, self.intake.stacks, offsets_s[taken.process], band_s)
                for taken, one in zip(profiles, opened, strict=True)
            ]
        heap_bytes = [
            one.total_live_bytes
            for taken, one in zip(profiles, rows, strict=True)
            if taken.kind == HEAP
        ]
        record = Record(
            service=look.service,
            instance=look.instance,
            life=moment.life,
            unix_ms=round(look.unix_s * 1000),
            age_s=moment.age_s,
            numbers=_numbers(look, memory_bytes, chosen, heap_bytes),
            payloads=tuple(
                Payload(name, taken.kind, taken.data, offsets_s[taken.process], band_s)
                for name, taken in zip(names, profiles, strict=True)
            ),
            lives=moment.lives,
            rolled=moment.rolled,
        )
        self.intake.submit(Decoding(record, tuple(rows)))
        return True

    def _learn_lives(self, look: Look) -> None:
        """Where other servers write into the store too, a life that is new to this one may not be.

        Without an answer it is taken for new. What has come in only seconds ago is not seen.
        """
        if self.engine.is_embedded:
            return
        with self._lock:
            if self._tracker.fits(thin(look)):
                return
        with contextlib.suppress(StoreError):
            since_ms = self._now_ms() - _LIFE_SILENT_MS
            states = _running(self.engine, since_ms, look.service, look.instance)
            with self._lock:
                self._tracker.learn(thin(look), reversed(states))

    def add(self, look: Look) -> None:
        """Take in one look, with its heaps and counts as profiles; see `series.Store`."""
        profiles = [Taken(kind, data, process) for kind, data, process in look_profiles(look)]
        try:
            self.take(look, profiles)
        except ProfileError as error:
            raise StoreError(f"the look at {look.instance} cannot be kept: {error}") from error

    def services(self) -> tuple[str, ...]:
        """Names of the services heard of in the last 24 hours, sorted."""
        return read_services(self.engine, self._now_ms() - 24 * 3_600_000)

    def series(self, service: str) -> ServiceSeries:
        """What is in the tables of one service; what was taken last comes after some seconds."""
        return read_series(self.engine, service, self._now_ms(), self._series_bounds, self._ended)

    def write_findings(self, findings: Sequence[FindingRow]) -> None:
        """Replace the rows of these findings. Raises StoreError."""
        write_findings(self.engine, findings)

    def write_targets(self, targets: Sequence[TargetRow]) -> None:
        """Replace the rows of these targets. Raises StoreError."""
        write_targets(self.engine, targets)

    def write_death(self, row: DeathRow, profile: bytes | None = None) -> None:
        """Replace the record of a death, and what it held, pprof, where given. Raises StoreError.

        It can be read when this returns.
        """
        now_s = self._wall()
        if profile is not None:
            write_death_profile(self.engine, row, profile, now_s)
        write_death(self.engine, row, now_s)

    def notice(self, text: str) -> None:
        """Say something about the store itself that people should see: in `Storage.notices`."""
        moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self._wall()))
        self._notices.append(f"{moment}: {text}")

    def flush(self) -> None:
        """Have everything that was taken in the tables. Raises StoreError when that fails."""
        if not self.intake.flush():
            raise StoreError(f"the store does not keep up: {self.intake.failing or 'too slow'}")

    def close(self) -> None:
        """Insert what waits, as far as that works, and close the engine."""
        self._retention.close()
        self.intake.close()
        self.engine.close()

    def _waiting(self) -> tuple[int, int]:
        return self.intake.waiting, self.intake.skipped

    def _now_ms(self) -> int:
        return round(self._wall() * 1000)


def open_store(
    url: str,
    data: Path,
    *,
    bounds: IntakeBounds | None = None,
    retention: RetentionBounds | None = None,
    memory_bytes: int = CHDB_MEMORY_BYTES,
    wall: Callable[[], float] = time.time,
) -> SqlStore:
    """Open the store at a URL: "chdb" for the data directory, or http[s]://... for a cluster.

    The write-ahead log is in the data directory either way. Raises StoreError.
    """
    if url == "chdb":
        engine = open_chdb(data, memory_bytes)
    elif url.startswith("chdb://"):
        engine = open_chdb(Path(url.removeprefix("chdb://")), memory_bytes)
    else:
        engine = open_http(url)
    try:
        return SqlStore(engine, Log(data / "wal"), bounds=bounds, retention=retention, wall=wall)
    except BaseException:
        engine.close()
        raise


def _running(
    engine: Engine, since_ms: int, service: str = "", instance: str = ""
) -> list[LifeState]:
    """The lives that go on, of one instance or of all, those seen last at the end."""
    of_one = " AND service = {service:String} AND instance = {instance:String}" if service else ""
    rows = engine.query(
        "SELECT life, service, instance, toUnixTimestamp64Milli(start),"
        " toUnixTimestamp64Milli(seen), end, release, language, (pid, limit_bytes, memory_bytes)"
        " FROM lives FINAL WHERE end = 'running'"
        f" AND seen >= fromUnixTimestamp64Milli({{since:Int64}}){of_one} ORDER BY seen",
        {"since": since_ms, "service": service, "instance": instance},
    )
    return [LifeState(*names, *_unknown_as_none(*numbers)) for *names, numbers in rows]


def _unknown_as_none(pid: int, limit_bytes: float, memory_bytes: float) -> tuple[Any, ...]:
    return pid if pid >= 0 else None, known(limit_bytes), known(memory_bytes)


def _with_sums(look: Look, profiles: Sequence[Taken], rows: Sequence[Rows]) -> Look:
    """The look with the sums of its profiles' heaps, by which a new life is told apart."""
    processes = list(look.processes)
    for taken, one in zip(profiles, rows, strict=True):
        if taken.kind == HEAP and taken.process < len(processes):
            sums = StackHeap((), float(one.total_alloc_bytes), float(one.total_live_bytes), 0.0)
            processes[taken.process] = replace(processes[taken.process], heap=(sums,))
    return replace(look, processes=tuple(processes))


def _numbers(
    look: Look, memory_bytes: float | None, extra: Extra, heap_bytes: Sequence[int]
) -> Numbers:
    def total(name: str) -> float | None:
        values = [getattr(process, name) for process in look.processes]
        known = [value for value in values if is_sound(value)]
        return sum(known) if known else None

    files = [count.count for count in look.counts if count.stack == FILES]
    heap = total("live_heap_bytes")
    if heap is None and heap_bytes:
        heap = float(sum(heap_bytes))
    return Numbers(
        rss_bytes=total("rss_bytes"),
        memory_bytes=memory_bytes,
        limit_bytes=look.limit_bytes,
        heap_bytes=heap,
        runtime_bytes=total("runtime_bytes"),
        requests=total("requests"),
        in_flight=total("in_flight"),
        latency_s=extra.latency_s,
        period_bytes=max(
            (process.period_bytes for process in look.processes), default=512 * 1024.0
        ),
        fresh=bool(heap_bytes),
        breakdown=extra.breakdown,
        slack_bytes=_sound(look.slack_bytes),
        page_cache_bytes=_sound(look.page_cache_bytes),
        open_fds=_sound(sum(files)) if files else None,
        max_fds=_sound(look.max_fds),
    )


def _sound(number: float | None) -> float | None:
    return number if is_sound(number) else None

"""The way in: a record is on the disk when `submit` returns, and in the tables soon after.

A segment of the write-ahead log that is large or old enough takes no more records; when the last
of its writers is done it waits to be inserted. One thread takes what waits, one after the other,
makes its blocks and inserts them under its token; then the segment goes. What a process
left behind is taken first by the next one, which looks whether all of it has come into the tables.
A profile that is known by its name already is passed over, as tokens expire.

Few segments that wait keep their decoded records, so memory is bounded; of the others they are
decoded again. That is twice the work, so while the tables keep up badly, but do, senders are held
back for a moment.

Locks: `_lock` guards the open segment, its decoded records, the waiting segments and the names;
the inserting thread takes it for moments only, never while it inserts.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from stanch.profile import ProfileError
from stanch.store.blocks import blocks
from stanch.store.engine import Engine
from stanch.store.errors import StoreError, StoreFullError
from stanch.store.mend import insert_missing
from stanch.store.record import decode_record, encode_record
from stanch.store.rows import Decoding, decode_payloads
from stanch.store.schema import PROFILE_NAME
from stanch.store.wal import Log, Segment, read_segment

_MOST_NAMES = 500_000
_MOST_STACKS = 2_000_000
_KEPT_IN_MEMORY = 2
"""So many waiting segments keep their decoded records; of others they are decoded again."""
_TRIES = 12
_RUSH = 40_000
"""Samples a second above which raw profiles, which would be half the cost, are not kept."""


@dataclass(frozen=True, slots=True)
class IntakeBounds:
    """When a segment is full, and how much may wait on the disk before senders are refused.

    A segment is done after `rows` samples, `bytes` or `seconds`, whichever comes first. While the
    tables do not keep up a sender is held back for at most `held_back_s`.
    """

    rows: int = 600_000
    bytes: int = 64 * 1024 * 1024
    seconds: float = 5.0
    waiting_bytes: int = 1024 * 1024 * 1024
    held_back_s: float = 2.0


@dataclass(slots=True)
class _Batch:
    """The segment that is being written, with what its records decode to."""

    segment: Segment
    since_s: float
    decoded: list[Decoding] = field(default_factory=list)
    rows: int = 0
    writers: int = 0


@dataclass(frozen=True, slots=True)
class _Waiting:
    path: Path
    size_bytes: int
    decoded: list[Decoding] | None
    is_earlier: bool = False  # of an earlier process


class Intake:
    """Takes records from many threads. `close` it to have everything inserted."""

    def __init__(
        self,
        engine: Engine,
        log: Log,
        *,
        bounds: IntakeBounds | None = None,
        keep_raw: Callable[[], bool] = lambda: True,
        notice: Callable[[str], None] = lambda text: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Insert what was left behind, then begin. Raises StoreError.

        keep_raw: asked before each batch, whether its profiles are kept as they came.
        notice: told in one sentence what went wrong with what was acknowledged.
        """
        self._engine = engine
        self._log = log
        self._bounds = bounds or IntakeBounds()
        self._keep_raw = keep_raw
        self._notice = notice
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._batch: _Batch | None = None
        self._closing = 0
        """Segments that take no more records, whose last writers are not done."""
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._held = 0
        """So many of those that wait keep their decoded records."""
        self._names: set[str] = set()
        self._older_names: set[str] = set()
        self._stacks: set[bytes] = set()
        self._stacks_day = _today()
        self._stopping = self._flushing = self._hurried = False
        self.taken = self.skipped = self.inserted_rows = 0
        self.failing: str | None = None
        for path in log.segments():
            size_bytes = path.stat().st_size
            self._waiting.append(_Waiting(path, size_bytes, None, is_earlier=True))
            self._waiting_bytes += size_bytes
        self._thread = threading.Thread(target=self._run, name="stanch-store", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many records are acknowledged and not in the tables yet, where that is known."""
        with self._lock:
            ready = sum(len(waiting.decoded or ()) for waiting in self._waiting)
            return ready + (len(self._batch.decoded) if self._batch else 0)

    @property
    def stacks(self) -> set[bytes]:
        """The names of the stacks whose frames need not be told again. Not to be changed."""
        return self._stacks

    def knows(self, name: str) -> bool:
        """Whether a profile of this name was taken a short while ago."""
        return name in self._names or name in self._older_names

    def submit(self, decoding: Decoding) -> None:
        """Keep a record. When this returns, it outlives a crash.

        Raises StoreFullError when there is no room, StoreError when it cannot be kept.
        """
        data = encode_record(decoding.record)
        with self._lock:
            self._changed.wait_for(self._has_time, self._bounds.held_back_s)
            if self._stopping:
                raise StoreError("the store is being closed")
            if self._waiting_bytes > self._bounds.waiting_bytes:
                raise StoreFullError(
                    f"{self._waiting_bytes:,} bytes wait to be stored, which cannot keep up"
                    f"{f' ({self.failing})' if self.failing else ''}; send again later"
                )
            if self._batch is None:
                self._batch = _Batch(self._log.begin(), self._monotonic())
                self._changed.notify_all()
            batch = self._batch
            batch.writers += 1
        try:
            batch.segment.append(data)
        except StoreError:
            with self._lock:
                # A segment that failed takes no more; what it has is inserted as usual.
                self._detach(batch)
            raise
        else:
            with self._lock:
                batch.decoded.append(decoding)
                batch.rows += decoding.count
                for rows in decoding.rows:
                    self._stacks.update(rows.new_stacks)
                self._remember(payload.name for payload in decoding.record.payloads)
                self.taken += 1
        finally:
            with self._lock:
                batch.writers -= 1
                if self._is_full(batch):
                    self._detach(batch)
                if batch is not self._batch and not batch.writers:
                    self._seal(batch)

    def flush(self, timeout_s: float = 60.0) -> bool:
        """Insert all that was submitted before, what failed too; whether it is done in time."""
        with self._lock:
            self._flushing = self._hurried = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._flushing, timeout_s)

    def close(self, timeout_s: float = 60.0) -> None:
        """Insert what is there and stop; what cannot be inserted in time stays on the disk."""
        with self._lock:
            self._stopping = self._flushing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._log.close()

    def _is_full(self, batch: _Batch) -> bool:
        return batch.rows >= self._bounds.rows or batch.segment.size_bytes >= self._bounds.bytes

    def _has_time(self) -> bool:
        """Whether a record can be taken without being decoded a second time, or has to be."""
        return self._held < _KEPT_IN_MEMORY or self.failing is not None or self._stopping

    def _detach(self, batch: _Batch) -> None:
        """Let a segment take no more records; `_lock` is held."""
        if batch is self._batch:
            self._batch = None
            self._closing += 1

    def _seal(self, batch: _Batch) -> None:
        """Put a detached segment without writers among those that wait; `_lock` is held."""
        batch.segment.close()
        self._closing -= 1
        size_bytes = batch.segment.size_bytes
        decoded = batch.decoded if self._held < _KEPT_IN_MEMORY else None
        self._held += decoded is not None
        self._waiting.append(_Waiting(batch.segment.path, size_bytes, decoded))
        self._waiting_bytes += size_bytes
        self._changed.notify_all()

    def _remember(self, names: Iterable[str]) -> None:
        self._names.update(names)
        if len(self._names) > _MOST_NAMES // 2:
            self._older_names, self._names = self._names, set()

    def _run(self) -> None:
        while True:
            with self._lock:
                self._wait_for_work()
                if not self._waiting:
                    self._flushing = False
                    self._changed.notify_all()
                    if self._stopping:
                        return
                    continue
                waiting = self._waiting[0]
            if not self._insert_until_done(waiting):
                return
            with self._lock:
                self._waiting.popleft()
                self._held -= waiting.decoded is not None
                self._waiting_bytes -= waiting.size_bytes
                self._changed.notify_all()

    def _wait_for_work(self) -> None:
        """Until a segment waits or there is something to end; `_lock` is held."""
        while not self._waiting:
            batch = self._batch
            if batch is None:
                if self._flushing and not self._closing:
                    return
                self._changed.wait()
                continue
            left_s = batch.since_s + self._bounds.seconds - self._monotonic()
            if not self._flushing and left_s > 0:
                self._changed.wait(left_s)
                continue
            self._detach(batch)
            if not batch.writers:
                self._seal(batch)

    def _insert_until_done(self, waiting: _Waiting) -> bool:
        """Whether the segment is done with; False when the intake is closed before."""
        for number in count():
            try:
                self._insert(waiting)
            except StoreError as error:
                self.failing = str(error)
                with self._lock:
                    self._changed.notify_all()
                if number + 1 >= _TRIES and not isinstance(error, StoreFullError):
                    self._set_aside(waiting.path, error)
                    return True
                with self._lock:
                    if self._stopping:
                        return False
                    self._changed.wait_for(
                        lambda: self._stopping or self._hurried, _pause_s(number)
                    )
                    self._hurried = False
            else:
                self.failing = None
                return True
        return False

    def _insert(self, waiting: _Waiting) -> None:
        decoded = waiting.decoded
        if decoded is None:
            decoded = self._read(waiting.path)
        token = waiting.path.stem
        if decoded:
            samples = sum(decoding.count for decoding in decoded)
            keep_raw = self._keep_raw() and samples < _RUSH * self._bounds.seconds
            for table, block in blocks(decoded, keep_raw=keep_raw):
                self._engine.insert(table, block, f"{token}-{table.name}")
                if waiting.is_earlier:
                    insert_missing(self._engine, table, decoded)
        self._log.end(waiting.path)
        rows = sum(decoding.count for decoding in decoded)
        with self._lock:
            self.inserted_rows += rows
            self._forget_stacks_daily()

    def _read(self, path: Path) -> list[Decoding]:
        """The records of a segment from an earlier process, but for those that are stored."""
        records = [decode_record(data) for data in read_segment(path)]
        names = [payload.name for record in records for payload in record.payloads]
        stored = self._stored(names)
        decoded = []
        for record in records:
            if record.payloads and all(payload.name in stored for payload in record.payloads):
                continue
            try:
                decoded.append(decode_payloads(record, set()))
            except ProfileError as error:
                self._notice(f"a profile of {record.service} was acknowledged and is lost: {error}")
        with self._lock:
            self._remember(names)
        return decoded

    def _stored(self, names: list[str]) -> set[str]:
        found: set[str] = set()
        for first in range(0, len(names), 1000):
            some = ", ".join(f"unhex('{name}')" for name in names[first : first + 1000])
            rows = self._engine.query(
                f"SELECT DISTINCT {PROFILE_NAME} FROM profiles"
                f" WHERE reinterpretAsFixedString(profile) IN ({some})"
            )
            found |= {row[0] for row in rows}
        return found

    def _set_aside(self, path: Path, error: StoreError) -> None:
        """A segment that can never be inserted must not stop those behind it."""
        aside = path.with_suffix(".refused")
        path.rename(aside)
        self._notice(f"a segment could not be stored and is kept as {aside}: {error}")

    def _forget_stacks_daily(self) -> None:
        """Stacks are written once a day, so that old ones can go with their day's partition."""
        day = _today()
        if day != self._stacks_day or len(self._stacks) > _MOST_STACKS:
            self._stacks_day = day
            self._stacks = set()


def _today() -> int:
    return int(time.time() // 86_400)


def _pause_s(failures: int) -> float:
    return float(min(10.0, 0.5 * 2 ** min(failures, 6)))

"""What is dropped: by age, by size, and when the disk has no more room.

Whole partitions go, oldest first, so dropping is quick and frees space at once. The newest one
is never dropped: the store goes on watching whatever happens. Only the embedded engine's directory
is tended; on a cluster the tables drop rows by their own age (`schema.Cluster.keep_days`).
"""

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stanch.store.engine import Engine
from stanch.store.errors import StoreError
from stanch.store.schema import (
    DATABASE,
    DEATH_PROFILES,
    MEMORY,
    PROFILES,
    RAW,
    ROLLED,
    SAMPLES,
    STACKS,
)

_GIB = 1024**3
_TOGETHER = (SAMPLES, ROLLED, MEMORY, PROFILES)
"""Tables whose partitions are the same hours; they go together."""
_OTHERS = (STACKS, RAW, DEATH_PROFILES)


@dataclass(frozen=True, slots=True)
class RetentionBounds:
    """What is kept. age_s, sample_age_s and raw_age_s: seconds; bytes of the tables on the disk.

    sample_age_s: so long samples are kept in full; older ones are what is rolled up.

    max_bytes: 0 is no bound but the floor. free_bytes: below so much free space the oldest
    partition goes. raw_bytes: profiles as they came take at most this much.
    """

    age_s: float = 30 * 86_400.0
    sample_age_s: float = 2 * 86_400.0
    raw_age_s: float = 3_600.0
    max_bytes: int = 0
    free_bytes: int = 2 * _GIB
    raw_bytes: int = 2 * _GIB


@dataclass(frozen=True, slots=True)
class _Partition:
    """A partition by its id, with the newest time in it and its size."""

    table: str
    partition: str
    newest_ms: int
    size_bytes: int


class Retention:
    """Tends the tables of an embedded engine, every so often, from a thread of its own.

    free: how much room there is on the disk, in bytes. notice: told in a sentence of each drop
    that was not by age.
    """

    def __init__(
        self,
        engine: Engine,
        bounds: RetentionBounds,
        *,
        wall: Callable[[], float],
        notice: Callable[[str], None],
        free: Callable[[], int] | None = None,
    ) -> None:
        self._engine = engine
        self._bounds = bounds
        self._wall = wall
        self._notice = notice
        self._free = free or (lambda: _free_bytes(engine.directory))
        self._keeps_raw = True
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def keeps_raw(self) -> bool:
        """Whether profiles are kept as they came: not while they take too much room."""
        return self._keeps_raw

    def start(self, every_s: float) -> None:
        """Tend the tables again and again until `close`."""
        self._thread = threading.Thread(
            target=self._run, args=(every_s,), name="stanch-retention", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def tend(self) -> int:
        """Drop what is to go now; how many partitions went. Raises StoreError."""
        dropped = self._drop_old()
        dropped += self._drop_raw()
        while (reason := self._needs_room()) is not None:
            oldest = self._oldest_hours()
            if oldest is None:
                return dropped
            for partition in oldest:
                self._drop(partition)
            dropped += len(oldest)
            self._notice(f"dropped the oldest partition, {oldest[0].partition}: {reason}")
        return dropped

    def _run(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            try:
                self.tend()
            except StoreError as error:
                self._notice(f"old partitions could not be dropped: {error}")

    def _drop_old(self) -> int:
        now_ms = self._wall() * 1000
        by_age = (*_TOGETHER, STACKS, DEATH_PROFILES)
        limits = {table.name: now_ms - self._bounds.age_s * 1000 for table in by_age}
        sample_age_s = min(self._bounds.sample_age_s, self._bounds.age_s)
        limits[SAMPLES.name] = now_ms - sample_age_s * 1000
        limits[RAW.name] = now_ms - self._bounds.raw_age_s * 1000
        # Stacks are told once a day, so those of the day before may still be needed.
        limits[STACKS.name] -= 86_400_000
        old = [one for one in self._partitions() if one.newest_ms < limits[one.table]]
        for partition in old:
            self._drop(partition)
        return len(old)

    def _drop_raw(self) -> int:
        raw = [one for one in self._partitions() if one.table == RAW.name]
        size = sum(one.size_bytes for one in raw)
        dropped = 0
        while size > self._bounds.raw_bytes and len(raw) > 1:
            oldest = raw.pop(0)
            self._drop(oldest)
            size -= oldest.size_bytes
            dropped += 1
        self._keeps_raw = size <= self._bounds.raw_bytes
        return dropped

    def _needs_room(self) -> str | None:
        """Why a partition must go, None when there is room."""
        free = self._free() + self._being_removed()
        if free < self._bounds.free_bytes:
            return (
                f"{free:,} bytes are free on the disk of the data directory, less than the floor"
                f" of {self._bounds.free_bytes:,}"
            )
        size = sum(one.size_bytes for one in self._partitions())
        if self._bounds.max_bytes and size > self._bounds.max_bytes:
            return f"the store has {size:,} bytes, more than its {self._bounds.max_bytes:,}"
        return None

    def _oldest_hours(self) -> list[_Partition] | None:
        """The oldest partition of the tables that go together; None when there is only one."""
        together = {table.name for table in _TOGETHER}
        hours = [one for one in self._partitions() if one.table in together]
        ids = sorted({one.partition for one in hours})
        if len(ids) < 2:
            raw = [one for one in self._partitions() if one.table == RAW.name]
            return raw[:1] or None
        return [one for one in hours if one.partition == ids[0]]

    def _partitions(self) -> list[_Partition]:
        """All partitions that may go, oldest first."""
        names = ", ".join(f"'{table.name}'" for table in (*_TOGETHER, *_OTHERS))
        rows = self._engine.query(
            "SELECT table, partition_id, toUnixTimestamp(max(max_time)) * 1000, sum(bytes_on_disk)"
            f" FROM system.parts WHERE database = '{DATABASE}' AND active AND table IN ({names})"
            " GROUP BY table, partition_id ORDER BY partition_id, table"
        )
        return [_Partition(*row) for row in rows]

    def _being_removed(self) -> int:
        """Bytes of parts that are dropped or merged away, whose files go within a minute or so."""
        ((size,),) = self._engine.query(
            f"SELECT sum(bytes_on_disk) FROM system.parts WHERE database = '{DATABASE}'"
            " AND NOT active"
        )
        return size or 0

    def _drop(self, partition: _Partition) -> None:
        self._engine.command(
            f"ALTER TABLE {DATABASE}.{partition.table} DROP PARTITION ID '{partition.partition}'"
        )


def _free_bytes(directory: Path | None) -> int:
    return shutil.disk_usage(directory or Path("/")).free

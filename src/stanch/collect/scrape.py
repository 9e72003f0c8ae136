"""A round of scrapes: each target asked for its heap, its goroutines and its metrics.

Python targets (the agent) and Go targets (net/http/pprof) are asked alike; what one does not
serve stays None. Whatever goes wrong with a target is one sentence in its Scrape, and the others
go on. At most `concurrency` targets are asked at the same time.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stanch.collect.errors import FetchError, NotServedError
from stanch.collect.exposition import Exposition, parse_exposition
from stanch.collect.fetch import Connection
from stanch.collect.gofacts import GoMemory, parse_go_memory
from stanch.collect.procfs import (
    LocalProcess,
    listener_of_port,
    listener_of_socket,
    local_process,
)
from stanch.collect.reading import COUNT_TYPE, HEAP_TYPES, ProfileReading, Reader
from stanch.collect.targets import Target
from stanch.profile import ProfileError

MAX_PROCESSES = 16
"""So many processes of one target are asked for their heaps, those with the largest RSS."""

_MAX_METRICS_BYTES = 8 * 1024 * 1024
_METRICS_RETRY = 20
"""A target that served no metrics is asked again each so many scrapes."""

_GC_AFTER_S = 10.0
_GC_BYTES_PER_S = 10e6
"""A Go heap profile is as old as the last garbage collection. When none came for _GC_AFTER_S, and
for a second per _GC_BYTES_PER_S of live heap, one is asked for: at about 1 s of CPU per GB that
is less than one percent of one core."""


@dataclass(frozen=True, slots=True)
class ProcessHeap:
    """The heap profile of one process; `pid` is None when the target is a single process.

    raw: the profile as it was sent. reading: what it says.
    """

    pid: int | None
    reading: ProfileReading
    fresh: bool
    raw: bytes


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one target gave at one instant.

    time_s: the scraper's monotonic clock at the end of the scrape; unix_s: its wall clock.
    error: one sentence without the target's name, None when all that it serves was had.
    counts_raw: the profile of `counts` as it was sent.
    """

    target: Target
    time_s: float
    unix_s: float
    heaps: tuple[ProcessHeap, ...] = ()
    counts: ProfileReading | None = None
    metrics: Exposition | None = None
    go_memory: GoMemory | None = None
    local: LocalProcess | None = None
    error: str | None = None
    counts_raw: bytes = b""

    @property
    def answered(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.heaps) or self.metrics is not None or self.counts is not None


@dataclass(slots=True)
class _Known:
    """What is remembered of a target between scrapes."""

    connection: Connection
    metrics_missing_for: int = 0
    fingerprint: int | None = None
    fresh_s: float = 0.0
    live_bytes: float = 0.0
    is_go: bool = False
    pid: int | None = None
    errors: list[str] = field(default_factory=list)


class Scraper:
    """Asks targets, keeping one connection for each. All calls belong to one event loop."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        timeout_s: float = 10.0,
        concurrency: int = 8,
        spread_s: float = 0.0,
    ) -> None:
        """spread_s: the targets of a round begin one after the other over so many seconds."""
        self._monotonic = monotonic
        self._wall = wall
        self._timeout_s = timeout_s
        self._spread_s = spread_s
        self._slots = asyncio.Semaphore(concurrency)
        self._known: dict[Target, _Known] = {}
        self._reader = Reader()

    async def scrape(self, targets: Sequence[Target]) -> list[Scrape]:
        """One scrape of each target, in their order. Never raises for what a target does."""
        for gone in set(self._known) - set(targets):
            await self._known.pop(gone).connection.close()
        gap_s = self._spread_s / max(1, len(targets))
        turns = (self._in_turn(target, turn * gap_s) for turn, target in enumerate(targets))
        return await asyncio.gather(*turns)

    async def scrape_target(self, target: Target) -> Scrape:
        """One scrape of one target, whose connection is kept until it is forgotten."""
        return await self._in_turn(target, 0.0)

    async def forget(self, target: Target) -> None:
        """Close the connection to a former target."""
        known = self._known.pop(target, None)
        if known is not None:
            await known.connection.close()

    async def ask(self, target: Target, path: str) -> bytes:
        """Fetch another path of a target that has been scraped before. Raises FetchError."""
        known = self._known.get(target)
        if known is None:
            raise FetchError(f"{target.instance} has not been scraped yet")
        return await known.connection.get(path, _MAX_METRICS_BYTES)

    async def close(self) -> None:
        """Close all connections."""
        for known in self._known.values():
            await known.connection.close()
        self._known.clear()

    async def _in_turn(self, target: Target, wait_s: float) -> Scrape:
        await asyncio.sleep(wait_s)
        async with self._slots:
            try:
                known = self._known.get(target)
                if known is None:
                    known = _Known(Connection(target, self._timeout_s), fresh_s=self._monotonic())
                    self._known[target] = known
                return await self._scrape_one(target, known)
            except FetchError as error:
                return Scrape(target, self._monotonic(), self._wall(), error=str(error))

    async def _scrape_one(self, target: Target, known: _Known) -> Scrape:
        known.errors = []
        metrics = await self._metrics(known)
        if known.errors:
            # Unreachable or refused: the profiles would only say the same, one time-out later.
            return Scrape(target, self._monotonic(), self._wall(), error=known.errors[0])
        heaps = await self._heaps(known, metrics)
        counts = await self._counts(known)
        go_memory = local = None
        if heaps and (metrics is None or metrics.total("process_resident_memory_bytes") is None):
            local = self._local(target, known, heaps[0].reading)
            if local is None and known.is_go:
                go_memory = await self._go_memory(known)
        if not heaps and counts is None and metrics is None and not known.errors:
            known.errors.append(
                "serves neither /debug/pprof/heap nor /metrics; expected a Stanch agent or"
                " Go's net/http/pprof"
            )
        return Scrape(
            target=target,
            time_s=self._monotonic(),
            unix_s=self._wall(),
            heaps=heaps,
            counts=counts[0] if counts is not None else None,
            metrics=metrics,
            go_memory=go_memory,
            local=local,
            error=known.errors[0] if known.errors else None,
            counts_raw=counts[1] if counts is not None else b"",
        )

    async def _metrics(self, known: _Known) -> Exposition | None:
        if known.metrics_missing_for:
            known.metrics_missing_for -= 1
            return None
        try:
            return parse_exposition(await known.connection.get("/metrics", _MAX_METRICS_BYTES))
        except NotServedError:
            known.metrics_missing_for = _METRICS_RETRY
        except FetchError as error:
            known.errors.append(str(error))
        return None

    async def _heaps(self, known: _Known, metrics: Exposition | None) -> tuple[ProcessHeap, ...]:
        pids = _pids_by_size(metrics) if metrics is not None else []
        heaps: list[ProcessHeap] = []
        for pid in pids if len(pids) > 1 else [None]:
            path = "/debug/pprof/heap" if pid is None else f"/debug/pprof/heap?pid={pid}"
            if pid is None and self._wants_collection(known):
                path += "?gc=1"
            answer = await self._profile(known, path, HEAP_TYPES)
            if answer is not None:
                reading, raw = answer
                heaps.append(ProcessHeap(pid, reading, self._is_fresh(known, reading), raw))
        return tuple(heaps)

    async def _counts(self, known: _Known) -> tuple[ProfileReading, bytes] | None:
        return await self._profile(known, "/debug/pprof/goroutine", (COUNT_TYPE,))

    async def _profile(
        self, known: _Known, path: str, expected: tuple[str, ...]
    ) -> tuple[ProfileReading, bytes] | None:
        try:
            raw = await known.connection.get(path)
            reading = self._reader.read(raw)
        except NotServedError:
            return None
        except FetchError as error:
            known.errors.append(str(error))
            return None
        except ProfileError as error:
            known.errors.append(f"{path}: {error}")
            return None
        if not set(expected) <= set(reading.types):
            known.errors.append(
                f"{path} gave a profile of {', '.join(reading.types)};"
                f" expected {', '.join(expected)}"
            )
            return None
        return reading, raw

    def _wants_collection(self, known: _Known) -> bool:
        waited_s = self._monotonic() - known.fresh_s
        return known.is_go and waited_s >= max(_GC_AFTER_S, known.live_bytes / _GC_BYTES_PER_S)

    def _is_fresh(self, known: _Known, reading: ProfileReading) -> bool:
        """Whether a heap profile differs from the last one; a Go heap changes at each GC only."""
        known.is_go = reading.executable.is_go
        if not known.is_go:
            return True
        if reading.fingerprint == known.fingerprint:
            return False
        known.fingerprint = reading.fingerprint
        known.fresh_s = self._monotonic()
        known.live_bytes = reading.live_bytes
        return True

    async def _go_memory(self, known: _Known) -> GoMemory | None:
        try:
            return parse_go_memory(await known.connection.get("/debug/pprof/heap?debug=1"))
        except FetchError as error:
            known.errors.append(str(error))
            return None

    def _local(self, target: Target, known: _Known, reading: ProfileReading) -> LocalProcess | None:
        """The target's process, when it runs on this machine and is what the profile says."""
        if not target.is_local:
            return None
        process = local_process(known.pid) if known.pid is not None else None
        if process is None:
            known.pid = _listener(target)
            process = local_process(known.pid) if known.pid is not None else None
        # Behind a port of this machine may be a tunnel (kubectl, docker-proxy, ssh).
        if process is None or not reading.executable.is_file(process.executable):
            known.pid = None
            return None
        return process


def _listener(target: Target) -> int | None:
    if target.unix_path is not None:
        return listener_of_socket(target.unix_path)
    port = target.port
    return listener_of_port(port) if port is not None else None


def _pids_by_size(metrics: Exposition) -> list[int | None]:
    """The pids that the metrics speak of, the oldest first, at most MAX_PROCESSES of them."""
    sizes: dict[int, float] = {}
    for metric in metrics.metrics.get("process_resident_memory_bytes", ()):
        pid = metric.labels.get("pid", "")
        if pid.isdigit():
            sizes[int(pid)] = metric.value
    largest = sorted(sizes, key=lambda pid: sizes[pid], reverse=True)[:MAX_PROCESSES]
    starts = {
        int(metric.labels["pid"]): metric.value
        for metric in metrics.metrics.get("process_start_time_seconds", ())
        if metric.labels.get("pid", "").isdigit()
    }
    return [*sorted(largest, key=lambda pid: (starts.get(pid, 0.0), pid))]

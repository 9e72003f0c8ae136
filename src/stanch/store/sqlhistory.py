"""The history of a store, asked of its tables; the contract is `history.History`."""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from stanch.profile import Profile
from stanch.store.engine import Engine, Row
from stanch.store.history import (
    DeathRow,
    End,
    FindingRow,
    FindingStatus,
    LifeRow,
    MemorySeries,
    ProfileRow,
    Selection,
    ServiceSummary,
    Storage,
    TargetRow,
    TimeRange,
)
from stanch.store.schema import DATABASE
from stanch.store.series import Births, Floats
from stanch.store.sqldeaths import (
    has_death_profile,
    read_death,
    read_death_profile,
    read_deaths,
)
from stanch.store.sqlprofiles import (
    ProfileReader,
    life_name,
    milliseconds,
    read_births,
    read_growth,
    read_labels,
    read_profiles,
    read_raw,
)

SILENT_S = 300.0
"""What was not heard of for so long has stopped."""
_DAY_S = 24 * 3600.0
_LIFE = (
    "life, service, instance, release, language, pid, toUnixTimestamp64Milli(start),"
    " toUnixTimestamp64Milli(seen), end, limit_bytes, memory_bytes"
)
_MS = "fromUnixTimestamp64Milli"


class SqlHistory:
    """Reads; see the protocol for what each method gives."""

    def __init__(
        self,
        engine: Engine,
        *,
        wall: Callable[[], float],
        waiting: Callable[[], tuple[int, int]] = lambda: (0, 0),
        notices: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        """waiting: how many profiles wait to be inserted, and how many were passed over."""
        self._engine = engine
        self._reader = ProfileReader(engine)
        self._wall = wall
        self._waiting = waiting
        self._notices = notices

    def service_summaries(self, now_unix_s: float) -> tuple[ServiceSummary, ...]:
        """All services heard of in the last 24 hours, those that fire first, then by name."""
        now = {
            "day": round((now_unix_s - _DAY_S) * 1000),
            "recent": round((now_unix_s - SILENT_S) * 1000),
            "hour": round((now_unix_s - 3600) * 1000),
            "now": round(now_unix_s * 1000),
        }
        lives = self._engine.query(
            "SELECT service, argMax(language, seen), uniqExactIf(instance, end = 'running' AND seen"
            f" >= {_MS}({{recent:Int64}})), toUnixTimestamp64Milli(max(seen)) FROM lives FINAL"
            f" WHERE seen >= {_MS}({{day:Int64}}) GROUP BY service",
            now,
        )
        charts = self._charts(now)
        firing = self._firing()
        worst = dict(self._worst(now))
        summaries = []
        deaths = self._killed(now)
        for service, language, instances, seen_ms in lives:
            chart = charts.get(service, [])
            newest = chart[-1] if chart else (0, np.nan, np.nan, np.nan)
            found = firing.get(service, [])
            soonest = [
                tuple(document["seconds_to_death"])
                for _, document in found
                if document.get("seconds_to_death")
            ]
            summaries.append(
                ServiceSummary(
                    service=service,
                    language=language,
                    instances=instances,
                    memory_bytes=known(newest[2]),
                    limit_bytes=known(newest[3]),
                    time_unix_s=np.array([row[0] / 1000 for row in chart]),
                    memory_share=np.array([row[1] for row in chart], dtype=np.float64),
                    deaths=deaths.get(service, 0),
                    firing=len(found),
                    confirmed=sum(stage == "confirmed" for stage, _ in found),
                    worst=worst.get(service, ""),
                    seconds_to_death=min(soonest, key=lambda times: times[1], default=None),
                    last_unix_s=seen_ms / 1000,
                )
            )
        return tuple(
            sorted(
                summaries,
                key=lambda summary: (-summary.confirmed, -summary.firing, summary.service),
            )
        )

    def service_names(self, most: int = 1000) -> tuple[str, ...]:
        """Names of all services with any sample, sorted."""
        rows = self._engine.query(
            "SELECT DISTINCT service FROM lives ORDER BY service LIMIT {most:UInt32}",
            {"most": most},
        )
        return tuple(row[0] for row in rows)

    def memory(
        self, service: str, within: TimeRange, points: int = 300, most: int = 64
    ) -> tuple[MemorySeries, ...]:
        """Memory of the lives of a service that were alive in a range, by instance and start."""
        rows = self._engine.query(
            "SELECT life, groupArray(row), max(fullness) FROM (SELECT life, (max(last),"
            " max(memory_bytes), argMax((rss_bytes, heap_bytes, limit_bytes, requests, in_flight,"
            " latency_s, breakdown_names, breakdown_bytes), last)) AS row,"
            " max(ifNotFinite(memory_bytes / limit_bytes, 0)) AS fullness FROM"
            " (SELECT *, toUnixTimestamp64Milli(time) AS last FROM memory"
            f" WHERE service = {{service:String}} AND time >= {_MS}({{since:Int64}})"
            f" AND time < {_MS}({{until:Int64}}))"
            " GROUP BY life, intDiv(last, {step:Int64}) ORDER BY life, intDiv(max(last),"
            " {step:Int64})) GROUP BY life ORDER BY max(fullness) DESC LIMIT {most:UInt32}",
            {
                "service": service,
                "most": most,
                "step": max(1, round((within.until_unix_s - within.since_unix_s) * 1000 / points)),
                **milliseconds(within),
            },
        )
        lives = self._lives_by_number([row[0] for row in rows])
        series = [
            _memory_series(lives[life], sorted(found)) for life, found, _ in rows if life in lives
        ]
        return tuple(sorted(series, key=lambda one: (one.life.instance, one.life.start_unix_s)))

    def lives(self, service: str, within: TimeRange, most: int = 500) -> tuple[LifeRow, ...]:
        """The lives of a service that were alive in a range."""
        return self._lives(
            f"service = {{service:String}} AND start < {_MS}({{until:Int64}})"
            f" AND seen >= {_MS}({{since:Int64}})",
            {"service": service, "most": most, **milliseconds(within)},
        )

    def deaths(
        self, within: TimeRange, service: str = "", instance: str = "", most: int = 200
    ) -> tuple[DeathRow, ...]:
        """The ends of processes in a range, of one service or instance or of all."""
        return read_deaths(self._engine, within, service, instance, most)

    def killed_lives(self, most: int = 10_000) -> tuple[LifeRow, ...]:
        """The lives that stood at their limit when another one followed, the newest first."""
        return self._lives("end = 'killed'", {"most": most})

    def death(self, death: str) -> DeathRow | None:
        """One death by its name in links."""
        return read_death(self._engine, number_of(death))

    def death_profile(self, death: str) -> bytes | None:
        """What it held at the end, pprof; None when that is not known, or no longer kept."""
        return read_death_profile(self._engine, number_of(death))

    def has_death_profile(self, row: DeathRow) -> bool:
        """Whether it is known what it held, and still kept."""
        return has_death_profile(self._engine, row.service, number_of(row.death))

    def findings(
        self, service: str = "", status: FindingStatus | None = None, most: int = 200
    ) -> tuple[FindingRow, ...]:
        """Findings of one service or of all; firing ones first."""
        rows = self._engine.query(
            f"SELECT {_FINDING} FROM findings FINAL"
            " WHERE ({service:String} = '' OR service = {service:String})"
            " AND ({status:String} = '' OR status = {status:String})"
            " ORDER BY status = 'firing' DESC, last DESC LIMIT {most:UInt32}",
            {"service": service, "status": status or "", "most": most},
        )
        return tuple(map(_finding, rows))

    def finding(self, finding: str) -> FindingRow | None:
        """One finding by its name in links."""
        rows = self._engine.query(
            f"SELECT {_FINDING} FROM findings FINAL WHERE finding = {{finding:UInt64}}",
            {"finding": number_of(finding)},
        )
        return _finding(rows[0]) if rows else None

    def births(self, life: str, function: str = "", file: str = "") -> Births | None:
        """Bytes alive by time of birth of a life, one row for all stacks through a function."""
        return read_births(self._engine, number_of(life), function, file)

    def growth(
        self, service: str, function: str, file: str, within: TimeRange, points: int = 300
    ) -> tuple[tuple[LifeRow, Floats, Floats], ...]:
        """Of each life alive in a range: unix_s and the live bytes of stacks through a function."""
        found = read_growth(self._engine, service, function, file, within, points)
        lives = self._lives_by_number(found)
        rows = [(lives[life], *series) for life, series in found.items() if life in lives]
        return tuple(sorted(rows, key=lambda row: (row[0].instance, row[0].start_unix_s)))

    def profile(self, selection: Selection) -> Profile | None:
        """The samples of a selection as one profile, None when there is none."""
        return self._reader.read(selection)

    def labels(self, service: str, within: TimeRange, most: int = 200) -> dict[str, list[str]]:
        """The label keys of a service's samples with their values, largest live bytes first."""
        return read_labels(self._engine, service, within, most)

    def releases(self, service: str, within: TimeRange) -> tuple[str, ...]:
        """The releases of a service seen in a range, oldest first; "" is left out."""
        rows = self._engine.query(
            "SELECT release FROM lives FINAL WHERE service = {service:String} AND release != ''"
            f" AND start < {_MS}({{until:Int64}}) AND seen >= {_MS}({{since:Int64}})"
            " GROUP BY release ORDER BY min(start)",
            {"service": service, **milliseconds(within)},
        )
        return tuple(row[0] for row in rows)

    def profiles(
        self, service: str, within: TimeRange, instance: str = "", most: int = 500
    ) -> tuple[ProfileRow, ...]:
        """The profiles taken of a service."""
        return read_profiles(self._engine, service, within, instance, most)

    def first_and_last(self, life: LifeRow, within: TimeRange) -> tuple[Profile, Profile] | None:
        """What a life held in its first and in its last heap of a range, without labels."""
        number = number_of(life.life)
        return self._reader.first_and_last(life.service, life.instance, number, within)

    def raw_profile(self, profile: str) -> bytes | None:
        """A profile as it came: gzip, profile.proto; None when no longer kept."""
        return read_raw(self._engine, profile)

    def targets(self, most: int = 10_000) -> tuple[TargetRow, ...]:
        """Every target heard of in the last 24 hours, those with errors first."""
        rows = self._engine.query(
            "SELECT service, instance, address, origin, verdict, error, duration_s,"
            " toUnixTimestamp64Milli(last), toUnixTimestamp64Milli(good), server"
            " FROM targets FINAL"
            f" WHERE last >= {_MS}({{since:Int64}})"
            " ORDER BY error = '', service, instance LIMIT {most:UInt32}",
            {"since": round((self._wall() - _DAY_S) * 1000), "most": most},
        )
        return tuple(TargetRow(*row[:-4], *_health(*row[-4:-1]), *row[-1:]) for row in rows)

    def storage(self) -> Storage:
        """How the store itself is."""
        rows, size = self._engine.query(
            "SELECT sum(rows), sum(bytes_on_disk) FROM system.parts"
            f" WHERE database = '{DATABASE}' AND active"
        )[0]
        ((oldest_ms,),) = self._engine.query("SELECT toUnixTimestamp64Milli(min(time)) FROM memory")
        directory = self._engine.directory
        waiting, skipped = self._waiting()
        ((version,),) = self._engine.query("SELECT version()")
        return Storage(
            engine=f"{self._engine.name} {version}",
            memory_bytes=read_memory_bytes(self._engine),
            rows=rows or 0,
            bytes_on_disk=size or 0,
            free_bytes=shutil.disk_usage(directory).free if directory else None,
            oldest_unix_s=oldest_ms / 1000 if oldest_ms else None,
            waiting_profiles=waiting,
            skipped_profiles=skipped,
            notices=tuple(self._notices()),
        )

    def _lives(self, where: str, parameters: Mapping[str, Any]) -> tuple[LifeRow, ...]:
        rows = self._engine.query(
            f"SELECT {_LIFE} FROM lives FINAL"
            f" WHERE {where} ORDER BY start DESC, instance LIMIT {{most:UInt32}}",
            parameters,
        )
        return tuple(self._life(row) for row in rows)

    def _lives_by_number(self, numbers: Iterable[int]) -> dict[int, LifeRow]:
        wanted = list(numbers)
        if not wanted:
            return {}
        found = self._lives("life IN {lives:Array(UInt64)}", {"lives": wanted, "most": len(wanted)})
        return {number_of(row.life): row for row in found}

    def _life(self, row: Row) -> LifeRow:
        end = row[8]
        if end == "running" and row[7] / 1000 < self._wall() - SILENT_S:
            end = "stopped"
        return LifeRow(
            life=life_name(row[0]),
            service=row[1],
            instance=row[2],
            release=row[3],
            language=row[4],
            pid=row[5] if row[5] >= 0 else None,
            start_unix_s=row[6] / 1000,
            end_unix_s=row[7] / 1000,
            end=cast(End, end),
            limit_bytes=known(row[9]),
            last_memory_bytes=known(row[10]),
        )

    def _charts(self, now: Mapping[str, int]) -> dict[str, list[Row]]:
        """Per service: ms, the fullest instance's share, its memory and its limit."""
        rows = self._engine.query(
            "SELECT service, groupArray((at, share, memory, most)) FROM"
            " (SELECT service, toUnixTimestamp64Milli(max(time)) AS at,"
            " argMax((share_known ? share_of : nan, memory_bytes, limit_bytes), (share_known,"
            " share_of, memory_bytes)) AS fullest, fullest.1 AS share, fullest.2 AS memory,"
            " fullest.3 AS most FROM (SELECT service, time, memory_bytes, limit_bytes,"
            " limit_bytes > 0 AND memory_bytes > 0 AS share_known,"
            " share_known ? memory_bytes / limit_bytes : 0 AS share_of FROM memory"
            f" WHERE time >= {_MS}({{hour:Int64}}) AND time <= {_MS}({{now:Int64}}))"
            " GROUP BY service, intDiv(toUnixTimestamp64Milli(time), 60000) ORDER BY service, at)"
            " GROUP BY service",
            now,
        )
        return {service: sorted(points) for service, points in rows}

    def _firing(self) -> dict[str, list[tuple[str, dict[str, Any]]]]:
        rows = self._engine.query(
            "SELECT service, stage, document FROM findings FINAL WHERE status = 'firing'"
            " LIMIT 10000"
        )
        found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for service, stage, document in rows:
            found.setdefault(service, []).append((stage, json.loads(document)))
        return found

    def _killed(self, now: Mapping[str, int]) -> dict[str, int]:
        """Per service, how many processes were killed by the kernel or crashed within a day."""
        rows = self._engine.query(
            "SELECT service, count() FROM deaths FINAL WHERE cause IN ('oom', 'crash')"
            f" AND time >= {_MS}({{day:Int64}}) GROUP BY service",
            now,
        )
        return dict(rows)

    def _worst(self, now: Mapping[str, int]) -> list[tuple[str, str]]:
        rows = self._engine.query(
            "SELECT service, groupUniqArray(verdict) FROM targets FINAL"
            f" WHERE last >= {_MS}({{recent:Int64}}) GROUP BY service",
            now,
        )
        return [(service, max(verdicts, key=_gravity)) for service, verdicts in rows]


def read_memory_bytes(engine: Engine) -> int | None:
    """What the engine holds of this process's memory; None when it is in another process.

    Raises StoreError.
    """
    if not engine.is_embedded:
        return None
    rows = engine.query("SELECT value FROM system.metrics WHERE metric = 'MemoryTracking'")
    return int(rows[0][0]) if rows else None


def number_of(name: str) -> int:
    """The number behind a name in links; 0, which nothing has, when it is none."""
    try:
        return int(name, 16) % 2**64
    except ValueError:
        return 0


def known(number: float | None) -> float | None:
    """None for NaN."""
    return None if number is None or number != number else float(number)


def _gravity(verdict: str) -> tuple[int, str]:
    kinds = ("", "unknown", "starting", "steady", "growing", "load", "warm-up", "filling cache")
    if verdict in kinds:
        return kinds.index(verdict), verdict
    for number, start in enumerate(("down", "suspect", "probable")):
        if verdict.startswith(start):
            return len(kinds) + number, verdict
    return len(kinds) + 3, verdict


_FINDING = (
    "finding, service, kind, stage, status, file, line, function, toUnixTimestamp64Milli(first),"
    " toUnixTimestamp64Milli(last), release, document, retention"
)


def _health(duration_s: float, last_ms: int, good_ms: int) -> Row:
    return known(duration_s), last_ms / 1000, good_ms / 1000 if good_ms else None


def _finding(row: Row) -> FindingRow:
    return FindingRow(
        finding=life_name(row[0]),
        service=row[1],
        kind=row[2],
        stage=row[3],
        status=cast(FindingStatus, row[4]),
        file=row[5],
        line=row[6],
        function=row[7],
        first_unix_s=row[8] / 1000,
        last_unix_s=row[9] / 1000,
        release=row[10],
        document=json.loads(row[11]),
        retention=json.loads(row[12]) if row[12] else None,
    )


def _memory_series(life: LifeRow, rows: Sequence[Row]) -> MemorySeries:
    unix_s = np.array([row[0] / 1000 for row in rows])
    memory = np.array([row[1] for row in rows], dtype=np.float64)
    numbers = np.array([row[2][:6] for row in rows], dtype=np.float64).T
    rss, heap, limit, requests, in_flight, latency = numbers
    rate = np.full(unix_s.size, np.nan)
    if unix_s.size > 1:
        rate[1:] = np.maximum(np.diff(requests), 0.0) / np.maximum(np.diff(unix_s), 1e-3)
    names = sorted({name for row in rows for name in row[2][6]})
    parts = [dict(zip(row[2][6], row[2][7], strict=True)) for row in rows]
    return MemorySeries(
        life=life,
        unix_s=unix_s,
        memory_bytes=memory,
        rss_bytes=rss,
        heap_bytes=heap,
        limit_bytes=limit,
        requests=requests,
        requests_per_s=rate,
        in_flight=in_flight,
        latency_s=latency,
        breakdown={
            name: np.array([part.get(name, np.nan) for part in parts], dtype=np.float64)
            for name in names
        },
    )

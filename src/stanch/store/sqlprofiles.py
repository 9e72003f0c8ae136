"""Heaps of the past as pprof profiles, and how what one function holds grew."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from stanch.profile import Function, Line, Location, Profile, Sample, ValueType
from stanch.store.engine import Engine
from stanch.store.history import HEAP, ProfileRow, Selection, TimeRange
from stanch.store.lookprofile import HEAP_TYPES
from stanch.store.rows import COUNTED_TOGETHER, label_pairs
from stanch.store.schema import BETWEEN, PROFILE_NAME
from stanch.store.series import Births, Floats
from stanch.store.sqlseries import SeriesBounds, read_life

_MOST_SAMPLES = 500_000
# Stacks through a function; the file is compared from its end, as findings shorten it.
_THROUGH = (
    "stack IN (SELECT stack FROM stacks WHERE arrayExists((name, path) -> name = {function:String}"
    " AND endsWith(path, {file:String}), functions, files))"
)


def milliseconds(within: TimeRange) -> dict[str, int]:
    """The parameters of a range."""
    return {
        "since": round(within.since_unix_s * 1000),
        "until": round(within.until_unix_s * 1000),
    }


def read_profile(engine: Engine, selection: Selection) -> Profile | None:
    """See `History.profile`."""
    kind = selection.kind
    taken_as = COUNTED_TOGETHER if kind in ("thread", "task") else kind
    parameters: dict[str, Any] = {
        "service": selection.service,
        "kind": kind,
        "taken_as": taken_as,
        "since": round((selection.at_unix_s - selection.age_s) * 1000),
        "until": round(selection.at_unix_s * 1000) + 1,
        "instances": list(selection.instances),
        "release": selection.release,
        "labels": [f"{key}={value}" for key, value in selection.labels.items()],
    }
    chosen = f"service = {{service:String}} AND {BETWEEN}"
    if selection.instances:
        chosen += " AND instance IN {instances:Array(String)}"
    if selection.release:
        chosen += (
            " AND life IN (SELECT life FROM lives FINAL"
            " WHERE service = {service:String} AND release = {release:String})"
        )
    labelled = ""
    if selection.labels:
        labelled = " AND hasAll(splitByChar('\\n', labels), {labels:Array(String)})"
    rows = engine.query(
        "SELECT stack, labels, sum(alloc_objects), sum(alloc_bytes), sum(live_objects),"
        f" sum(live_bytes), max(time) FROM samples WHERE {chosen} AND kind = {{kind:String}}"
        f" AND (instance, time) IN (SELECT instance, max(time) FROM profiles WHERE {chosen}"
        f" AND kind = {{taken_as:String}} GROUP BY instance){labelled}"
        f" GROUP BY stack, labels ORDER BY sum(live_bytes) DESC LIMIT {_MOST_SAMPLES}",
        parameters,
    )
    if not rows:
        return None
    frames = _read_frames(engine, {row[0] for row in rows})
    locations = _Locations()
    is_heap = kind == HEAP
    samples = []
    for stack, labels, *values, _ in rows:
        samples.append(
            Sample(
                locations.of(frames.get(stack, ((f"{stack:#x}", "", 0, 0),))),
                tuple(values) if is_heap else (values[2] or values[3],),
                label_pairs(labels),
            )
        )
    return Profile(
        sample_types=HEAP_TYPES if is_heap else (ValueType(kind, "count"),),
        samples=tuple(samples),
        default_sample_type="inuse_space" if is_heap else kind,
        period_type=ValueType("space", "bytes") if is_heap else ValueType(kind, "count"),
        time_nanos=round(max(row[-1].timestamp() for row in rows) * 1e9),
        comments=(f"service={selection.service}",),
    )


def read_labels(engine: Engine, service: str, within: TimeRange, most: int) -> dict[str, list[str]]:
    """See `History.labels`."""
    rows = engine.query(
        "SELECT pair, sum(bytes) AS total FROM (SELECT labels, sum(live_bytes) AS bytes FROM"
        f" samples WHERE service = {{service:String}} AND {BETWEEN} AND labels != ''"
        " GROUP BY labels) ARRAY JOIN splitByChar('\\n', labels) AS pair"
        " GROUP BY pair ORDER BY total DESC LIMIT {most:UInt32}",
        {"service": service, "most": most, **milliseconds(within)},
    )
    found: dict[str, list[str]] = {}
    for pair, _ in rows:
        key, _, value = pair.partition("=")
        found.setdefault(key, []).append(value)
    return found


def read_growth(
    engine: Engine, service: str, function: str, file: str, within: TimeRange, points: int
) -> dict[int, tuple[Floats, Floats]]:
    """For each life the times in Unix seconds and the live bytes of stacks through a function."""
    step = max(1, round((within.until_unix_s - within.since_unix_s) * 1000 / points))
    rows = engine.query(
        "SELECT life, groupArray(toUnixTimestamp64Milli(at)), groupArray(bytes) FROM"
        " (SELECT life, max(time) AS at, argMax(live, time) AS bytes FROM"
        f" (SELECT life, time, sumIf(live_bytes, {_THROUGH}) AS live FROM samples"
        f" WHERE service = {{service:String}} AND {BETWEEN} AND kind = 'heap'"
        " GROUP BY life, time)"
        " GROUP BY life, intDiv(toUnixTimestamp64Milli(time), {step:Int64}) ORDER BY life, at)"
        " GROUP BY life",
        {
            "service": service,
            "function": function,
            "file": file,
            "step": step,
            **milliseconds(within),
        },
    )
    return {
        life: (np.array(times, dtype=np.float64) / 1000, np.array(live, dtype=np.float64))
        for life, times, live in rows
    }


def read_births(engine: Engine, life: int, function: str, file: str) -> Births | None:
    """See `History.births`."""
    series = read_life(engine, life, SeriesBounds())
    if series is None or series.births is None:
        return None
    rows = [
        number
        for number, stack in enumerate(series.stacks)
        if not function
        or any(frame.function == function and frame.file.endswith(file) for frame in stack)
    ]
    births = series.births
    return Births(
        births.edges_s,
        births.live_bytes[rows].sum(axis=0, keepdims=True),
        births.settled_bytes[rows].sum(axis=0, keepdims=True),
    )


def read_profiles(
    engine: Engine, service: str, within: TimeRange, instance: str, most: int
) -> tuple[ProfileRow, ...]:
    """See `History.profiles`."""
    rows = engine.query(
        f"SELECT {PROFILE_NAME}, instance, lower(hex(life)), kind, toUnixTimestamp64Milli(time),"
        " stacks, live_bytes, profile IN (SELECT profile FROM raw) FROM profiles"
        f" WHERE service = {{service:String}} AND {BETWEEN}"
        " AND ({instance:String} = '' OR instance = {instance:String})"
        " ORDER BY time DESC LIMIT {most:UInt32}",
        {"service": service, "instance": instance, "most": most, **milliseconds(within)},
    )
    return tuple(
        ProfileRow(
            profile=name,
            service=service,
            instance=of_instance,
            life=life_name(int(life, 16)),
            kind=kind,
            unix_s=time_ms / 1000,
            stacks=stacks,
            live_bytes=float(live_bytes),
            has_raw=bool(has_raw),
        )
        for name, of_instance, life, kind, time_ms, stacks, live_bytes, has_raw in rows
    )


def read_raw(engine: Engine, profile: str) -> bytes | None:
    """See `History.raw_profile`."""
    try:
        number = int.from_bytes(bytes.fromhex(profile), "little")
    except ValueError:
        return None
    rows = engine.query(
        f"SELECT base64Encode(data) FROM raw WHERE profile = toUInt128('{number % 2**128}') LIMIT 1"
    )
    return _decoded(rows[0][0]) if rows else None


def life_name(life: int) -> str:
    """The name of a life in links."""
    return f"{life:016x}"


def _decoded(text: str) -> bytes:
    import base64

    return base64.b64decode(text)


Frames = tuple[tuple[str, str, int, int], ...]


def _read_frames(engine: Engine, names: Iterable[int]) -> dict[int, Frames]:
    found: dict[int, Frames] = {}
    wanted = sorted(names)
    for first in range(0, len(wanted), 5000):
        listed = ", ".join(f"toUInt128('{name}')" for name in wanted[first : first + 5000])
        rows = engine.query(
            "SELECT stack, any(functions), any(files), any(lines), any(starts) FROM stacks"
            f" WHERE stack IN ({listed}) GROUP BY stack"
        )
        for stack, *columns in rows:
            found[stack] = tuple(zip(*columns, strict=True))
    return found


class _Locations:
    """One location for each frame, one function for each name, file and first line."""

    def __init__(self) -> None:
        self._locations: dict[tuple[str, str, int, int], Location] = {}
        self._functions: dict[tuple[str, str, int], Function] = {}

    def of(self, frames: Frames) -> tuple[Location, ...]:
        return tuple(self._locations.get(frame) or self._make(frame) for frame in frames)

    def _make(self, frame: tuple[str, str, int, int]) -> Location:
        name, file, line, start = frame
        key = (name, file, start)
        function = self._functions.get(key)
        if function is None:
            function = self._functions[key] = Function(name, "", file, start)
        location = self._locations[frame] = Location(0, None, (Line(function, line),))
        return location

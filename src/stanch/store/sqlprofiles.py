"""Heaps of the past as pprof profiles, and how what one function holds grew."""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from stanch.profile import Function, Line, Location, Profile, Sample, ValueType
from stanch.store.engine import Engine, Row, StackFrames
from stanch.store.history import HEAP, ProfileRow, Selection, TimeRange
from stanch.store.lookprofile import HEAP_TYPES
from stanch.store.rows import COUNTED_TOGETHER, label_pairs
from stanch.store.schema import BETWEEN, PROFILE_NAME, ROLLED, SAMPLES, Table
from stanch.store.series import Births, Floats
from stanch.store.sqlheaps import read_frames
from stanch.store.sqlseries import SeriesBounds, read_life_births
from stanch.store.track import ROLLED_EVERY_S

_MOST_SAMPLES = 500_000
_MOST_REMEMBERED, _MOST_REMEMBERED_SAMPLES = 8, 20_000
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


class ProfileReader:
    """Reads heaps of the past, and remembers the last few: which profiles one is made of is asked
    each time, but what was taken at a moment does not change. From any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._read: OrderedDict[Hashable, Profile] = OrderedDict()

    def read(self, selection: Selection) -> Profile | None:
        """See `History.profile`."""
        parameters = _parameters(selection)
        newest = _newest_profiles(self._engine, selection, parameters, is_rolled=False)
        profile = self._made_of(newest, selection, parameters)
        if profile is not None:
            return profile
        newest = _newest_profiles(self._engine, selection, parameters, is_rolled=True)
        rows = _samples_of(self._engine, selection, parameters, ROLLED, newest)
        return _profile(self._engine, selection, rows) if rows else None

    def first_and_last(
        self, service: str, instance: str, life: int, within: TimeRange
    ) -> tuple[Profile, Profile] | None:
        """See `History.first_and_last`."""
        ((count, *ends),) = self._engine.query(
            "SELECT count(), (toUnixTimestamp64Milli(min(time)), argMin(rolled, time)),"
            " (toUnixTimestamp64Milli(max(time)), argMax(rolled, time)) FROM profiles"
            f" WHERE service = {{service:String}} AND {BETWEEN}"
            " AND instance = {instance:String} AND life = {life:UInt64} AND kind = 'heap'",
            {"service": service, "instance": instance, "life": life, **milliseconds(within)},
        )
        if not count:
            return None
        found = []
        for time_ms, is_rolled in ends:
            one = Selection(service, time_ms / 1000, (instance,), with_labels=False)
            newest = [(instance, time_ms, life, is_rolled)]
            profile = self._made_of(newest, one, _parameters(one)) or self.read(one)
            if profile is None:
                return None
            found.append(profile)
        return found[0], found[1]

    def _made_of(
        self, newest: Sequence[Row], selection: Selection, parameters: Mapping[str, Any]
    ) -> Profile | None:
        """What these profiles add up to; None where their samples are no longer kept."""
        key = (
            selection.service,
            selection.kind,
            tuple(parameters["labels"]),
            selection.with_labels,
            tuple(sorted(newest)),
        )
        with self._lock:
            if key in self._read:
                self._read.move_to_end(key)
                return self._read[key]
        # What is rolled up is read where it holds all that is wanted: a small part of samples.
        table = ROLLED if all(is_rolled for *_, is_rolled in newest) else SAMPLES
        rows = _samples_of(self._engine, selection, parameters, table, newest)
        if not rows:
            return None
        profile = _profile(self._engine, selection, rows)
        if len(rows) <= _MOST_REMEMBERED_SAMPLES:
            self._remember(key, profile)
        return profile

    def _remember(self, key: Hashable, profile: Profile) -> None:
        with self._lock:
            self._read[key] = profile
            while len(self._read) > _MOST_REMEMBERED:
                self._read.popitem(last=False)


def _profile(engine: Engine, selection: Selection, rows: Sequence[Row]) -> Profile:
    frames = read_frames(engine, {row[0] for row in rows})
    locations = _Locations()
    kind = selection.kind
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


def _parameters(selection: Selection) -> dict[str, Any]:
    return {
        "service": selection.service,
        "kind": selection.kind,
        "instances": list(selection.instances),
        "release": selection.release,
        "labels": [f"{key}={value}" for key, value in selection.labels.items()],
    }


def _newest_profiles(
    engine: Engine, selection: Selection, parameters: Mapping[str, Any], *, is_rolled: bool
) -> list[Row]:
    """Of each instance that fits its name, the time of its newest profile in ms, its life, and
    whether it is rolled up. is_rolled: of those that are, which are further apart."""
    age_s = max(selection.age_s, 2 * ROLLED_EVERY_S) if is_rolled else selection.age_s
    is_counted = selection.kind in ("thread", "task")
    chosen = f"service = {{service:String}} AND {BETWEEN} AND kind = {{taken_as:String}}"
    if is_rolled:
        chosen += " AND rolled"
    if selection.instances:
        chosen += " AND instance IN {instances:Array(String)}"
    if selection.release:
        chosen += (
            " AND life IN (SELECT life FROM lives FINAL"
            " WHERE service = {service:String} AND release = {release:String})"
        )
    return engine.query(
        "SELECT instance, toUnixTimestamp64Milli(max(time)), argMax(life, time),"
        " argMax(rolled, time) FROM profiles"
        f" WHERE {chosen} GROUP BY instance",
        {
            **parameters,
            "taken_as": COUNTED_TOGETHER if is_counted else selection.kind,
            "since": round((selection.at_unix_s - age_s) * 1000),
            "until": round(selection.at_unix_s * 1000) + 1,
        },
    )


def _samples_of(
    engine: Engine,
    selection: Selection,
    parameters: Mapping[str, Any],
    table: Table,
    newest: Sequence[Row],
) -> list[Row]:
    """The samples of these profiles: stack, labels, four values and time."""
    if not newest:
        return []
    times = [time_ms for _, time_ms, *_ in newest]
    wanted = (
        f"service = {{service:String}} AND life IN {{lives:Array(UInt64)}} AND {BETWEEN}"
        " AND (instance, toUnixTimestamp64Milli(time))"
        " IN (SELECT arrayJoin(arrayZip({instances:Array(String)}, {times:Array(Int64)})))"
    )
    if selection.labels:
        wanted += " AND hasAll(splitByChar('\\n', labels), {labels:Array(String)})"
    labels = "labels" if selection.with_labels else "''"
    return engine.query(
        f"SELECT stack, {labels} AS told, sum(alloc_objects), sum(alloc_bytes), sum(live_objects),"
        f" sum(live_bytes), max(time) FROM {table.name} WHERE {wanted} AND kind = {{kind:String}}"
        f" GROUP BY stack, told ORDER BY sum(live_bytes) DESC LIMIT {_MOST_SAMPLES}",
        {
            **parameters,
            # What is read is as narrow in time as what is known of it.
            "since": min(times),
            "until": max(times) + 1,
            "times": times,
            "instances": [instance for instance, *_ in newest],
            "lives": [life for _, _, life, _ in newest],
        },
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
    given = {"function": function, "file": file}
    return read_life_births(engine, life, _THROUGH if function else "1", given, SeriesBounds())


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


class _Locations:
    """One location for each frame, one function for each name, file and first line."""

    def __init__(self) -> None:
        self._locations: dict[tuple[str, str, int, int], Location] = {}
        self._functions: dict[tuple[str, str, int], Function] = {}

    def of(self, frames: StackFrames) -> tuple[Location, ...]:
        return tuple(self._locations.get(frame) or self._make(frame) for frame in frames)

    def _make(self, frame: tuple[str, str, int, int]) -> Location:
        name, file, line, start = frame
        key = (name, file, start)
        function = self._functions.get(key)
        if function is None:
            function = self._functions[key] = Function(name, "", file, start)
        location = self._locations[frame] = Location(0, None, (Line(function, line),))
        return location

"""One death: a value, and how what two sources know of it is put together."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from stanch.deaths.cause import Cause


@dataclass(frozen=True, slots=True)
class Forecast:
    """What had been said of an instance before it died, the first sure word. Unix seconds."""

    said_unix: float
    title: str
    soonest_unix: float
    likely_unix: float
    latest_unix: float


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a process, or of all processes of an instance at once.

    key: the same for the same death. pids: of those that ended, the one that held most first. how:
    a sentence. sure: the cause is known rather than likely. died_unix: when it was last seen, or
    when it was told to have died. uptime_s, memory_bytes, limit_bytes, requests, in_flight: as last
    known; None unknown. file, line, function, taken_by: what holds the most, named as in a finding;
    place_bytes, live_bytes: of the heap profile, which came from the black box ("table"), or from
    the last look before ("scrape"), profile_age_s before the death; "" when there is none.
    container: identity of the container that ended with it, which no other end has; "" unknown.
    """

    key: str
    service: str
    instance: str
    pids: tuple[int, ...]
    cause: Cause
    how: str
    sure: bool
    died_unix: float
    uptime_s: float | None = None
    memory_bytes: float | None = None
    limit_bytes: float | None = None
    requests: float | None = None
    in_flight: float | None = None
    forecast: Forecast | None = None
    file: str = ""
    line: int = 0
    function: str = ""
    taken_by: str = ""
    place_bytes: float = 0.0
    live_bytes: float = 0.0
    profile_from: str = ""
    profile_age_s: float | None = None
    container: str = ""

    @property
    def place(self) -> str:
        """The line that holds the most, such as "shop/sessions.py:41 remember"; "" unknown."""
        return place_text(self.file, self.line, self.function, self.taken_by)


def place_text(file: str, line: int, function: str, taken_by: str) -> str:
    """Return a place in words, its file by the last two parts of its path."""
    short = "/".join(file.split("/")[-2:])
    where = f"{short}:{line} {function}" if file and line else function
    return f"{where}, {taken_by}" if taken_by else where


_LATER_WORDS = ("uptime_s", "memory_bytes", "limit_bytes", "requests", "in_flight", "forecast")

_AUTOPSY = (
    *("file", "line", "function", "taken_by", "place_bytes", "live_bytes"),
    *("profile_from", "profile_age_s"),
)


def joined(known: Death, told: Death) -> Death:
    """Return what is known of a death with what was told of it later.

    A sure cause replaces a likely one, and its time too; what was unknown is filled in; the black
    box replaces the last look.
    """
    fresh: dict[str, Any] = {
        name: getattr(told, name)
        for name in _LATER_WORDS
        if getattr(known, name) is None and getattr(told, name) is not None
    }
    if (told.sure and not known.sure) or known.cause == "unknown":
        fresh |= {"cause": told.cause, "how": told.how, "sure": told.sure}
    if told.sure and not known.sure:
        # Who knows the cause knows the time; the last look may have been long before.
        later_s = told.died_unix - known.died_unix
        fresh["died_unix"] = told.died_unix
        if known.uptime_s is not None:
            fresh["uptime_s"] = max(0.0, known.uptime_s + later_s)
        if known.profile_age_s is not None:
            fresh["profile_age_s"] = max(0.0, known.profile_age_s + later_s)
    if told.profile_from and (not known.profile_from or told.profile_from == "table"):
        fresh |= {name: getattr(told, name) for name in _AUTOPSY}
    if not known.container:
        fresh["container"] = told.container
    return replace(known, pids=tuple(dict.fromkeys((*known.pids, *told.pids))), **fresh)


def death_to_json(death: Death) -> str:
    """Return the death as one line of JSON."""
    return json.dumps(asdict(death), allow_nan=False)


def death_from_json(text: str) -> Death:
    """Read what `death_to_json` wrote. ValueError, KeyError or TypeError on anything else."""
    return death_from_mapping(json.loads(text))


def death_from_mapping(values: Mapping[str, Any]) -> Death:
    """The same of JSON that was read already."""
    names = {field.name for field in fields(Death)}
    kept = {name: value for name, value in values.items() if name in names}
    told = kept.get("forecast")
    kept["forecast"] = Forecast(**told) if told is not None else None
    return Death(**{**kept, "pids": tuple(kept["pids"])})

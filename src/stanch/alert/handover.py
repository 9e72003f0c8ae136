"""What one server leaves to the next that takes its place: what it has told, marks and windows.

It is left while the server leads, not at its end, so that it is there after a kill.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from stanch.alert.alarm import Alarm, alarm_from_dict, alarm_to_json
from stanch.alert.silences import Marked, Window

_MOST_BYTES = 200_000
"""Annotations of an object in Kubernetes are at most 262,144 bytes together."""
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Handover:
    """Alarms that firing has been told of, and delivered; marks; maintenance windows."""

    alarms: tuple[Alarm, ...] = ()
    marks: tuple[Marked, ...] = ()
    windows: tuple[Window, ...] = ()


def handover_to_json(handover: Handover) -> str:
    """One line of JSON, of 200,000 bytes at most; the same one while nothing new is told.

    What each look tells anew is left out. If there is too much, the alarms that were told last are
    left out first: they would be told twice.
    """
    marks = [asdict(mark) for mark in handover.marks]
    windows = [asdict(window) for window in handover.windows]
    kept: dict[str, list[Any]] = {"windows": [], "marks": [], "alarms": []}
    room = _MOST_BYTES - len(json.dumps(kept))
    for name, rows in (("windows", windows), ("marks", marks), ("alarms", _thin(handover.alarms))):
        for row in rows:
            room -= len(json.dumps(row)) + 2
            if room < 0:
                return json.dumps(kept, allow_nan=False)
            kept[name].append(row)
    return json.dumps(kept, allow_nan=False)


def handover_from_json(text: str) -> Handover:
    """Read what `handover_to_json` wrote. Raises ValueError for anything else."""
    try:
        values = json.loads(text)
        return Handover(
            tuple(alarm_from_dict(each) for each in values["alarms"]),
            tuple(Marked(**each) for each in values["marks"]),
            tuple(Window(**each) for each in values["windows"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"expected a handover's alarms, marks and windows: {error!r}") from error


def told_to_json(alarm: Alarm) -> str:
    """What has been told of an alarm; the same line while nothing new is told, for an hour."""
    return alarm_to_json(_told(alarm))


def _thin(alarms: tuple[Alarm, ...]) -> Iterator[dict[str, Any]]:
    for alarm in sorted(alarms, key=lambda alarm: (alarm.told_unix or 0.0, alarm.fingerprint)):
        yield asdict(_told(alarm))


def _told(alarm: Alarm) -> Alarm:
    """What has been told, and when each was last there, to the hour: after a day unseen it ends."""
    return replace(
        alarm,
        seen_unix=alarm.seen_unix // _HOUR_S * _HOUR_S,
        unseen_unix=None,
        rate=alarm.told_rate,
        death_unix=None,
        first_to_die="",
        instances=(),
        quiet="",
        text="",
        picture="",
    )

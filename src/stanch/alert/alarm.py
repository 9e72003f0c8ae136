"""An alarm: what is known of one cause, from the first suspicion to its end. Plain values."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias

from stanch.detect import Stage

Status: TypeAlias = Literal["pending", "firing", "resolved"]


@dataclass(frozen=True, slots=True)
class Alarm:
    """One cause in one service. Times are Unix seconds, None for what has not happened.

    episode: counts how often the cause came back after it was resolved, from 1. status: "pending"
    until it is sure enough, "firing", "resolved". stage: the surest so far of this episode.
    stage_unix: when that was reached. seen_unix: when it was last there; unseen_unix: since when
    looks do not show it. told_stage, told_rate, told_unix: what was last told, "" and None when
    nothing was. told: how many messages there have been, which numbers them. quiet: why it is not
    told now. picture: a chart of the memory, PNG in base64, of when it was told first. The other
    fields are those of Condition.
    """

    fingerprint: str
    name: str
    service: str
    cause: str
    kind: str
    title: str
    text: str
    stage: Stage
    status: Status
    episode: int
    pending_unix: float
    stage_unix: float
    seen_unix: float
    fired_unix: float | None = None
    resolved_unix: float | None = None
    unseen_unix: float | None = None
    rate: float | None = None
    death_unix: float | None = None
    first_to_die: str = ""
    instances: tuple[str, ...] = ()
    told: int = 0
    told_stage: Stage | Literal[""] = ""
    told_rate: float | None = None
    told_unix: float | None = None
    quiet: str = ""
    link: str = ""
    picture: str = ""

    @property
    def severity(self) -> str:
        """ "critical" when it is beyond doubt, else "warning"."""
        return "critical" if self.stage == "confirmed" else "warning"


def alarm_to_json(alarm: Alarm) -> str:
    """Return the alarm as one line of JSON."""
    return json.dumps(asdict(alarm), allow_nan=False)


def alarm_from_json(text: str) -> Alarm:
    """Read what `alarm_to_json` wrote, also by a Stanch that knew fewer fields.

    Raises ValueError, KeyError or TypeError for anything else.
    """
    return alarm_from_dict(json.loads(text))


def alarm_from_dict(values: dict[str, Any]) -> Alarm:
    """Return the alarm whose fields these are; fields that are not known are left out."""
    known = {field.name for field in fields(Alarm)}
    kept = {name: value for name, value in values.items() if name in known}
    return Alarm(**{**kept, "instances": tuple(kept["instances"])})

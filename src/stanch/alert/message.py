"""What is told to receivers of an alarm: one message for each thing that happened to it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stanch.alert.alarm import Alarm, alarm_from_dict
from stanch.alert.lifecycle import News
from stanch.detect import time_text

_HEADINGS: Mapping[News, str] = {
    "firing": "FIRING",
    "worse": "WORSE",
    "resolved": "RESOLVED",
    "marked": "MARKED",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message. key: the same whenever it is sent again, another for every other message.

    before: the stage that was told before this one, "" when none was.
    """

    key: str
    news: News
    alarm: Alarm
    at_unix: float
    before: str = ""

    @property
    def subject(self) -> str:
        """One line."""
        return f"[{_HEADINGS[self.news]}] {self.alarm.title}"

    def paragraphs(self) -> Iterable[str]:
        """The text beneath the subject, in plain English."""
        alarm = self.alarm
        if self.news == "marked":
            yield f"No more of this: {alarm.quiet}."
            return
        if self.news == "resolved":
            since = "" if alarm.fired_unix is None else f" after {_time(self.at_unix, alarm)}"
            yield f"It is over{since}: the latest looks do not show it."
            return
        yield alarm.text
        if len(alarm.instances) > 1:
            yield f"Seen in {len(alarm.instances)} instances: {', '.join(alarm.instances[:12])}"
        if alarm.link:
            yield alarm.link


def _time(now_unix: float, alarm: Alarm) -> str:
    return time_text(max(0.0, now_unix - (alarm.fired_unix or now_unix)))


def message_key(alarm: Alarm) -> str:
    """Return what stands for the message that was told last of an alarm."""
    return f"{alarm.fingerprint}-{alarm.episode}-{alarm.told}"


def message_to_json(message: Message) -> str:
    """Return the message as one line of JSON."""
    return json.dumps(asdict(message), allow_nan=False)


def message_from_json(text: str) -> Message:
    """Read what `message_to_json` wrote. ValueError, KeyError or TypeError on anything else."""
    values: dict[str, Any] = json.loads(text)
    return Message(**{**values, "alarm": alarm_from_dict(values["alarm"])})

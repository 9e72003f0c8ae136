"""Alertmanager, by its API v2.

An alarm is one alert of the labels alertname, service, leak, kind, stage, severity and fingerprint.
When a leak becomes surer, its alert of the earlier stage ends and one of the new stage begins; with
`group_by: [alertname, service, leak]` Alertmanager tells both in one notification.

Alertmanager ends an alert by itself that it has not heard of for a while, so `refresh` repeats
those that fire, as Prometheus does. It compares times with its own clock, which may differ from
ours: the difference is read from its answers, and taken into account.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from stanch.alert.alarm import Alarm
from stanch.alert.message import Message
from stanch.alert.receivers.delivery import DeliveryError, post_json
from stanch.alert.receivers.secrets import SecretError

REFRESH_S = 60.0
FORGOTTEN_AFTER_S = 4 * REFRESH_S
"""An alert that is not repeated for so long ends by itself."""
CLOCK_ERROR_S = 3.0
"""An end that is not yet past by Alertmanager's clock would not count, so ends are put back by more
than the clocks can be misjudged."""
_BATCH = 64


class AlertmanagerReceiver:
    """Posts alerts to one Alertmanager. `wall` gives our Unix time."""

    def __init__(self, client: httpx.Client, url: str, wall: Callable[[], float]) -> None:
        self._client = client
        self._url = f"{url.rstrip('/')}/api/v2/alerts"
        self._status = f"{url.rstrip('/')}/api/v2/status"
        self._wall = wall

    def send(self, message: Message, *, uncertain: bool) -> None:
        """See Receiver. The same labels and times make the same alert, however often it comes."""
        alarm = message.alarm
        ahead_s = self._their_clock()
        over = message.news in ("resolved", "marked")
        alerts = [self._alert(alarm, alarm.stage, ahead_s, ends_now=over)]
        if message.before and message.before != alarm.stage:
            alerts.insert(0, self._alert(alarm, message.before, ahead_s, ends_now=True))
        post_json(self._client, self._url, alerts, {})

    def refresh(self, alarms: Sequence[Alarm]) -> None:
        """See Receiver."""
        for start in range(0, len(alarms), _BATCH):
            ahead_s = self._their_clock()
            batch = alarms[start : start + _BATCH]
            alerts = [self._alert(alarm, alarm.stage, ahead_s, ends_now=False) for alarm in batch]
            post_json(self._client, self._url, alerts, {})

    def close(self) -> None:
        """See Receiver."""
        self._client.close()

    def _alert(
        self, alarm: Alarm, stage: str, ahead_s: float, *, ends_now: bool
    ) -> dict[str, object]:
        now_unix = self._wall() + ahead_s
        ends_unix = now_unix - CLOCK_ERROR_S if ends_now else now_unix + FORGOTTEN_AFTER_S
        started_unix = min((alarm.fired_unix or self._wall()) + ahead_s, now_unix, ends_unix)
        severity = "critical" if stage == "confirmed" else "warning"
        labels = {
            "alertname": alarm.name,
            "service": alarm.service,
            "leak": alarm.cause,
            "kind": alarm.kind,
            "stage": stage,
            "severity": severity,
            "fingerprint": alarm.fingerprint,
        }
        annotations = {"summary": alarm.title, "description": alarm.text}
        if alarm.first_to_die:
            annotations["first_to_die"] = alarm.first_to_die
        if alarm.quiet:
            annotations["quiet"] = alarm.quiet
        alert: dict[str, object] = {
            "labels": {name: text for name, text in labels.items() if text},
            "annotations": annotations,
            "startsAt": _rfc3339(started_unix),
            "endsAt": _rfc3339(ends_unix),
        }
        if alarm.link:
            alert["generatorURL"] = alarm.link
        return alert

    def _their_clock(self) -> float:
        """Return Alertmanager's clock less ours, in seconds. Raises DeliveryError.

        Asked before each post, since ours may be set at any time. The header has whole seconds, so
        a small difference is none.
        """
        try:
            answer = self._client.get(self._status)
            theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
        except (httpx.HTTPError, SecretError) as error:
            raise DeliveryError(f"no connection: {error}") from error
        except (KeyError, ValueError):
            return 0.0
        ahead_s = theirs + 0.5 - self._wall()
        return ahead_s if abs(ahead_s) >= 0.5 * CLOCK_ERROR_S else 0.0


def _rfc3339(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")

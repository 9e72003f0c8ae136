"""Slack, Teams, PagerDuty, e-mail and a hundred others, by way of the package `apprise`.

Most of them know no key for messages. A message that may have arrived before says so in its first
line, so nobody takes it for news. PagerDuty is given the fingerprint as `dedup_key`: an update
changes its incident, and the end of the alarm resolves it. An e-mail carries the key as
`X-Stanch-Key`.
"""

import base64
import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import apprise
from apprise.attachment.memory import AttachMemory

from stanch.alert.alarm import Alarm
from stanch.alert.message import Message
from stanch.alert.receivers.delivery import DeliveryError

PAGERDUTY = "pagerduty://"
MAIL = ("mailto://", "mailtos://")
_REPEATED = "Perhaps a repetition: Stanch does not know whether this has arrived before."


class MessengerReceiver:
    """Sends to one apprise URL, which is a secret and never shown."""

    def __init__(self, url: str) -> None:
        """Raises ValueError when apprise does not know the URL."""
        self._url = url
        if not apprise.Apprise().add(url):
            scheme = url.partition(":")[0][:20]
            raise ValueError(f"apprise cannot use this {scheme}:// URL; see its documentation")

    def send(self, message: Message, *, uncertain: bool) -> None:
        """See Receiver."""
        service = apprise.Apprise()
        service.add(self._for(message))
        paragraphs = [*([_REPEATED] if uncertain else []), *message.paragraphs()]
        picture = message.alarm.picture
        is_shown = picture and message.news in ("firing", "worse")
        attachment = _attachment(base64.b64decode(picture)) if is_shown else None
        with _log() as log:
            sent = service.notify(
                body="\n\n".join(paragraphs),
                title=message.subject,
                notify_type=_type_of(message),
                body_format=apprise.NotifyFormat.TEXT,
                attach=attachment,
            )
            said = " ".join(log.getvalue().split())
        if not sent:
            raise DeliveryError(self._without_secrets(said) or "apprise could not deliver it")

    def refresh(self, alarms: Sequence[Alarm]) -> None:
        """See Receiver: people are told of changes only."""

    def close(self) -> None:
        """See Receiver: there is no connection that stays."""

    def _for(self, message: Message) -> str:
        """Return the URL with what this kind of receiver needs to know the message again."""
        joint = "&" if "?" in self._url else "?"
        if self._url.startswith(PAGERDUTY):
            over = message.news in ("resolved", "marked")
            key = f"stanch-{message.alarm.fingerprint}-{message.alarm.episode}"
            return f"{self._url}{joint}dedup={key}&action={'resolve' if over else 'trigger'}"
        if self._url.startswith(MAIL):
            return f"{self._url}{joint}+X-Stanch-Key={quote(message.key)}"
        return self._url

    def _without_secrets(self, said: str) -> str:
        """Leave out whatever of the URL apprise may have put into its words."""
        for part in filter(None, self._url.partition("://")[2].replace("?", "/").split("/")):
            said = said.replace(part, "...") if len(part) > 3 else said
        return said[:300]


def _attachment(picture: bytes) -> object:
    make: Any = AttachMemory  # has no type hints
    attachment: object = make(content=picture, name="memory.png", mimetype="image/png")
    return attachment


def _log() -> contextlib.AbstractContextManager[io.StringIO]:
    """What apprise logs of the messages sent within."""
    capture: Any = apprise.LogCapture  # has no type hints
    log: contextlib.AbstractContextManager[io.StringIO]
    log = capture(level=logging.WARNING, fmt="%(message)s")
    return log


def _type_of(message: Message) -> apprise.NotifyType:
    if message.news == "resolved":
        return apprise.NotifyType.SUCCESS
    if message.news == "marked":
        return apprise.NotifyType.INFO
    is_critical = message.alarm.severity == "critical"
    return apprise.NotifyType.FAILURE if is_critical else apprise.NotifyType.WARNING

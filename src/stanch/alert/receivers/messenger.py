"""Slack, Teams, PagerDuty, e-mail and a hundred others, by way of the package `apprise`.

Most of them know no key for messages. A message that may have arrived before says so in its first
line, so nobody takes it for news. PagerDuty is given the fingerprint as `dedup_key`: an update
belongs to its incident, and the end of the alarm resolves it. An e-mail carries the key as
`X-Stanch-Key`. Proxies and certificates are those of the environment, as `requests` reads them.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import apprise
from apprise.attachment.memory import AttachMemory

from stanch.alert.alarm import Alarm
from stanch.alert.message import Message
from stanch.alert.receivers.delivery import DeliveryError
from stanch.alert.receivers.said import Said

PAGERDUTY, TEAMS, MAIL = "pagerduty", "workflows", "mailto"
"""Schemes of apprise's plug-ins that are told in a way of their own."""

TIMEOUT_S = 10
_REPEATED = "Perhaps a repetition: Stanch does not know whether this has arrived before."
_MOST_CHARACTERS = 900
"""PagerDuty takes 1,024 characters of summary; a leak's other texts are about as long at most."""

_EMPHASIS = re.compile(r"[*`\\]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_LINK = re.compile(r"https?://[^\s()\[\]\\]+")


class MessengerReceiver:
    """Sends to one apprise URL, which is a secret and never shown."""

    def __init__(self, url: str) -> None:
        """Raises ValueError when apprise does not know the URL."""
        self._url = url
        with Said():
            service = _service(url)
        if service is None:
            scheme = url.partition(":")[0][:20]
            raise ValueError(f"apprise cannot use this {scheme}:// URL; see its documentation")
        self._targets = len(service[0])
        self._schemes = _schemes(service[0])

    def send(self, message: Message, *, uncertain: bool) -> None:
        """See Receiver.

        One URL with several addresses is told again as a whole when one of them could not be
        told: those that have it already are told that it may be a repetition.
        """
        with Said() as said:
            service = _service(self._for(message))
            try:
                sent = service is not None and service.notify(
                    **self._texts(message, uncertain=uncertain),
                    notify_type=_type_of(message),
                    attach=_picture_of(message),
                )
            except Exception as error:  # A plug-in's own fault; its words may hold the URL.
                raise DeliveryError(type(error).__name__, uncertain=True) from None
        # A messenger that took the text and not the picture has been told.
        if sent or (said.was_sent and self._targets == 1):
            return
        raise DeliveryError(
            said.reason(self._url),
            final=said.is_final and self._targets == 1,
            uncertain=said.is_uncertain or said.was_sent,
        )

    def refresh(self, alarms: Sequence[Alarm]) -> None:
        """See Receiver: people are told of changes only."""

    def close(self) -> None:
        """See Receiver: there is no connection that stays."""

    def _texts(self, message: Message, *, uncertain: bool) -> Mapping[str, object]:
        """Subject and text; of PagerDuty the subject alone, since the rest are its details."""
        plain = apprise.NotifyFormat.TEXT
        if PAGERDUTY in self._schemes:
            subject = message.subject[:_MOST_CHARACTERS]
            return {"title": "", "body": subject, "body_format": plain}
        paragraphs = [*([_REPEATED] if uncertain else []), *message.paragraphs()]
        text = "\n\n".join(paragraphs)
        if TEAMS in self._schemes:
            title, body = card_text(message.subject), card_text(text)
            return {"title": title, "body": body, "body_format": apprise.NotifyFormat.MARKDOWN}
        return {"title": message.subject, "body": text, "body_format": plain}

    def _for(self, message: Message) -> str:
        """Return the URL with what this kind of receiver needs to know the message again."""
        ours: dict[str, object] = {}
        offered: dict[str, object] = {"rto": TIMEOUT_S, "cto": TIMEOUT_S}
        if PAGERDUTY in self._schemes:
            over = message.news in ("resolved", "marked")
            ours["dedup"] = f"stanch-{message.alarm.fingerprint}-{message.alarm.episode}"
            ours["action"] = "resolve" if over else "trigger"
            offered |= self._details(message)
        if MAIL in self._schemes:
            ours["+X-Stanch-Key"] = message.key
        # What the URL says itself counts, but for what tells one message from another.
        query = urlsplit(self._url).query
        said = {key.strip().lower() for key, _ in parse_qsl(query, keep_blank_values=True)}
        added = {key: value for key, value in offered.items() if key.lower() not in said} | ours
        joint = "&" if "?" in self._url else "?"
        return self._url + joint + urlencode(added, safe="+", quote_via=quote)

    def _details(self, message: Message) -> Mapping[str, object]:
        alarm = message.alarm
        details: dict[str, object] = {
            "component": alarm.cause[:_MOST_CHARACTERS] or "memory",
            "class": alarm.kind,
            "click": alarm.link,
            "+text": "\n\n".join(message.paragraphs())[:_MOST_CHARACTERS],
            "+instances": ", ".join(alarm.instances[:12]),
        }
        if not urlsplit(self._url).path.strip("/"):
            details["source"] = alarm.service
        return {key: value for key, value in details.items() if value}


def _service(url: str) -> Any:
    """What sends to a URL, under Stanch's name; None when apprise does not know the URL."""
    asset = apprise.AppriseAsset(
        app_id="Stanch",
        app_desc="Stanch finds memory leaks",
        app_url="",
        image_url_mask="",  # pictures of others' servers say nothing of a leak
        image_url_logo="",
        http_redirects=False,  # a token is for the one it is given to
    )
    service = apprise.Apprise(asset=asset)
    return service if service.add(url) and len(service) else None


def _schemes(plugin: Any) -> frozenset[str]:
    """By which schemes apprise knows what a URL belongs to, also one that a service shows."""
    known = (plugin.protocol, plugin.secure_protocol)
    return frozenset(
        name for each in known for name in ((each,) if isinstance(each, str) else each or ())
    )


def card_text(text: str) -> str:
    """A text as a card's block shows it: its Markdown knows links, lists and emphasis only.

    https://learn.microsoft.com/adaptive-cards/authoring-cards/text-features
    """
    lines = [_EMPHASIS.sub(r"\\\g<0>", line) for line in text.splitlines() if line]
    shown = (f"[{line}]({line})" if _LINK.fullmatch(line) else line for line in lines)
    return "\n\n".join(shown)


def _picture_of(message: Message) -> object:
    picture = message.alarm.picture
    if not picture or message.news not in ("firing", "worse"):
        return None
    make: Any = AttachMemory  # has no type hints
    attachment: object = make(
        content=base64.b64decode(picture), name="memory.png", mimetype="image/png"
    )
    return attachment


def _type_of(message: Message) -> apprise.NotifyType:
    if message.news == "resolved":
        return apprise.NotifyType.SUCCESS
    if message.news == "marked":
        return apprise.NotifyType.INFO
    is_critical = message.alarm.severity == "critical"
    return apprise.NotifyType.FAILURE if is_critical else apprise.NotifyType.WARNING

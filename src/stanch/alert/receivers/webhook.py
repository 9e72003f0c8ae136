"""A webhook: each message as one POST of JSON. docs/alarms.md has the fields.

`Idempotency-Key` is the message's key: a repetition after a lost answer has the same one, so that
the other side can tell it from news.
"""

from collections.abc import Sequence
from dataclasses import asdict

import httpx

from stanch.alert.alarm import Alarm
from stanch.alert.message import Message
from stanch.alert.receivers.delivery import post_json


class WebhookReceiver:
    """Posts messages to a URL."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self._client = client
        self._url = url

    def send(self, message: Message, *, uncertain: bool) -> None:
        """See Receiver."""
        payload = {
            "key": message.key,
            "news": message.news,
            "subject": message.subject,
            "text": "\n\n".join(message.paragraphs()),
            "at_unix": message.at_unix,
            "maybe_repeated": uncertain,
            "alarm": asdict(message.alarm) | {"severity": message.alarm.severity},
        }
        post_json(self._client, self._url, payload, {"Idempotency-Key": message.key})

    def refresh(self, alarms: Sequence[Alarm]) -> None:
        """See Receiver: a webhook is told of changes only."""

    def close(self) -> None:
        """See Receiver."""
        self._client.close()

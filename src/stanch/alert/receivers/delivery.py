"""What a receiver is, and how one says that a message could not be delivered."""

from collections.abc import Sequence
from typing import Protocol

import httpx

from stanch.alert.alarm import Alarm
from stanch.alert.message import Message
from stanch.alert.receivers.secrets import SecretError

_RETRIED_STATUSES = (401, 403, 404, 408, 409, 425, 429)
"""Refusals that somebody may put right: a token, a path, a load. The message stays whole."""


class DeliveryError(Exception):
    """A message was not, or perhaps not, delivered; the text says why, without secrets.

    final: sending it again would be of no use. uncertain: it may have arrived all the same.
    """

    def __init__(self, text: str, *, final: bool = False, uncertain: bool = False) -> None:
        super().__init__(text)
        self.final = final
        self.uncertain = uncertain


class Receiver(Protocol):
    """One receiver of messages. Calls come from one thread, one at a time."""

    def send(self, message: Message, *, uncertain: bool) -> None:
        """Deliver one message, within a bounded time, or raise DeliveryError.

        uncertain: it may have arrived before. Where the receiver knows a key for messages, the
        same message has the same one each time.
        """

    def refresh(self, alarms: Sequence[Alarm]) -> None:
        """Hear which alarms fire now, every minute or so; for receivers that forget. As `send`."""

    def close(self) -> None:
        """Let go of connections."""


def is_final_status(status: int) -> bool:
    """Whether a refusal with this status of HTTP is one of the message itself."""
    return 400 <= status < 500 and status not in _RETRIED_STATUSES


def post_json(
    client: httpx.Client, url: str, payload: object, headers: dict[str, str]
) -> httpx.Response:
    """Post JSON and return the answer when it is one of 2xx. Raises DeliveryError."""
    try:
        answer = client.post(url, json=payload, headers=headers)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
        raise DeliveryError(f"no connection: {error}") from error
    except SecretError as error:
        raise DeliveryError(str(error)) from error
    except httpx.HTTPError as error:
        raise DeliveryError(f"no answer: {error!r}", uncertain=True) from error
    if answer.is_success:
        return answer
    said = " ".join(answer.text[:200].split())
    final = is_final_status(answer.status_code)
    raise DeliveryError(f"answered {answer.status_code}: {said}", final=final)

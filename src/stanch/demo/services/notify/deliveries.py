"""Deliveries: one task follows each message from the relay to its receipt."""

import asyncio
import uuid
from dataclasses import dataclass

from . import settings

# Mail programs ignore style sheets, so each paragraph carries its own style.
STYLE = (
    "margin:0 0 16px 0;padding:0;font-family:Helvetica,Arial,sans-serif;font-size:16px;"
    "line-height:24px;color:#333333;background-color:#ffffff;text-align:left;"
    "-webkit-text-size-adjust:100%;-ms-text-size-adjust:100%;mso-line-height-rule:exactly"
)


@dataclass(frozen=True, slots=True)
class Mail:
    """A message as the relay wants it."""

    message_id: str
    recipient: str
    parts: tuple[bytes, ...]


class Deliveries:
    """What is under way. Belongs to one event loop."""

    def __init__(self) -> None:
        self._following: set[asyncio.Task[None]] = set()
        self._receipts: dict[str, asyncio.Event] = {}
        self.delivered = 0

    def dispatch(self, recipient: str, paragraphs: list[str]) -> str:
        """Send a message in the background and return its identifier."""
        message_id = uuid.uuid4().hex
        task = asyncio.create_task(self._follow(message_id, recipient, paragraphs))
        # The loop itself holds tasks weakly: without this set a delivery could vanish half-way.
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        return message_id

    def acknowledge(self, message_id: str) -> bool:
        """Note the provider's receipt; False when nobody waits for that message."""
        receipt = self._receipts.get(message_id)
        if receipt is None:
            return False
        receipt.set()
        return True

    async def _follow(self, message_id: str, recipient: str, paragraphs: list[str]) -> None:
        mail = compose(message_id, recipient, paragraphs)
        receipt = self._receipts[mail.message_id] = asyncio.Event()
        try:
            await asyncio.sleep(settings.RELAY_SECONDS)
            await asyncio.wait_for(receipt.wait(), settings.RECEIPT_TIMEOUT_SECONDS)
            self.delivered += 1
        except TimeoutError:
            pass  # No receipt in time: the provider lost it, and so do we.
        finally:
            del self._receipts[mail.message_id]


def compose(message_id: str, recipient: str, paragraphs: list[str]) -> Mail:
    """Render a message: a MIME part for each paragraph, headers included."""
    parts = []
    for number, paragraph in enumerate(paragraphs):
        head = f"Content-ID: <{message_id}.{number}>\r\nTo: {recipient}\r\n\r\n"
        parts.append(f"{head}<p style='{STYLE}'>{paragraph}</p>\r\n".encode())
    return Mail(message_id, recipient, tuple(parts))

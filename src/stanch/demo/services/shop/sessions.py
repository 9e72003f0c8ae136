"""The order page's memory: what each customer has just ordered.

A customer who returns to the order page within the session's time sees the rows as they were
rendered. Sessions are in order of age, so forgetting the old ones is cheap: look at the oldest,
stop at the first that is still fresh.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import settings
from .basket import PricedLine


@dataclass(slots=True)
class Session:
    """The rendered order of one customer; `touched` is when it was last used, in seconds."""

    customer: str
    touched: float
    rows: list[dict[str, object]] = field(default_factory=list)


_sessions: OrderedDict[str, Session] = OrderedDict()


def remember(order_id: str, customer: str, lines: Sequence[PricedLine]) -> Session:
    """Keep the rows of an order for the order page, and forget those whose time is over."""
    now = time.monotonic()
    _forget_before(now - settings.SESSION_TTL_SECONDS)
    session = Session(customer, touched=now if settings.FIXED else time.time())
    for line in lines:
        session.rows.append(
            {
                "sku": line.product.sku,
                "quantity": line.quantity,
                "cost_cents": line.cost_cents,
                "html": f"<tr data-order='{order_id}' data-sku='{line.product.sku}'>"
                f"<td class='title'>{line.product.title}</td>"
                f"<td class='quantity'>{line.quantity} &times; {line.product.price_cents}</td>"
                f"<td class='cost'>{line.cost_cents / 100:.2f}</td></tr>",
            }
        )
    _sessions[order_id] = session
    return session


def recall(order_id: str) -> Session | None:
    """Return the session of an order, or None when it was never kept or is forgotten."""
    return _sessions.get(order_id)


def _forget_before(deadline: float) -> None:
    while _sessions:
        oldest = next(iter(_sessions))
        if _sessions[oldest].touched >= deadline:
            return
        del _sessions[oldest]

"""Checking out: price the basket, give it a number, keep it for the order page."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from . import basket, sessions


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the customer is told; `total_cents` includes every line."""

    order_id: str
    line_count: int
    total_cents: int


def check_out(customer: str, wanted: Sequence[Sequence[int]]) -> Receipt:
    """Turn a basket into an order. BasketError when the basket makes no sense."""
    lines = basket.price(wanted)
    order_id = uuid.uuid4().hex
    sessions.remember(order_id, customer, lines)
    return Receipt(order_id, len(lines), sum(line.cost_cents for line in lines))

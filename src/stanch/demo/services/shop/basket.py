"""Baskets: what was asked for, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from .pricebook import BOOK, Product

MAX_LINES = 1000


class BasketError(ValueError):
    """A basket that cannot be priced; the text says which entry and why."""


@dataclass(frozen=True, slots=True)
class PricedLine:
    """One line of an order with its cost."""

    product: Product
    quantity: int
    cost_cents: int


def price(wanted: Sequence[Sequence[int]]) -> list[PricedLine]:
    """Price (article number, quantity) pairs; BasketError on a pair that makes no sense."""
    if len(wanted) > MAX_LINES:
        raise BasketError(f"{len(wanted)} lines given, an order has at most {MAX_LINES}")
    lines = []
    for sku, quantity in wanted:
        if not 0 <= sku < len(BOOK) or quantity < 1:
            raise BasketError(f"no article {sku}, or quantity {quantity} is below one")
        product = BOOK[sku]
        lines.append(PricedLine(product, quantity, quantity * product.price_cents))
    return lines

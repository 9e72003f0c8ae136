"""Quotes: what a quantity of an article costs, and whether the house gives credit for it."""

from dataclasses import dataclass

from . import settings
from .tiers import TierList

CREDIT_LIMIT = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Quote:
    """A price for a whole quantity; `on_credit` when it may be paid later."""

    quantity: int
    total: float
    on_credit: bool


def quote(base_price: float, quantity: int, tier_count: int) -> Quote:
    """Quote a quantity over `tier_count` tiers. ValueError on a quantity below one."""
    if quantity < 1:
        raise ValueError(f"quantity {quantity} is below one")
    tiers = TierList(base_price, tier_count)
    total = quantity * tiers.unit_price(quantity)
    if total <= CREDIT_LIMIT:
        if settings.FIXED:
            tiers.close()
        return Quote(quantity, total, on_credit=True)
    tiers.close()
    return Quote(quantity, total, on_credit=False)

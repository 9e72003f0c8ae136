"""The price book: what a product is called and what it costs."""

from dataclasses import dataclass

PRODUCT_COUNT = 2000

_ADJECTIVES = ("Plain", "Sturdy", "Folding", "Oiled", "Quiet", "Spare", "Heavy", "Small")
_NOUNS = ("kettle", "hinge", "ladder", "lamp", "crate", "hammer", "bench", "pulley")


@dataclass(frozen=True, slots=True)
class Product:
    """One row of the price book; `price_cents` is the price of a single piece."""

    sku: int
    title: str
    price_cents: int


def load() -> tuple[Product, ...]:
    """Return the whole book, indexed by article number."""
    return tuple(
        Product(
            sku=sku,
            title=f"{_ADJECTIVES[sku % 8]} {_NOUNS[sku // 8 % 8]} no. {sku}",
            price_cents=199 + sku * 7 % 9800,
        )
        for sku in range(PRODUCT_COUNT)
    )


BOOK = load()

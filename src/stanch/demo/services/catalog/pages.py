"""Product pages, the most recently used of which are kept rendered."""

import threading
from collections import OrderedDict
from dataclasses import dataclass

from . import settings


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered product page."""

    product: int
    rows: tuple[str, ...]


class PageCache:
    """The `capacity` pages used last. Safe to use from several threads."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._pages: OrderedDict[int, Page] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, product: int) -> Page:
        """Return the page of a product, rendered now if it is not kept."""
        with self._lock:
            page = self._pages.get(product)
            if page is not None:
                self._pages.move_to_end(product)
                return page
        page = render(product)
        with self._lock:
            self._pages[product] = page
            while len(self._pages) > self._capacity:
                self._pages.popitem(last=False)
        return page


def render(product: int) -> Page:
    """Render the page of a product: its offers, one row each."""
    rows = []
    for offer in range(settings.PAGE_ROWS):
        cents = 199 + (product * 31 + offer * 17) % 9800
        rows.append(
            f"<tr class='offer'><td>{product}-{offer}</td><td>{cents / 100:.2f}</td>"
            f"<td>{'in stock' if offer % 3 else 'on order'}</td>{'<td>&nbsp;</td>' * 40}</tr>"
        )
    return Page(product, tuple(rows))

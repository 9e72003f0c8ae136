"""The native tier list, through ctypes."""

import ctypes
from pathlib import Path

from . import settings


class TierList:
    """A list of `count` tiers in native memory; `close` gives the memory back."""

    def __init__(self, base_price: float, count: int) -> None:
        self._first: int | None = _library.tiers_build(base_price, count)
        if self._first is None:
            raise MemoryError(f"no memory for {count} tiers")

    def unit_price(self, quantity: int) -> float:
        """Return the price of one piece when `quantity` are bought."""
        return float(_library.tiers_unit_price(self._first, quantity))

    def close(self) -> None:
        """Free the nodes; the list is empty afterwards."""
        _library.tiers_close(self._first)
        self._first = None


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(str(Path(__file__).parent / settings.LIBRARY))
    library.tiers_build.argtypes = [ctypes.c_double, ctypes.c_long]
    library.tiers_build.restype = ctypes.c_void_p
    library.tiers_unit_price.argtypes = [ctypes.c_void_p, ctypes.c_long]
    library.tiers_unit_price.restype = ctypes.c_double
    library.tiers_close.argtypes = [ctypes.c_void_p]
    library.tiers_close.restype = None
    return library


_library = _load()

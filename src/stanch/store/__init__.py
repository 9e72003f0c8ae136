"""Series of what was scraped, for detection to read."""

from stanch.store.life import OTHER, Bounds
from stanch.store.memory import MemoryStore, StoreBounds
from stanch.store.model import (
    BIRTH_BAND_S,
    FILES,
    Frame,
    Look,
    ProcessLook,
    Stack,
    StackCount,
    StackHeap,
)
from stanch.store.series import Births, Counts, LifeSeries, ServiceSeries, Store

__all__ = [
    "BIRTH_BAND_S",
    "FILES",
    "OTHER",
    "Births",
    "Bounds",
    "Counts",
    "Frame",
    "LifeSeries",
    "Look",
    "MemoryStore",
    "ProcessLook",
    "ServiceSeries",
    "Stack",
    "StackCount",
    "StackHeap",
    "Store",
    "StoreBounds",
]

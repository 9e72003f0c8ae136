"""Beside a process that speaks pprof: its last profile is kept, so its death has an autopsy."""

from stanch.sidecar.gauge import Gauge, Reading
from stanch.sidecar.shelf import Shelf
from stanch.sidecar.trigger import Trigger
from stanch.sidecar.watch import Sidecar, SidecarError, SidecarOptions

__all__ = [
    "Gauge",
    "Reading",
    "Shelf",
    "Sidecar",
    "SidecarError",
    "SidecarOptions",
    "Trigger",
]

"""The one place of wiring: scrape, store, detect, in a loop."""

from stanch.server.watch import TargetRow, Watcher, WatchState

__all__ = ["TargetRow", "WatchState", "Watcher"]

"""What takes a replica out: a command, a systemd unit, or the worker's own agent."""

from stanch.recycle.backends.backend import Backend, RecycleError

__all__ = ["Backend", "RecycleError"]

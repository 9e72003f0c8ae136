"""Looks for the tests of stores: one process of one target, with what matters to a test set."""

from dataclasses import replace

from stanch.store import Frame, Look, ProcessLook, Stack, StackHeap


def stack(name: str) -> Stack:
    """A stack of one frame of the user's own code."""
    return (Frame(name, f"/srv/app/{name}.py", 10),)


def heap(
    name: str, live: float, *, allocated: float | None = None, births: tuple[float, ...] = ()
) -> StackHeap:
    """A stack's heap in objects of 100 bytes; births: the live bytes of each band of 5 s."""
    return StackHeap(
        stack=stack(name),
        allocated_bytes=live if allocated is None else allocated,
        live_bytes=live,
        live_objects=live / 100,
        births=tuple((5.0 * band, size) for band, size in enumerate(births) if size),
    )


PROCESS = ProcessLook(pid=10, age_s=None, rss_bytes=50e6)


def look(time_s: float, *processes: ProcessLook, **changes: object) -> Look:
    """A look at shop-1 at `time_s`; the process is PROCESS aged by the time unless given."""
    seen = processes or (replace(PROCESS, age_s=time_s),)
    plain = Look("shop", "shop-1", time_s, 1.7e9 + time_s, "python", seen, limit_bytes=100e6)
    return replace(plain, **changes)  # type: ignore[arg-type]

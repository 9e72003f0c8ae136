"""Series made by hand: a life whose memory, heap and births follow given curves, without noise."""

from collections.abc import Mapping

import numpy as np

from stanch.detect import ServiceVerdict, judge_service
from stanch.store import Births, Counts, Frame, LifeSeries, ServiceSeries, Stack
from stanch.store.series import Floats

MIB = 1024.0 * 1024.0
NO_COUNTS = Counts((), (), np.zeros((0, 0)))


def frame(function: str, file: str = "", line: int = 10) -> Frame:
    """A frame of the user's own code."""
    return Frame(function, file or f"/srv/app/{function}.py", line)


def life(
    time_s: Floats,
    memory: Floats,
    heap: Mapping[Stack, Floats] | None = None,
    *,
    births: Mapping[Stack, Floats] | None = None,
    settled: Mapping[Stack, Floats] | None = None,
    limit: float | None = 160 * MIB,
    requests: Floats | None = None,
    language: str = "python",
    counts: Counts = NO_COUNTS,
    instance: str = "shop-1",
    period: float = 1024.0,
    object_bytes: float = 100.0,
    ended_near_limit: bool = False,
) -> LifeSeries:
    """A life with live bytes per stack and look, and births per stack in bands of 5 s.

    settled: what the bands had once; as the births when None. The period is small, so that noise
    plays no part unless a test is about it.
    """
    levels = dict(heap or {})
    stacks = tuple(levels)
    live = np.array([levels[stack] for stack in stacks]).reshape(len(stacks), time_s.size)
    table = None
    if births is not None:
        rows = np.array([births[stack] for stack in stacks], dtype=np.float64)
        once = np.array([(settled or births)[stack] for stack in stacks], dtype=np.float64)
        table = Births(np.arange(rows.shape[1] + 1) * 5.0, rows, once)
    unknown = np.full(time_s.size, np.nan)
    return LifeSeries(
        service="shop",
        instance=instance,
        language=language,
        first_unix_s=1.7e9,
        time_s=time_s,
        rss_bytes=memory,
        memory_bytes=memory,
        heap_bytes=live.sum(axis=0),
        runtime_bytes=unknown,
        requests=unknown if requests is None else requests,
        in_flight=unknown,
        limit_bytes=limit,
        period_bytes=period,
        heap_fresh=np.ones(time_s.size, dtype=np.bool_),
        stacks=stacks,
        live_bytes=live,
        allocated_bytes=live,
        object_bytes=np.full(len(stacks), object_bytes),
        births=table,
        counts=counts,
        ended_near_limit=ended_near_limit,
    )


TIME = np.arange(2.5, 51.0, 2.5)
LEAK = (frame("remember"), frame("handle"))


def leaking(instance: str = "shop-1", rate: float = 1.0 * MIB, **changes: object) -> LifeSeries:
    """A life of 50 s that leaks evenly at LEAK from 50 MiB on, half way to its limit of 150 MiB."""
    options: dict[str, object] = {
        "births": {LEAK: np.full(10, 5 * rate)},
        "limit": 150 * MIB,
        "instance": instance,
    }
    return life(TIME, 50 * MIB + rate * TIME, {LEAK: rate * TIME}, **(options | changes))  # type: ignore[arg-type]


def verdict(*lives: LifeSeries, past: tuple[LifeSeries, ...] = ()) -> ServiceVerdict:
    """What is said of a service with these lives."""
    return judge_service(ServiceSeries("shop", lives, past))

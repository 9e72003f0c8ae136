"""How long nodes live under load: measured where one died, else reckoned from their growth."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .record import Death, Life

# Growth slower than this is no growth: a life that long would not be reckoned from minutes.
MIN_GROWTH_BYTES_PER_S = 1024.0
MIN_READINGS = 5


@dataclass(slots=True)
class Trace:
    """The memory of a node's first life under load: seconds of load, bytes in use."""

    service: str
    limit_bytes: int
    readings: list[tuple[float, int]] = field(default_factory=list)


def life_of(service: str, traces: Iterable[Trace], deaths: Iterable[Death]) -> Life | None:
    """Return the shortest life of the service's nodes.

    Only first lives count: they began with the load. Where none died at its limit, the node that
    grows fastest tells when it would. None when none grows.
    """
    first_deaths = [
        death.at_s
        for death in deaths
        if death.service == service and death.life == 1 and death.at_limit
    ]
    if first_deaths:
        return Life(min(first_deaths), measured=True)
    reckoned = [
        seconds
        for trace in traces
        if trace.service == service
        and (seconds := reckon_life(trace.readings, trace.limit_bytes)) is not None
    ]
    return Life(min(reckoned), measured=False) if reckoned else None


def reckon_life(readings: Sequence[tuple[float, int]], limit_bytes: int) -> float | None:
    """Return when a straight line through the readings meets the limit, in seconds of load.

    None with too few readings or without growth. Least squares over all readings.
    """
    if len(readings) < MIN_READINGS:
        return None
    mean_t = sum(at_s for at_s, _ in readings) / len(readings)
    mean_used = sum(used for _, used in readings) / len(readings)
    spread = sum((at_s - mean_t) ** 2 for at_s, _ in readings)
    growth = sum((at_s - mean_t) * (used - mean_used) for at_s, used in readings)
    if spread <= 0 or growth / spread < MIN_GROWTH_BYTES_PER_S:
        return None
    return mean_t + (limit_bytes - mean_used) * spread / growth

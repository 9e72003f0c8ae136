"""Why requests are slow, for a watch: the counters that its scrapes bring, kept for a while.

Give `witness` to the Watcher, beside others, and each state to `take`.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stanch.collect import Scrape, Target
from stanch.collect.exposition import Exposition
from stanch.detect.slowness import Slowness, Strain, explain
from stanch.server.watch import WatchState
from stanch.store import Look
from stanch.store.life import memory_of

MOST_POINTS = 360
MOST_INSTANCES = 1000
EVERY_S = 15.0
"""An instance is judged so often at most."""

MOST_JUDGED = 50
"""So many are judged at a step, each in about 2.5 ms."""


@dataclass(slots=True)
class _Instance:
    series: deque[Strain] = field(default_factory=lambda: deque(maxlen=MOST_POINTS))
    judged_s: float = float("-inf")
    found: Slowness | None = None
    told: str = ""


class Latencies:
    """The mean time of a request between two scrapes of a target, whose scrapes come in turn."""

    def __init__(self) -> None:
        self._last: dict[Target, Strain] = {}

    def latency_s(self, scrape: Scrape) -> float | None:
        """Of the requests since the scrape before; None when there were none, or nobody counts."""
        if scrape.metrics is None:
            return None
        point = strain_of(scrape.time_s, scrape.metrics, None)
        if point is None:
            return None
        before = self._last.get(scrape.target)
        self._last[scrape.target] = point
        if before is None or point.requests < before.requests:
            return None
        return last_shares((before, point))["latency_s"]

    def forget(self, target: Target) -> None:
        """Forget a former target."""
        self._last.pop(target, None)


class SlownessWatch:
    """For one thread. Its memory is bounded by MOST_INSTANCES series of MOST_POINTS."""

    def __init__(self) -> None:
        self._instances: dict[tuple[str, str], _Instance] = {}

    def witness(self, scrape: Scrape, look: Look | None) -> None:
        """Take in a scrape of a target that counts its requests."""
        if look is None or scrape.metrics is None:
            return
        point = strain_of(scrape.time_s, scrape.metrics, memory_of(look))
        if point is None:
            return
        key = (look.service, look.instance)
        known = self._instances.get(key)
        if known is None:
            if len(self._instances) >= MOST_INSTANCES:
                return
            known = self._instances[key] = _Instance()
        if known.series and point.requests < known.series[-1].requests:
            # Another process, or fewer of them: what was before is not to be compared with.
            self._instances[key] = known = _Instance()
        known.series.append(point)

    def take(self, state: WatchState) -> WatchState:
        """Return the state with what holds each instance up, and a note when that explains why
        requests have got slow."""
        notes = []
        rows = []
        room = MOST_JUDGED
        for row in state.rows:
            known = self._instances.get((row.service, row.instance))
            if known is None:
                rows.append(row)
                continue
            if room and state.elapsed_s - known.judged_s >= EVERY_S:
                room -= 1
                known.judged_s = state.elapsed_s
                known.found = explain(known.series)
            slow = known.found.text if known.found is not None else ""
            cause = (known.found.cause or "") if known.found is not None else ""
            if slow and cause != known.told:
                notes.append(f"{row.service} {row.instance}: {slow}")
            known.told = cause
            rows.append(replace(row, slow=slow, strain=last_shares(known.series)))
        present = {(row.service, row.instance) for row in state.rows}
        for key in [key for key in self._instances if key not in present]:
            del self._instances[key]
        return replace(state, rows=tuple(rows), notes=(*state.notes, *notes))


def strain_of(time_s: float, metrics: Exposition, memory_bytes: float | None) -> Strain | None:
    """Return the counters of an agent's metrics; None where nobody counts requests."""
    requests = metrics.total("stanch_request_seconds_count")
    request_s = metrics.total("stanch_request_seconds_sum")
    if requests is None or request_s is None:
        return None
    return Strain(
        time_s=time_s,
        requests=requests,
        request_s=request_s,
        gc_s=metrics.total("stanch_gc_pause_seconds_sum"),
        gc_pauses=metrics.total("stanch_gc_pause_seconds_count"),
        gc_watched_s=metrics.total("stanch_gc_watched_seconds_total"),
        pressure_s=metrics.largest("stanch_memory_pressure_seconds_total"),
        throttled_s=metrics.largest("stanch_cpu_throttled_seconds_total"),
        swap_bytes=metrics.largest("stanch_memory_swap_bytes"),
        memory_bytes=memory_bytes,
    )


def last_shares(series: Sequence[Strain]) -> dict[str, float | None]:
    """Return what of the last interval there is to draw on one axis with the latency: seconds per
    request, and shares of the time; None unknown."""
    if len(series) < 2:
        return {}
    one, two = series[-2], series[-1]
    passed_s = two.time_s - one.time_s

    def rate(name: str, over: float | None) -> float | None:
        first, last = getattr(one, name), getattr(two, name)
        if first is None or last is None or not over or over <= 0:
            return None
        return max(0.0, float(last - first) / over)

    watched_s = (two.gc_watched_s or 0.0) - (one.gc_watched_s or 0.0)
    return {
        "latency_s": rate("request_s", two.requests - one.requests),
        "collector": rate("gc_s", watched_s),
        "pressure": rate("pressure_s", passed_s),
        "throttling": rate("throttled_s", passed_s),
        "swap_bytes": two.swap_bytes,
    }

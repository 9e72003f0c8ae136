"""When a profile is worth taking: at shares of the limit, on sudden growth, under pressure."""

from collections import deque
from collections.abc import Sequence

from stanch.sidecar.gauge import Reading

GROWTH_S = 30.0
GROWTH_SHARE = 0.10
PRESSURE = 10.0
_REARM = 0.05
_MOST_LOOKS = 600


class Trigger:
    """Give it each reading with its time; it says why a profile is due, or None.

    Each share of `at` counts once on the way up, and again when memory has been five points below
    it. Sudden growth is a tenth of the limit within half a minute, once in that time.
    """

    def __init__(self, at: Sequence[float] = (0.70, 0.85, 0.95)) -> None:
        self._at = tuple(sorted(at))
        self._passed: set[float] = set()
        self._looks: deque[tuple[float, int]] = deque(maxlen=_MOST_LOOKS)
        self._grew_s = float("-inf")
        self._pressed = False

    def look(self, now_s: float, reading: Reading) -> str | None:
        """Return why a profile should be taken now."""
        return self._share(reading) or self._growth(now_s, reading) or self._pressure(reading)

    def _share(self, reading: Reading) -> str | None:
        share = reading.share
        if share is None:
            return None
        self._passed = {mark for mark in self._passed if share >= mark - _REARM}
        new = [mark for mark in self._at if share >= mark and mark not in self._passed]
        self._passed |= set(new)
        return f"memory at {share:.0%} of the limit" if new else None

    def _growth(self, now_s: float, reading: Reading) -> str | None:
        used, limit = reading.working_set_bytes, reading.limit_bytes
        if used is None or not limit:
            return None
        self._looks.append((now_s, used))
        while self._looks[0][0] < now_s - GROWTH_S:
            self._looks.popleft()
        lowest = min(size for _, size in self._looks)
        if used - lowest < GROWTH_SHARE * limit or now_s - self._grew_s < GROWTH_S:
            return None
        self._grew_s = now_s
        return f"memory grew by {(used - lowest) / limit:.0%} of the limit within {GROWTH_S:g} s"

    def _pressure(self, reading: Reading) -> str | None:
        if reading.pressure is None:
            return None
        pressed, self._pressed = self._pressed, reading.pressure >= PRESSURE
        if pressed or not self._pressed:
            return None
        return f"memory pressure: something waited {reading.pressure:.0f} % of ten seconds"

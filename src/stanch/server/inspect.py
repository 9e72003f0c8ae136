"""The automatic retention search: a suspect stack is looked up on one replica, and remembered.

One search a step and service at most, as each makes a snapshot of the target; a target that
refuses is left alone for a while. The answers are what `judge_service` takes as `holders`. Two
looks are needed to tell whether a container grows: the second one is made at the next step.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from stanch.collect import FetchError
from stanch.detect import Holder, Inspection, Place, holder_of

PATH = "/debug/stanch/retention"
_REFUSED_STEPS = 12
_MOST_PLACES = 256

Ask = Callable[[str, str], Awaitable[bytes]]
"""Fetches a path of an instance. Raises FetchError."""


class Inspector:
    """What retention searches said of the suspects of one service."""

    def __init__(self) -> None:
        self.holders: dict[Place, Holder] = {}
        self._paused: dict[Place, int] = {}
        self._asked_once: set[Place] = set()

    async def look(self, wanted: tuple[Inspection, ...], ask: Ask) -> bool:
        """Make the first search that may be made now. Returns whether one was."""
        self._paused = {place: left - 1 for place, left in self._paused.items() if left > 1}
        for inspection in wanted:
            if inspection.place in self._paused:
                continue
            await self._search(inspection, ask)
            return True
        return False

    async def _search(self, inspection: Inspection, ask: Ask) -> None:
        place = inspection.place
        if len(self.holders) + len(self._paused) >= _MOST_PLACES:
            self.holders.clear()
            self._paused.clear()
            self._asked_once.clear()
        query = urlencode({"function": place.function})
        try:
            answer = json.loads(await ask(inspection.instance, f"{PATH}?{query}"))
        except (FetchError, ValueError):
            self._paused[place] = _REFUSED_STEPS
            return
        if not isinstance(answer, Mapping):
            self._paused[place] = _REFUSED_STEPS
            return
        if _grows_unknown(answer) and place not in self._asked_once:
            self._asked_once.add(place)
            return
        self._asked_once.discard(place)
        self.holders[place] = holder_of(answer, inspection.grown_bytes)


def _grows_unknown(answer: Mapping[str, Any]) -> bool:
    """Whether a container of the answer was seen for the first time, so its growth is not known."""
    holders = answer.get("holders")
    return any(
        isinstance(one, Mapping) and one.get("length") and one.get("growth_per_second") is None
        for one in (holders if isinstance(holders, list) else [])
    )

"""The automatic retention search: a suspect stack is looked up on one replica, and remembered.

One search a step and service at most, as each makes a snapshot of the target; a target that
refuses is left alone for a while. The answers are what `judge_service` takes as `holders`. Two
looks are needed to tell whether a container grows: the second one is made at the next step.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from stanch.collect import FetchError
from stanch.detect import Finding, Holder, Inspection, Place, ServiceVerdict, holder_of

PATH = "/debug/stanch/retention"
_REFUSED_STEPS = 12
_MOST_PLACES = 256
_MOST_SEARCHES = 4
"""Retention searches at a time, each in a process of another service."""

Ask = Callable[[str, str], Awaitable[bytes]]
"""Fetches a path of an instance. Raises FetchError."""

AskService = Callable[[str, str, str], Awaitable[bytes]]
"""Fetches a path of an instance of a service. Raises FetchError."""


class Inspectors:
    """The retention searches of all services: one a service, and so many in all, in turn."""

    def __init__(self) -> None:
        self._of_service: dict[str, Inspector] = {}
        self._round = 0

    def of(self, service: str) -> "Inspector":
        """What is known of one service."""
        return self._of_service.setdefault(service, Inspector())

    def answer_to(self, finding: Finding) -> Mapping[str, Any] | None:
        """What the last search for a finding's memory answered, None without one."""
        for place, answer in self.of(finding.service).answers.items():
            if place.function == finding.function and place.file.endswith(finding.file):
                return answer
        return None

    async def look(self, verdicts: Sequence[ServiceVerdict], ask: AskService) -> None:
        """Make the searches that these verdicts ask for."""
        wanting = [verdict for verdict in verdicts if verdict.inspections]
        first = self._round % len(wanting) if wanting else 0
        self._round += 1

        def asking(service: str) -> Ask:
            return lambda instance, path: ask(service, instance, path)

        await asyncio.gather(
            *(
                self.of(verdict.service).look(verdict.inspections, asking(verdict.service))
                for verdict in (wanting[first:] + wanting[:first])[:_MOST_SEARCHES]
            )
        )


class Inspector:
    """What retention searches said of the suspects of one service: what holds each one, and the
    whole answers."""

    def __init__(self) -> None:
        self.holders: dict[Place, Holder] = {}
        self.answers: dict[Place, Mapping[str, Any]] = {}
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
            self.answers.clear()
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
        self.answers[place] = answer


def _grows_unknown(answer: Mapping[str, Any]) -> bool:
    """Whether a container of the answer was seen for the first time, so its growth is not known."""
    holders = answer.get("holders")
    return any(
        isinstance(one, Mapping) and one.get("length") and one.get("growth_per_second") is None
        for one in (holders if isinstance(holders, list) else [])
    )

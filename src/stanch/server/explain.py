"""What keeps a confirmed leak alive, asked of one of its targets as `stanch why` does, once.

One target is asked at a time. One that does not serve this (Go) is not asked again for that
finding; one that fails is, after a while. A search does not stop the target: see docs/retention.md.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from stanch.collect import Target
from stanch.collect.errors import FetchError, NotServedError
from stanch.collect.fetch import Connection
from stanch.detect import Finding
from stanch.server.inspect import PATH
from stanch.server.ledger import Ledger, finding_name

LOOK_S = 1.0
TIMEOUT_S = 30.0
AGAIN_S = 60.0
_MOST_BYTES = 1024 * 1024


class Explainer:
    """Belongs to one event loop. targets: those that are scraped, by instance."""

    def __init__(
        self,
        ledger: Ledger,
        targets: Callable[[], Mapping[str, Target]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._targets = targets
        self._monotonic = monotonic
        self._not_before_s: dict[str, float] = {}

    async def explain(self, findings: Iterable[Finding]) -> None:
        """Ask about the first finding that needs it; its answer goes with what is written next."""
        now_s = self._monotonic()
        targets = self._targets()
        for finding in findings:
            name = finding_name(finding)
            target = _target_of(finding, targets)
            if (
                target is None
                or not (finding.is_confirmed_leak and finding.function)
                or self._ledger.explained(name)
                or self._not_before_s.get(name, now_s) > now_s
            ):
                continue
            try:
                self._ledger.explain(name, await _ask(target, finding))
            except NotServedError:
                self._not_before_s[name] = float("inf")
            except FetchError:
                self._not_before_s[name] = now_s + AGAIN_S
            return


def _target_of(finding: Finding, targets: Mapping[str, Target]) -> Target | None:
    for instance in (finding.first_to_die, *finding.instances):
        if instance in targets:
            return targets[instance]
    return None


async def _ask(target: Target, finding: Finding) -> dict[str, Any]:
    """The answer. Raises FetchError, NotServedError."""
    query = urlencode({"function": finding.function, "seconds": f"{LOOK_S:g}"})
    async with Connection(target, TIMEOUT_S) as connection:
        body = await connection.get(f"{PATH}?{query}", _MOST_BYTES)
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FetchError("the answer is no JSON") from error
    if not isinstance(answer, dict) or not answer.get("paths"):
        raise FetchError("nothing was found that keeps it")
    return answer

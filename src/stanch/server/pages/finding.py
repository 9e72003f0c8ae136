"""The page of a finding: what it says, how it grew, what keeps it and what to do now."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from markupsafe import Markup
from starlette.requests import Request

from stanch.detect import Finding, finding_facts, finding_title
from stanch.flame import FlameOptions, FlameSource, flame_graph, flame_json
from stanch.server.ledger import finding_of
from stanch.server.pages.charts import Forecast, births_chart, memory_chart
from stanch.server.pages.errors import NotFoundError
from stanch.server.pages.explorer import function_lines, quoted
from stanch.server.pages.marks import marks_of
from stanch.server.pages.source import Sources
from stanch.store.history import (
    FindingRow,
    History,
    LifeRow,
    MemorySeries,
    TimeRange,
)

_BEFORE_S = 900.0
_MOST_AHEAD = 0.5
_NODE_FRACTION = 0.002
_MOST_STEPS = 64


class FindingPage:
    """Reads what a finding is about from the history."""

    def __init__(
        self,
        history: History,
        sources: Sources,
    ) -> None:
        self._history = history
        self._sources = sources

    def page(self, request: Request) -> tuple[str, dict[str, Any]]:
        """One finding."""
        row = self._history.finding(request.path_params["finding"])
        if row is None:
            raise NotFoundError(
                "There is no finding of this name; it may be older than what is kept."
            )
        finding = finding_of(row)
        seen = TimeRange(row.first_unix_s - _BEFORE_S, row.last_unix_s + 60)
        is_refresh = "x-stanch-live" in request.headers
        # The engine answers several questions side by side.
        with ThreadPoolExecutor(3, "stanch-page") as asking:
            asked_memory = asking.submit(self._history.memory, row.service, seen)
            lives = self._history.lives(row.service, seen)
            life = _life_of(finding, row, lives)
            asked_births = asking.submit(self._births, finding, life)
            asked_growth = asking.submit(self._growth, finding, row, None if is_refresh else life)
            deaths = self._history.deaths(seen, row.service)
            memory, births = asked_memory.result(), asked_births.result()
            flame, lines = asked_growth.result()
        forecast = _forecast(finding, row, memory)
        until_s = seen.until_unix_s
        if forecast is not None:
            ahead_s = (until_s - seen.since_unix_s) * _MOST_AHEAD
            until_s = min(max(until_s, forecast.latest_unix_s), until_s + ahead_s)
        first_s = min((float(one.unix_s[0]) for one in memory), default=seen.since_unix_s)
        within = TimeRange(max(seen.since_unix_s, first_s - 5), until_s)
        marks = marks_of(lives, within, deaths)
        chart = memory_chart(memory, within, marks, f"memory of {row.service}", forecast)
        return "finding.html", {
            "row": row,
            "one": finding,
            "title": finding_title(finding),
            "facts": finding_facts(finding),
            "chart": Markup(chart),
            "has_forecast": forecast is not None,
            "names": sorted({one.life.instance for one in memory}),
            "at": int(row.last_unix_s) + 1,
            "births": births,
            "flame": flame,
            "lines": lines,
            "life": life,
            "paths": _paths(row.retention),
        }

    def _births(self, finding: Finding, life: LifeRow | None) -> Markup | None:
        if life is None or not finding.function:
            return None
        births = self._history.births(life.life, finding.function, finding.file)
        if births is None or not births.live_bytes.any():
            return None
        return Markup(births_chart(births, f"bytes of {finding.function} by time of birth"))

    def _growth(
        self, finding: Finding, row: FindingRow, life: LifeRow | None
    ) -> tuple[Markup | None, list[dict[str, Any]]]:
        """What one life holds last beside what it held first: drawn, and the function's lines."""
        if life is None:
            return None, []
        until_s = min(row.last_unix_s, life.end_unix_s) + 1
        found = self._history.first_and_last(life, TimeRange(life.start_unix_s, until_s))
        if found is None:
            return None, []
        base, new = found
        source = FlameSource(life.instance, new, "its start", base)
        options = FlameOptions(node_fraction=_NODE_FRACTION)
        flame = Markup(flame_graph(flame_json(source, options), quoted(finding.function)))
        return flame, function_lines(new, base, finding.function, self._sources)


def _life_of(finding: Finding, row: FindingRow, lives: Iterable[LifeRow]) -> LifeRow | None:
    """The life that shows the finding best: of its instances, the first to die or the longest."""
    shown = [
        life
        for life in lives
        if life.instance in finding.instances and life.start_unix_s < row.last_unix_s
    ]
    newest_s = max((life.end_unix_s for life in shown), default=0.0)
    return max(
        (life for life in shown if life.end_unix_s > newest_s - 120),
        key=lambda life: (life.instance == finding.first_to_die, -life.start_unix_s),
        default=None,
    )


def _forecast(finding: Finding, row: FindingRow, memory: Sequence[MemorySeries]) -> Forecast | None:
    """The way of the first to die to its limit."""
    if finding.seconds_to_death is None or row.status != "firing":
        return None
    dying = [one for one in memory if one.life.instance == finding.first_to_die]
    if not dying:
        return None
    last = max(dying, key=lambda one: float(one.unix_s[-1]))
    limit_bytes, memory_bytes = float(last.limit_bytes[-1]), float(last.memory_bytes[-1])
    if not (limit_bytes > 0 and memory_bytes > 0):
        return None
    soonest_s, _, latest_s = finding.seconds_to_death
    now_s = row.last_unix_s
    return Forecast(now_s, memory_bytes, limit_bytes, now_s + soonest_s, now_s + latest_s)


def _paths(retention: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """The references of the heaviest path to the root. A target wrote it, so nothing is trusted."""
    steps: list[dict[str, str]] = []
    branches = retention.get("paths") if retention is not None else None
    while isinstance(branches, list) and branches and len(steps) < _MOST_STEPS:
        known = [branch for branch in branches if _is_branch(branch)]
        if not known:
            break
        heaviest: dict[str, Any] = max(known, key=lambda branch: branch["bytes"])
        length = heaviest.get("length")
        steps.append(
            {
                "name": str(heaviest.get("reference") or heaviest.get("type") or "?"),
                "behaviour": str(heaviest.get("behaviour") or ""),
                "entries": f"{length:,} entries" if isinstance(length, int) else "",
            }
        )
        branches = heaviest.get("holds")
    return steps


def _is_branch(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("bytes"), int | float)

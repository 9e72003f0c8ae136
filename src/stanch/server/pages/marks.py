"""What is marked on the time axis of a service: deaths, restarts and releases."""

from collections.abc import Sequence

from stanch.server.pages.charts import Mark
from stanch.store.history import DeathRow, LifeRow, TimeRange

_DEADLY = ("oom", "crash")
_SAME_END_S = 120.0


def marks_of(lives: Sequence[LifeRow], within: TimeRange, deaths: Sequence[DeathRow]) -> list[Mark]:
    """Deaths, restarts that are none of them, and the first life of each release."""
    marks = [
        Mark(row.died_unix_s, "death", f"{row.instance}: {row.document['how']}")
        for row in deaths
        if row.cause in _DEADLY
    ]
    releases: set[str] = set()
    for life in sorted(lives, key=lambda life: life.start_unix_s):
        is_new = life.release and life.release not in releases
        if is_new and releases and life.start_unix_s >= within.since_unix_s:
            marks.append(Mark(life.start_unix_s, "deploy", f"release {life.release}"))
        if life.release:
            releases.add(life.release)
        if life.end not in ("killed", "restarted"):
            continue
        is_told = any(
            row.instance == life.instance
            and abs(row.died_unix_s - life.end_unix_s) < _SAME_END_S
            and row.cause in _DEADLY
            for row in deaths
        )
        if not is_told:
            marks.append(Mark(life.end_unix_s, "restart", f"{life.instance} restarted"))
    return marks

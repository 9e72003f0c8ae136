"""The end of a run in two forms: a table for people and values for scripts."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stanch.detect import Finding, finding_to_dict

from .load.report import LoadMeasure
from .record import Record
from .timeline import duration
from .verdict import Row, Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run that came to its end: what was seen, how it was loaded, and the verdict."""

    fixed: bool
    limits: str
    load: LoadMeasure
    record: Record
    findings: tuple[Finding, ...]
    verdict: Verdict
    recycle: bool = False


def print_outcome(console: Console, outcome: Outcome) -> None:
    """Print the load, the verdict against the truth, and the last word."""
    load = outcome.load
    console.print(
        f"\nLoad: {load.answered_count + load.failed_count:,} requests in "
        f"{duration(load.seconds)}, {load.per_minute:,.0f} a minute; p50 {load.p50_ms:.0f} ms, "
        f"p99 {load.p99_ms:.0f} ms, at most {load.max_ms:,.0f} ms; {load.failed_count:,} failed.",
        soft_wrap=True,
    )
    at_limit = sum(death.at_limit for death in outcome.record.deaths)
    console.print(f"Deaths at the memory limit: {at_limit}. Limits: {outcome.limits}.\n")
    console.print(_alarms_text(outcome.record), soft_wrap=True)
    console.print(_table(outcome.verdict))
    for problem in outcome.verdict.problems:
        console.print(Text(f"MISS: {problem}", style="bold red"), soft_wrap=True)
    console.print(Text(_last_word(outcome), style="bold"), soft_wrap=True)


def outcome_to_dict(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome as JSON-able values; times in seconds since the load began."""
    load = outcome.load
    return {
        "ok": outcome.verdict.ok,
        "fixed": outcome.fixed,
        "limits": outcome.limits,
        "problems": list(outcome.verdict.problems),
        "rows": [asdict(row) for row in outcome.verdict.rows],
        "load": {
            **{name: getattr(load, name) for name in LoadMeasure.__slots__},
            "per_minute": load.per_minute,
        },
        "deaths": [asdict(death) for death in outcome.record.deaths],
        "holdings": [asdict(holding) for holding in outcome.record.holdings],
        "autopsies": [asdict(autopsy) for autopsy in outcome.record.autopsies],
        "written": [asdict(written) for written in outcome.record.written],
        "recycled": [asdict(recycled) for recycled in outcome.record.recycled],
        "told": [asdict(told) for told in outcome.record.told],
        "sightings": [asdict(sighting) for sighting in outcome.record.sightings],
        "findings": [finding_to_dict(finding) for finding in outcome.findings],
    }


def _alarms_text(record: Record) -> str:
    causes = Counter(death.cause for death in record.written)
    ends = ", ".join(f"{count} {cause}" for cause, count in causes.most_common()) or "none"
    foretold = sum(death.was_foretold for death in record.written)
    return (
        f"Ends that Stanch wrote down: {ends}{f'; {foretold} of them foretold' if causes else ''}. "
        f"Alarms: {len(record.told)}, at most one for each leak and stage.\n"
    )


def _table(verdict: Verdict) -> Table:
    table = Table(box=box.ASCII2, title="Verdict against the truth", title_justify="left")
    for heading in ("service", "truth", "Stanch said", "after", "a node lives", "share", ""):
        table.add_column(heading, no_wrap=heading not in ("truth", "Stanch said"))
    for row in verdict.rows:
        table.add_row(*_cells(row), style="" if row.ok else "bold red")
    return table


def _cells(row: Row) -> tuple[Text, ...]:
    life = "" if row.life is None else duration(row.life.seconds)
    if row.life is not None and not row.life.measured:
        life += " (reckoned)"
    cells = (
        row.service,
        row.truth,
        row.named,
        "" if row.at_s is None else duration(row.at_s),
        life,
        "" if row.share is None else f"{row.share:.0%}",
        "OK" if row.ok else "MISS",
    )
    return tuple(Text(cell) for cell in cells)


def _last_word(outcome: Outcome) -> str:
    if not outcome.verdict.ok:
        return f"Not solved: {len(outcome.verdict.problems)} problem(s), see above."
    if outcome.recycle:
        return "Recycled in time: nothing died, no request failed, nobody had to be told."
    if outcome.fixed:
        return "The repaired code: nothing accused, nothing died."
    return "Solved: every leak named in the first half of a node's life, nothing else accused."

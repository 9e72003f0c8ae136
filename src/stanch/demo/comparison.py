"""The incident twice, without recycling and with it: what recycling prevents, and what it costs."""

from dataclasses import dataclass, replace
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from .outcome import Outcome, outcome_to_dict
from .run import DemoOptions, run_demo
from .scenario import RECYCLED
from .timeline import Timeline

LEAST_NODES = 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs of the same load; `recycled` is the one that is judged."""

    plain: Outcome
    recycled: Outcome


def run_comparison(options: DemoOptions, timeline: Timeline) -> Comparison:
    """Run both. DemoError when one cannot be run at all."""
    common = replace(options, scale=RECYCLED, least_nodes=LEAST_NODES)
    timeline.note("First without recycling: nodes die at their limit.")
    plain = run_demo(common, timeline)
    timeline.note("\nThen with it: stanch recycles each node before it dies.")
    return Comparison(plain, run_demo(replace(common, recycle=True), timeline))


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print both side by side."""
    table = Table(box=box.ASCII2, title="Without recycling and with it", title_justify="left")
    for heading in ("", "without", "with"):
        table.add_column(heading, justify="left" if not heading else "right")
    both = [_facts(comparison.plain), _facts(comparison.recycled)]
    for name in both[0]:
        table.add_row(name, *(facts[name] for facts in both))
    console.print()
    console.print(table)


def comparison_to_dict(comparison: Comparison) -> dict[str, Any]:
    """Return both outcomes as JSON-able values."""
    return {
        "ok": comparison.recycled.verdict.ok,
        "plain": outcome_to_dict(comparison.plain),
        "recycled": outcome_to_dict(comparison.recycled),
    }


def _facts(outcome: Outcome) -> dict[str, str]:
    load, record = outcome.load, outcome.record
    done = sum(event.what == "done" for event in record.recycled)
    return {
        "requests": f"{load.answered_count + load.failed_count:,}",
        "failed": f"{load.failed_count:,}",
        "p50": f"{load.p50_ms:.0f} ms",
        "p99": f"{load.p99_ms:,.0f} ms",
        "longest": f"{load.max_ms:,.0f} ms",
        "killed at the limit": f"{sum(death.at_limit for death in record.deaths)}",
        "recycled": f"{done}",
    }

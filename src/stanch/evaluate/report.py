"""The metrics as text: one table of all detectors, then what Stanch did by kind."""

from collections.abc import Iterator
from typing import Any

from stanch.evaluate.metrics import SHARES


def report_lines(report: dict[str, Any]) -> Iterator[str]:
    """The lines to print of what `evaluate` gave."""
    spec = report["spec"]
    yield (
        f"{report['episodes']} episodes, {report['looks']:,} looks, seed {spec['seed']}, "
        f"{report['elapsed_s']:.0f} s"
    )
    yield ""
    heads = "".join(f"{f'{share:.0%}':>6}" for share in SHARES)
    yield f"{'recall by share of time to death':^47}   {'false alarms per service-day':^32}"
    alarms = f"{'number':>8} {'a day':>9} {'upper 95 %':>11}"
    yield f"{'detector':16}{heads}   {alarms}   line  rate error"
    for name, one in report["detectors"].items():
        values = one["recall"] or {}
        shares = "".join(f"{values.get(f'{share:.0%}', 0.0):6.0%}" for share in SHARES)
        yield (
            f"{name:16}{shares}   {one['false_alarms']:8,} {_number(one['false_alarms_per_day'])}"
            f" {_number(one['false_alarms_per_day_upper95'], 11)}"
            f"   {_number(one['line_credit'], 4)}  {_number(one['rate_error'], 8)}"
        )
    for name, one in report["detectors"].items():
        if name == "stanch":
            yield from _details(one)


def _details(one: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield f"stanch: {one['leaks']} leaks, {one['healthy_days']:.0f} healthy service-days"
    for title in ("band", "kind", "history"):
        for key, values in one[f"recall_by_{title}"].items():
            if values:
                shares = "".join(f"{values[f'{share:.0%}']:6.0%}" for share in SHARES)
                yield f"  {title:8} {key:18}{shares}"
    for kind, count in one["false_alarms_by_kind"].items():
        yield f"  false alarms on {kind}: {count}"
    yield f"  false accusations beside a leak: {one['false_beside_leaks']}"
    if (forecast := one["forecast"]) is not None:
        yield (
            f"  forecast: the interval holds the truth in {forecast['coverage']:.0%},"
            f" its width is {forecast['median_width']:.2f} of the time left (median),"
            f" the likely time is off by {forecast['median_error']:.0%} (median)"
        )
    if (brier := one["brier"]) is not None:
        yield f"  Brier score {brier['score']:.3f}"
        for each in brier["reliability"]:
            yield (
                f"    told {each['told']:.2f}, true {each['true']:.2f}"
                f" ({each['episodes']:.1f} episodes)"
            )
    yield "  what it was called in the end:"
    for truth, row in one["confusion"].items():
        called = ", ".join(f"{kind} {count}" for kind, count in sorted(row["called"].items()))
        yield f"    {truth:26} {called}"


def _number(value: float | None, width: int = 9) -> str:
    return f"{'-' if value is None else f'{value:.3f}' if value < 10 else f'{value:.0f}':>{width}}"

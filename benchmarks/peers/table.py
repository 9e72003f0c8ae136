"""The results as one table: a column for each tool, for the terminal or as Markdown."""

from benchmarks.peers.probes import Reach
from benchmarks.peers.results import Result
from benchmarks.peers.sites import PYTHON_SITES, SITES
from benchmarks.peers.tools import CONTROL

WORKLOAD_TITLES = {
    "json": "JSON",
    "churn": "churn",
    "flask": "Flask",
    "numpy": "numpy",
    "threads": "threads",
}
SITE_TITLES = {
    "medium_blocks": "10 MB in 4 KiB",
    "refilled_blocks": "10 MB in 50 B",
    "large_blocks": "100 MB in 1 MiB",
}
DISK_WORKLOAD = "churn"
FAILED = "failed"
AT_ONCE_S = 2.0
WHOLE, PART = 0.8, 0.02  # of what there is, from which on it counts as all, as something
MB = 1 << 20

Row = tuple[str, list[str]]


def rows(results: list[Result], workloads: list[str]) -> list[Row]:
    """Return title and cells of every row; the first row names the tools."""
    control = next((result for result in results if result.tool == CONTROL), None)
    table: list[Row] = [("", [result.tool for result in results])]
    for name in workloads:
        title = f"CPU, {WORKLOAD_TITLES[name]}"
        table.append((title, [_cpu(result, name) for result in results]))
    for name in workloads:
        base = control.peak_bytes(name) if control else None
        plain = f" (plain {base / MB:.0f} MB)" if base else ""
        cells = [_peak(result, name, base) for result in results]
        table.append((f"peak memory, {WORKLOAD_TITLES[name]}{plain}", cells))
    if DISK_WORKLOAD in workloads:
        title = f"files it wrote, {WORKLOAD_TITLES[DISK_WORKLOAD]}"
        table.append((title, [_files(result) for result in results]))
    for site in PYTHON_SITES:
        title = f"error of live bytes, {SITE_TITLES[site]}"
        table.append((title, [_error(result, site) for result in results]))
    for site, title in (("numpy_array", "numpy array"), ("c_structs", "malloc'ed C structs")):
        megabytes = SITES[site].live_bytes // MB
        cells = [_native(result, site) for result in results]
        table.append((f"sees of {megabytes} MB {title}", cells))
    table.append(("live heap from outside", [_live(result) for result in results]))
    table.append(("after SIGKILL", [_killed(result) for result in results]))
    return table


def _cpu(result: Result, workload: str) -> str:
    ratio = result.cpu.get(workload)
    if ratio is None:
        return FAILED
    digits = 3 if ratio.middle < 1.5 else 2 if ratio.middle < 10 else 1
    if ratio.pairs == 1:
        return f"{ratio.middle:.{digits}f}, one run"
    spread = (ratio.high - ratio.low) / 2
    return f"{ratio.middle:.{digits}f} ±{spread:.{digits}f}"


def _peak(result: Result, workload: str, base: int | None) -> str:
    if result.tool == CONTROL:
        return "0"
    peak = result.peak_bytes(workload)
    return FAILED if peak is None or base is None else f"{(peak - base) / MB:+.1f} MB"


def _files(result: Result) -> str:
    if result.tool == CONTROL:
        return "-"
    size = result.file_bytes(DISK_WORKLOAD)
    return FAILED if size is None else f"{size / MB:.1f} MB" if size else "none"


def _error(result: Result, site: str) -> str:
    if result.tool == CONTROL:
        return "-"
    if result.estimates is None:
        return FAILED
    if not any(result.estimates.of_site[site]):
        return "not seen"
    return f"{result.estimates.error(site):.0%}, mean {result.estimates.bias(site):+.0%}"


def _native(result: Result, site: str) -> str:
    if result.tool == CONTROL:
        return "-"
    if result.estimates is None:
        return FAILED
    seen = result.estimates.megabytes(site)
    if seen < PART * SITES[site].live_bytes / MB:
        return "nothing"
    if site == "c_structs" and result.estimates.at_c_function > PART:
        return f"{seen:.0f} MB, at the C function"
    return f"{seen:.0f} MB"


def _live(result: Result) -> str:
    reach = result.reach
    if result.tool == CONTROL:
        return "-"
    if reach is None:
        return FAILED
    if reach.seen_after_s is None:
        never = f"no, not in {reach.waited_s:.0f} s"
        return "no, from inside only" if reach.inside else never
    if reach.seen_after_s <= AT_ONCE_S:
        return f"yes, {reach.seen_after_s:.2f} s"
    return f"no, pushed {reach.seen_after_s:.0f} s later"


def _killed(result: Result) -> str:
    if result.tool == CONTROL:
        return "-"
    if result.reach is None:
        return FAILED
    return _survival(result.reach)


def _survival(reach: Reach) -> str:
    if reach.after_kill >= WHOLE:
        return "yes, to the end"
    if reach.after_kill > PART:
        return f"yes, but {1 - reach.after_kill:.0%} of the end"
    return "only what it had pushed" if reach.earlier > PART else "nothing left"


def markdown(table: list[Row]) -> str:
    """Return the table as Markdown."""
    lines = []
    for number, (title, cells) in enumerate(table):
        lines.append("| " + " | ".join([title, *cells]) + " |")
        if number == 0:
            lines.append("|---" * (len(cells) + 1) + "|")
    return "\n".join(lines)


def text(table: list[Row], columns: int) -> str:
    """Return the table for a terminal: as many tools side by side as fit in `columns`."""
    first = max(len(title) for title, _ in table)
    widths = [max(len(cells[number]) for _, cells in table) for number in range(len(table[0][1]))]
    blocks: list[list[int]] = []
    used = columns
    for number, width in enumerate(widths):
        if used + 2 + width > columns and (not blocks or blocks[-1]):
            blocks.append([])
            used = first
        blocks[-1].append(number)
        used += 2 + width
    return "\n\n".join(
        "\n".join(
            f"{title:{first}}" + "".join(f"  {cells[number]:>{widths[number]}}" for number in block)
            for title, cells in table
        )
        for block in blocks
    )

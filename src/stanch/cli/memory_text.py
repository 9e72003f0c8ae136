"""An account of memory as a table for people; JSON values in, text out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stanch.agent.breakdown import GROUP_SORTS, SORTS, Breakdown, Kind, Sort, from_json
from stanch.profile import format_value

_WORTH_A_NOTE = 0.01
"""Below this share of RSS an overshoot is not worth a line."""

_BAR_FROM_COLUMNS = 104
_BAR_CELLS = 12
_SHORTEST_WHAT = 24
_WORDS = {
    "yes": "yes", "threads": "by threads", "unclear": "unclear", "no": "no", "never": "never",
}  # fmt: skip
_COLOURS = {"yes": "33", "threads": "33", "unclear": "33", "no": "36", "never": "32"}
_COLUMNS: tuple[tuple[str, tuple[Kind, ...]], ...] = (
    ("Python live", ("python_live",)),
    ("free", ("python_free",)),
    ("C code", ("native_live", "malloc_live", "malloc_heap")),
    ("free", ("malloc_free",)),
    ("stacks", ("stacks",)),
    ("shared", ("shared",)),
    ("files", ("file",)),
    ("other", ("other",)),
)


@dataclass(frozen=True, slots=True)
class Style:
    """Width in columns, and whether colours may be used."""

    columns: int
    colour: bool

    def paint(self, text: str, code: str) -> str:
        """Return the text in a colour."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text


def memory_text(document: dict[str, Any], style: Style) -> str:
    """Return the tables: the processes and their sum, and the cgroup."""
    processes = document["processes"]
    accounts = {process["pid"]: from_json(process) for process in processes if "rows" in process}
    lines: list[str] = []
    if len(processes) == 1:
        lines += [style.paint(_name(processes[0], document), "1")]
    else:
        title = _service(processes)
        lines += [style.paint(f"{title}: {len(processes)} processes", "1"), ""]
        lines += _each(processes, accounts, style)
        lines += ["", style.paint("their sum; pages that they share count in each", "1")]
    if not document.get("agent"):
        lines += [style.paint("no agent in this process: /proc tells no more than this", "33")]
    shown = from_json(document["total"]) if "total" in document else None
    shown = shown or next(iter(accounts.values()), None)
    if shown is None:
        lines.append("the kernel does not tell what its memory is made of")
    else:
        lines += ["", *_process_table(shown, style), *_notes(shown)]
    if document.get("cgroup"):
        lines += ["", *_group_table(document["cgroup"], style)]
    return "\n".join(lines)


def _name(process: dict[str, Any], document: dict[str, Any]) -> str:
    python = f", Python {process['python']}" if process.get("python") else ""
    sampling = "" if process.get("sampling") or not document.get("agent") else ", not sampled"
    return f"{process.get('service') or 'process'}, pid {process['pid']}{python}{sampling}"


def _service(processes: list[dict[str, Any]]) -> str:
    return next((each["service"] for each in processes if each.get("service")), "run")


def _size(size: int) -> str:
    return format_value(size, "bytes")


def _process_table(account: Breakdown, style: Style) -> list[str]:
    rows = [
        (SORTS[row.kind], row.bytes, _error(row.error_bytes, row.bytes)) for row in account.rows
    ]
    return _table("memory", rows, account.rss_bytes, "resident (RSS)", style)


def _error(error: int | None, size: int) -> str:
    """Say an error where it matters."""
    if error is None or error < max(size * 0.005, 1 << 16):
        return ""
    return f"±{_size(error)}"


def _table(
    head: str, rows: Iterable[tuple[Sort, int, str]], whole: int, whole_title: str, style: Style
) -> list[str]:
    with_bar = style.columns >= _BAR_FROM_COLUMNS
    bar_head = " " * (_BAR_CELLS + 1) if with_bar else ""
    heading = f"  {head:<25}{'bytes':>10} {'':<10}{'share':>6} {bar_head}{'leak?':<11}"
    lines = [style.paint(heading.rstrip(), "2")]
    for sort, size, error in rows:
        share = size / whole if whole else 0.0
        full = min(round(share * _BAR_CELLS), _BAR_CELLS)
        colour = _COLOURS[sort.leak]
        bar = style.paint("━" * full, colour) + " " * (_BAR_CELLS + 1 - full) if with_bar else ""
        leak = style.paint(f"{_WORDS[sort.leak]:<11}", colour)
        used = 66 + (len(bar_head) if with_bar else 0)
        what = _cut(sort.what, style.columns - used)
        line = f"  {sort.title:<25}{_size(size):>10} {error:<10}{share:6.1%} {bar}{leak}"
        lines.append((line + style.paint(what, "2")).rstrip())
    lines.append(style.paint(f"  {whole_title:<25}{_size(whole):>10}", "1"))
    return lines


def _cut(text: str, columns: int) -> str:
    if len(text) <= columns:
        return text
    return f"{text[: columns - 1]}…" if columns >= _SHORTEST_WHAT else ""


def _notes(account: Breakdown) -> list[str]:
    notes = []
    floor = account.rss_bytes * _WORTH_A_NOTE
    if account.swap_bytes:
        notes.append(f"{_size(account.swap_bytes)} more is swapped out, in no row")
    if account.untouched_bytes > floor:
        notes.append(
            f"{_size(account.untouched_bytes)} more was asked of malloc and never touched,"
            " or swapped out"
        )
    if account.overshoot_bytes > floor:
        notes.append(
            f"the estimates claim {_size(account.overshoot_bytes)} more than there is:"
            " rows are cut to fit"
        )
    return [f"  {note}" for note in notes]


def _each(
    processes: list[dict[str, Any]], accounts: dict[int, Breakdown], style: Style
) -> list[str]:
    heads = "".join(f"{name:>12}" for name, _ in _COLUMNS)
    lines = [style.paint(f"{'pid':>9}{'RSS':>12}{heads}", "2")]
    for process in processes:
        account = accounts.get(process["pid"])
        if account is None:
            lines.append(f"{process['pid']:>9}  did not answer")
            continue
        sizes = {row.kind: row.bytes for row in account.rows}
        cells = [
            _size(sum(sizes.get(kind, 0) for kind in kinds))
            if any(kind in sizes for kind in kinds)
            else "-"
            for _, kinds in _COLUMNS
        ]
        row = "".join(f"{cell:>12}" for cell in cells)
        lines.append(f"{process['pid']:>9}{_size(account.rss_bytes):>12}{row}")
    return lines


def _group_table(group: dict[str, Any], style: Style) -> list[str]:
    rows = [
        (GROUP_SORTS[row["kind"]], int(row["bytes"]), "")
        for row in group["rows"]
        if row["kind"] in GROUP_SORTS
    ]
    usage = group.get("usage_bytes") or sum(size for _, size, _ in rows)
    limit = group.get("limit_bytes")
    title = f"the cgroup (v{group['version']}), {'limit ' + _size(limit) if limit else 'no limit'}"
    lines = [style.paint(title, "1"), "", *_table("memory", rows, usage, "usage", style)]
    facts = []
    working_set, inactive = group.get("working_set_bytes"), group.get("inactive_file_bytes")
    if working_set is not None:
        text = style.paint(f"  {'working set':<25}{_size(working_set):>10}", "1")
        if inactive:
            text += f"  without {_size(inactive)} of inactive page cache"
        lines.append(text)
        if limit:
            facts.append(f"working set at {working_set / limit:.1%} of the limit")
    if group.get("peak_bytes"):
        facts.append(f"peak {_size(group['peak_bytes'])}")
    if group.get("oom_kills"):
        facts.append(f"{group['oom_kills']} killed by the OOM killer")
    return lines + [f"  {fact}" for fact in facts]

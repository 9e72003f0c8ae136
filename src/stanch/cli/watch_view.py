"""A watch on a terminal: a table of the targets, and beneath it the findings in plain words.

Laid out for 80 columns and up. The picture never outgrows the terminal: the gravest targets and
findings stay, and a line tells how many are left out.
"""

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stanch.deaths.telling import death_title
from stanch.detect import (
    LEAKS,
    STAGES,
    Finding,
    finding_facts,
    finding_title,
    size_text,
    time_text,
)
from stanch.server.watch import TargetRow, WatchState

_WIDE = 112
_STACK_FRAMES = 6
_TROUBLES = 4
_STAGE_STYLES = {"confirmed": "bold red", "probable": "yellow", "suspect": "cyan"}


class LiveView:
    """Draws each state in place; at the end the last picture stays with a summary beneath."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._targets = 0
        self._every_s = 0.0

    def start(self, targets: int, every_s: float) -> None:
        """Begin to draw."""
        self._targets, self._every_s = targets, every_s
        self._live.start()
        self._live.update(Text(f"stanch watch: asking {targets} targets...", "dim"), refresh=True)

    def show(self, state: WatchState) -> None:
        """Draw one state."""
        size = self._console.size
        self._live.update(picture(state, self._every_s, size.width, size.height), refresh=True)

    def end(self, state: WatchState | None, confirmed: int) -> None:
        """Leave the last picture, unabridged, and say the result."""
        if state is not None:
            self._live.update(picture(state, self._every_s, self._console.width, None))
        self._live.stop()
        result = f"{confirmed} confirmed" if confirmed else "nothing confirmed"
        self._console.print(Text(f"Ended: {result}.", "bold red" if confirmed else "bold"))


def picture(state: WatchState, every_s: float, width: int, height: int | None) -> RenderableType:
    """The whole view of a state; height: the lines there are, None for as many as it takes."""
    rows_room = len(state.rows) if height is None else max(3, (height - 4) // 2)
    findings = sorted(state.findings, key=_gravity)
    lines_left = None if height is None else height - min(rows_room, len(state.rows)) - 5
    parts: list[RenderableType] = [_head(state, every_s), _table(state, width, rows_room)]
    if len(state.rows) > rows_room:
        parts.append(Text(f"  and {len(state.rows) - rows_room} more targets", "dim"))
    parts += [
        Text(note, "yellow", no_wrap=True, overflow="ellipsis") for note in state.notes[-_TROUBLES:]
    ]
    parts += [
        Text(f"ended: {death_title(death)}", "bold red", no_wrap=True, overflow="ellipsis")
        for death in state.deaths[-_TROUBLES:]
    ]
    troubles = [f"{row.instance}: {row.error}" for row in state.rows if row.error]
    if state.source_error:
        troubles.insert(0, state.source_error)
    parts += [
        Text(trouble, "red", no_wrap=True, overflow="ellipsis") for trouble in troubles[:_TROUBLES]
    ]
    if len(troubles) > _TROUBLES:
        parts.append(Text(f"  and {len(troubles) - _TROUBLES} more errors", "dim"))
    if lines_left is not None:
        lines_left -= min(len(troubles), _TROUBLES + 1) + min(len(state.deaths), _TROUBLES)
        lines_left -= min(len(state.notes), _TROUBLES)
    for number, finding in enumerate(findings):
        block = _finding(finding, width)
        needs = _lines_of(block, width)
        if lines_left is not None and needs > lines_left:
            parts.append(Text(f"and {len(findings) - number} more findings", "dim"))
            break
        if lines_left is not None:
            lines_left -= needs
        parts.append(block)
    return Group(*parts)


def _head(state: WatchState, every_s: float) -> Text:
    confirmed = len(state.confirmed)
    text = Text("stanch watch", "bold")
    text.append(f"  {len(state.rows)} targets, every {every_s:g} s,", "dim")
    text.append(f" {_clock(state.elapsed_s)}", "dim")
    text.append("  ")
    if confirmed:
        text.append(f"{confirmed} confirmed", "bold red")
    else:
        text.append("nothing confirmed", "green")
    return text


def _table(state: WatchState, width: int, room: int) -> Table:
    wide = width >= _WIDE
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    if wide:
        table.add_column("service", no_wrap=True, max_width=24)
        table.add_column("instance", no_wrap=True, max_width=36)
    else:
        table.add_column("target", no_wrap=True, width=max(16, width - 58))
    table.add_column("memory", no_wrap=True, width=32 if wide else 22)
    table.add_column("growth", justify="right", no_wrap=True, width=10)
    table.add_column("limit in", justify="right", no_wrap=True, width=24 if wide else 8)
    table.add_column("verdict", no_wrap=True, width=24 if wide else 14)
    for row in sorted(state.rows, key=_urgency)[:room]:
        names = [Text(row.service), Text(row.instance)] if wide else [_target(row)]
        cells = (_memory(row, wide), _growth(row), _death(row, wide), _verdict(row, wide))
        table.add_row(*names, *cells)
    return table


def _target(row: TargetRow) -> Text:
    if row.instance == row.service:
        return Text(row.instance)
    return Text.assemble(row.service, " ", (row.instance, "dim"))


def _memory(row: TargetRow, wide: bool) -> Text:
    if row.memory_bytes is None:
        return Text("-", "dim")
    if not row.limit_bytes:
        return Text(f"{size_text(row.memory_bytes)}, no limit")
    share = min(1.0, row.memory_bytes / row.limit_bytes)
    cells = 16 if wide else 6
    full = round(share * cells)
    style = "red" if share >= 0.85 else "yellow" if share >= 0.6 else "green"
    text = Text("━" * full, style)
    text.append("─" * (cells - full), "bright_black")
    text.append(f" {_of(row.memory_bytes, row.limit_bytes)}")
    return text


def _of(memory_bytes: float, limit_bytes: float) -> str:
    memory, limit = size_text(memory_bytes), size_text(limit_bytes)
    if memory.split()[1] == limit.split()[1]:
        memory = memory.split()[0]
    return f"{memory} / {limit}"


def _growth(row: TargetRow) -> Text:
    rate = row.growth_bytes_per_second
    if rate is None or row.memory_bytes is None or abs(rate) < row.memory_bytes * 1e-6:
        return Text("-", "dim")
    return Text(f"{size_text(rate)}/s")


def _death(row: TargetRow, wide: bool) -> Text:
    if row.seconds_to_death is None:
        return Text("-", "dim")
    soonest, likely, latest = (time_text(seconds) for seconds in row.seconds_to_death)
    return Text(f"{likely} ({soonest} to {latest})" if wide else likely)


def _verdict(row: TargetRow, wide: bool) -> Text:
    if row.verdict == "down":
        return Text("down", "bold red")
    if row.verdict in LEAKS:
        return Text(row.verdict.upper(), "bold red")
    stage, _, kind = row.verdict.partition(" ")
    if stage in STAGES:
        return Text(row.verdict if wide else f"{kind}?", "yellow")
    return Text(row.verdict, "dim" if row.verdict in ("starting", "unknown") else "green")


def _finding(finding: Finding, width: int) -> RenderableType:
    style = _STAGE_STYLES[finding.stage] if finding.kind in LEAKS else "green"
    parts: list[RenderableType] = [Text(f"\n{finding_title(finding)}", style)]
    if finding.kind not in LEAKS or finding.stage == "suspect":
        parts.append(Padding(Text(finding.evidence[0], "dim"), (0, 0, 0, 2)))
        return Group(*parts)
    parts.append(Padding(Text(finding_facts(finding)), (0, 0, 0, 2)))
    parts.append(Padding(Text(" ".join(finding.evidence), "dim"), (0, 0, 0, 2)))
    for frame in finding.stack[:_STACK_FRAMES]:
        line = Text(f"at {frame}", "cyan", no_wrap=True, overflow="ellipsis")
        parts.append(Padding(line, (0, 0, 0, 4)))
    return Group(*parts)


def _lines_of(block: RenderableType, width: int) -> int:
    console = Console(width=width, file=None)
    return len(console.render_lines(block))


def _gravity(finding: Finding) -> tuple[bool, int, float]:
    return (finding.kind not in LEAKS, -STAGES.index(finding.stage), -finding.grown_bytes)


def _urgency(row: TargetRow) -> tuple[bool, str, str]:
    """The order of targets: those that leak first, then by name, so that rows stay in place."""
    return (not row.verdict.endswith(LEAKS), row.service, row.instance)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

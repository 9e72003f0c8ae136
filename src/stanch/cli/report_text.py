"""Reports in plain text, laid out as `go tool pprof` does: top, tree, peek and tags.

Each function gives the whole text without a newline at its end. Names come from the profile, which
somebody else wrote: control characters in them are shown, not sent to the terminal.
"""

import posixpath
import time
from collections.abc import Iterable, Sequence
from re import Pattern

from stanch.cli.errors import CliError
from stanch.cli.report_view import (
    Report,
    ReportOptions,
    ValueFormat,
    graph_of,
    prepare,
    value_format,
    value_type,
)
from stanch.profile import (
    CallGraph,
    Edge,
    Granularity,
    GraphNode,
    Profile,
    Trim,
    format_percentage,
    format_value,
    heaviest,
    scale_value,
    tag_totals,
)

_RULE = "-" * 58 + "+" + "-" * 13
_CONTROL_CHARACTERS = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x09
}


def top_text(
    profile: Profile, *, nodecount: int = 0, granularity: str = Granularity.FUNCTIONS
) -> str:
    """Write the default `top` of a profile: its default sample type, without a filter.

    nodecount: how many lines at most, 0 for all that are not negligible. granularity: as pprof's.
    """
    options = ReportOptions(
        granularity=Granularity(granularity),
        trim=Trim(node_count=nodecount, node_fraction=0.005),
    )
    return top(prepare(profile, options))


def top(report: Report) -> str:
    """List frames by their own value, or by cum where the options say so, the largest first."""
    graph = graph_of(report)
    form = _format_of(report, graph)
    lines = _header(report, graph, form)
    lines.append(f"{'flat':>10} {'flat%':>6} {'sum%':>6} {'cum':>10} {'cum%':>6}")
    shown = 0
    for node in graph.nodes:
        shown += node.flat
        lines.append(f"{_numbers(node, shown, form)}  {node.label}{_inline_note(node)}")
    return printable(lines)


def tree(report: Report) -> str:
    """List frames as `top` does, each between its callers and its callees."""
    graph = graph_of(report)
    form = _format_of(report, graph)
    return printable([*_header(report, graph, form), *_tree_lines(graph.nodes, form)])


def peek(report: Report, expression: Pattern[str]) -> str:
    """List the frames that match `expression` with all their callers and callees.

    Raises CliError when none matches.
    """
    graph = graph_of(report)
    form = _format_of(report, graph)
    nodes = [node for node in graph.nodes if expression.search(node.label)]
    if not nodes:
        raise no_match(expression)
    return printable([*_header(report, graph, form), *_tree_lines(nodes, form)])


def tags(report: Report) -> str:
    """List what each value of each label holds, the largest first, as many as Trim.node_count.

    What has no such label is a line of its own, so the lines of a label add up to the total.
    Raises CliError when no sample has a label.
    """
    found = tag_totals(report.profile, report.index)
    if not found:
        raise CliError(
            f"no sample of {value_type(report).type} has a label; "
            "expected a heap profile of Stanch, whose inuse types have some"
        )
    form = value_format(report, [value for tag in found for _, value in tag.totals])
    lines = _profile_lines(report, form)
    if active := _active_filters(report):
        lines += ["Active filters:", *(f"   {each[:80]}" for each in active)]
    count = report.options.trim.node_count
    for tag in found:
        shown = tag.totals[:count] if count else tag.totals
        lines.append(
            f"{tag.key}: Total {form.value(tag.total)} of {form.value(report.total)}"
            f" ({form.percentage(tag.total).strip()})"
        )
        lines += [_tag_line(value, text, form) for text, value in shown]
        if rest := sum(value for _, value in tag.totals[len(shown) :]):
            more = len(tag.totals) - len(shown)
            lines.append(_tag_line(rest, f"[{more} others; -nodecount 0 shows all]", form))
        if tag.without:
            lines.append(_tag_line(tag.without, f"[no {tag.key}]", form))
    return printable(lines)


def _tag_line(value: int, text: str, form: ValueFormat) -> str:
    return f"{form.value(value):>10} {form.percentage(value)}  {text}"


def no_match(expression: Pattern[str]) -> CliError:
    """Say that an expression matches no function of the profile."""
    return CliError(
        f"no function of the profile matches {expression.pattern!r};"
        " expected a part of a name as `stanch top` shows them"
    )


def printable(lines: Iterable[str]) -> str:
    """Join lines into text in which no control character but the tab and the newline is left."""
    return "\n".join(line.translate(_CONTROL_CHARACTERS).rstrip() for line in lines)


def _format_of(report: Report, graph: CallGraph) -> ValueFormat:
    return value_format(report, [node.flat or node.cum for node in graph.nodes])


def _header(report: Report, graph: CallGraph, form: ValueFormat) -> list[str]:
    lines = _profile_lines(report, form)
    active = _active_filters(report)
    if active:
        lines += ["Active filters:", *(f"   {each[:80]}" for each in active)]
    accounted = sum(node.flat for node in graph.nodes)
    lines.append(
        f"Showing nodes accounting for {form.value(accounted)},"
        f" {form.percentage(accounted).strip()} of {form.value(report.total)} total"
    )
    if graph.dropped and report.total:
        cutoff = abs(int(report.total * report.options.trim.node_fraction))
        plural = "s" if graph.dropped > 1 else ""
        lines.append(f"Dropped {graph.dropped} node{plural} (cum <= {form.value(cutoff)})")
    if 0 < len(graph.nodes) < graph.kept and report.total:
        lines.append(f"Showing top {len(graph.nodes)} nodes out of {graph.kept}")
    return lines


def _profile_lines(report: Report, form: ValueFormat) -> list[str]:
    """What the profile says about itself."""
    profile = report.profile
    lines = []
    if profile.mappings:
        binary = profile.mappings[0]
        if binary.file:
            lines.append(f"File: {posixpath.basename(binary.file)}")
        if binary.build_id:
            lines.append(f"Build ID: {binary.build_id}")
    lines += [comment for comment in profile.comments if not comment.startswith("#")]
    lines.append(f"Type: {value_type(report).type}")
    if profile.doc_url:
        lines.append(f"Doc: {profile.doc_url}")
    if profile.time_nanos:
        lines.append(f"Time: {_clock(profile.time_nanos)}")
    if profile.duration_nanos:
        lines.append(_duration_line(report, form))
    return lines


def _duration_line(report: Report, form: ValueFormat) -> str:
    duration = report.profile.duration_nanos
    nanoseconds, symbol = scale_value(report.total, form.unit, "nanoseconds")
    share = ""
    if symbol == "ns" and nanoseconds:
        share = f" ({format_percentage(int(nanoseconds), duration)})"
    return (
        f"Duration: {format_value(duration, 'nanoseconds')},"
        f" Total samples = {form.value(report.total)}{share}"
    )


def _clock(time_nanos: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(time_nanos // 10**9))
    except (OverflowError, ValueError, OSError):
        return f"{time_nanos} ns since 1970"


def _active_filters(report: Report) -> list[str]:
    filters = report.options.filters
    named = {
        "focus": filters.focus,
        "ignore": filters.ignore,
        "hide": filters.hide,
        "show": filters.show,
    }
    active = [f"{name}={rx.pattern}" for name, rx in named.items() if rx is not None]
    tags = {
        "tagfocus": filters.tagfocus,
        "tagignore": filters.tagignore,
        "tagroot": ",".join(filters.tagroot),
    }
    return active + [f"{name}={by}" for name, by in tags.items() if by]


def _numbers(node: GraphNode, shown: int, form: ValueFormat) -> str:
    return (
        f"{form.value(node.flat):>10} {form.percentage(node.flat)} {form.percentage(shown)}"
        f" {form.value(node.cum):>10} {form.percentage(node.cum)}"
    )


def _inline_note(node: GraphNode) -> str:
    inlined = [edge.inlined for edge in node.callers.values()]
    if not any(inlined):
        return ""
    return " (inline)" if all(inlined) else " (partial-inline)"


def _tree_lines(nodes: Sequence[GraphNode], form: ValueFormat) -> list[str]:
    lines = [_RULE, "      flat  flat%   sum%        cum   cum%   calls calls% + context"]
    shown = 0
    for node in nodes:
        shown += node.flat
        lines.append(_RULE)
        lines += [
            _edge_line(edge, edge.caller, node, form) for edge in heaviest(node.callers.values())
        ]
        lines.append(f"{_numbers(node, shown, form)}                | {node.label}")
        lines += [
            _edge_line(edge, edge.callee, node, form) for edge in heaviest(node.callees.values())
        ]
    return [*lines, _RULE] if nodes else lines


def _edge_line(edge: Edge, other: GraphNode, node: GraphNode, form: ValueFormat) -> str:
    share = format_percentage(edge.weight, node.cum)
    inline = " (inline)" if edge.inlined else ""
    return f"{form.value(edge.weight):>50} {share} |   {other.label}{inline}"

"""`stanch list`: the source of functions, each line with what it holds itself and with its calls.

Where the source is not on this machine, the lines that have values are listed without their text.
"""

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from re import Pattern

from stanch.cli.report_text import no_match, printable
from stanch.cli.report_view import Report, ValueFormat, graph_of, value_format
from stanch.profile import Granularity, GraphNode, Profile, Trim

_MARGIN_LINES = 5
_MAX_SOURCE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SourceSearch:
    """Where to look for source. trim_prefixes: beginnings to cut off the profile's file names."""

    directories: tuple[Path, ...]
    trim_prefixes: tuple[str, ...] = ()


def list_source(report: Report, expression: Pattern[str], search: SourceSearch) -> str:
    """Write the annotated source of the functions whose name matches `expression`.

    Raises CliError when none does.
    """
    # By function, cum counts a recursive call once; by line, each line has its own.
    functions = _matching(_at(report, Granularity.FILEFUNCTIONS), expression)
    if not functions:
        raise no_match(expression)
    by_line = _matching(_at(report, Granularity.LINES), expression)
    form = value_format(report, [node.flat or node.cum for node in by_line])
    starts = _start_lines(report.profile)
    lines = [f"Total: {form.value(report.total)}"]
    for function in sorted(functions, key=lambda node: (node.frame.name, node.frame.file)):
        name, file = function.frame.name, function.frame.file
        rows = [n for n in by_line if (n.frame.name, n.frame.file) == (name, file)]
        lines.append(f"ROUTINE ======================== {name} in {file or '<unknown file>'}")
        lines.append(
            f"{form.value(function.flat):>10} {form.value(function.cum):>10} (flat, cum)"
            f" {form.percentage(function.cum)} of Total"
        )
        lines += _annotated(rows, starts.get((name, file), 0), file, search, form)
    return printable(lines)


def _at(report: Report, granularity: Granularity) -> Sequence[GraphNode]:
    options = replace(report.options, granularity=granularity, trim=Trim())
    return graph_of(replace(report, options=options)).nodes


def _matching(nodes: Iterable[GraphNode], expression: Pattern[str]) -> list[GraphNode]:
    return [node for node in nodes if expression.search(node.frame.name)]


def _start_lines(profile: Profile) -> dict[tuple[str, str], int]:
    """Give the first line of each function, by name and file, where the profile knows it."""
    starts: dict[tuple[str, str], int] = {}
    locations = {id(each): each for sample in profile.samples for each in sample.locations}
    for location in locations.values():
        for line in location.lines:
            function = line.function
            if 0 < function.start_line <= line.line:
                key = (function.name, os.path.normpath(function.filename))
                starts[key] = min(function.start_line, starts.get(key, function.start_line))
    return starts


def _annotated(
    rows: Sequence[GraphNode], start: int, file: str, search: SourceSearch, form: ValueFormat
) -> list[str]:
    values = {node.frame.line: node for node in rows}
    source, problem = _read_source(file, search)
    if problem:
        known = [_row(values[number], number, "", form) for number in sorted(values)]
        return [f" {problem}", *known]
    first = start or min(values) - _MARGIN_LINES
    numbers = range(max(first, 1), min(max(values) + _MARGIN_LINES, len(source)) + 1)
    listed = [_row(values.get(number), number, source[number - 1], form) for number in numbers]
    beyond = [number for number in sorted(values) if number > len(source)]
    if beyond:
        listed.append(
            f" The source found has {len(source)} lines, so it is another version:"
            f" the profile has values up to line {beyond[-1]}."
        )
    return listed


def _row(node: GraphNode | None, number: int, text: str, form: ValueFormat) -> str:
    flat = form.value(node.flat) if node and node.flat else "."
    cum = form.value(node.cum) if node and node.cum else "."
    return f"{flat:>10} {cum:>10} {number:>6}:{text}"


def _read_source(file: str, search: SourceSearch) -> tuple[list[str], str]:
    """Give the lines of a source file, or else a sentence on why there are none."""
    if not file:
        return [], "The profile does not tell the file."
    for path in _candidates(file, search):
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_SOURCE_BYTES:
                continue
            return path.read_text("utf-8", "replace").splitlines(), ""
        except (OSError, ValueError):
            continue  # not this one; the sentence below says that there was none
    where = ", ".join(str(directory) for directory in search.directories)
    return [], f"No source file {file} here or below {where}; name its directory by -source_path."


def _candidates(file: str, search: SourceSearch) -> Iterable[Path]:
    """Give the paths to try: the name as it is, then ever shorter ends of it in each directory."""
    for prefix in search.trim_prefixes:
        file = file.removeprefix(prefix.rstrip("/") + "/")
    path = PurePosixPath(file)
    if path.is_absolute():
        yield Path(path)
    parts = path.relative_to("/").parts if path.is_absolute() else path.parts
    for directory in search.directories:
        for skipped in range(len(parts)):
            yield directory.joinpath(*parts[skipped:])

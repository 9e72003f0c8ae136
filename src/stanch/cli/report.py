"""Reports on profiles: `stanch top`, `tree`, `tags`, `diff`, `peek`, `list` and `flame`.

This is their face: it reads arguments, loads profiles and prints. What a report says is made in
report_text, report_source and stanch.flame.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from stanch.cli.errors import CliError
from stanch.cli.profile_source import load
from stanch.cli.report_arguments import (
    add_base_options,
    add_granularity_options,
    add_option,
    add_selection_options,
    add_source_options,
    add_table_options,
    add_unit_option,
    compile_expression,
    count,
    fetch_options,
    fraction,
    report_options,
    table_trim,
)
from stanch.cli.report_source import SourceSearch, list_source
from stanch.cli.report_text import peek, tags, top, tree
from stanch.cli.report_view import Report, ReportOptions, prepare
from stanch.flame import FlameOptions, FlameSource, flame_page
from stanch.profile import (
    Granularity,
    Profile,
    ProfileError,
    Trim,
    apply_filters,
    diff,
    require_same_types,
)

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_SOURCE_HELP = "a profile: FILE, http(s)://HOST:PORT[/PATH] or unix:SOCKET[/PATH]"
_TREE_NODES = 80  # as in pprof
_TAG_VALUES = 20


def register(subparsers: "Subparsers") -> None:
    """Add the commands; each sets `run`, a function of the arguments that gives the exit code."""
    top_parser = _add(subparsers, "top", "list what holds most", _run_top)
    _add_sources(top_parser)
    _add_base_and_unit(top_parser)
    add_table_options(top_parser)

    tree_parser = _add(subparsers, "tree", "list what holds most, with callers", _run_tree)
    _add_sources(tree_parser)
    _add_base_and_unit(tree_parser)
    add_table_options(tree_parser)

    tags_parser = _add(subparsers, "tags", "list what each route and thread holds", _run_tags)
    _add_sources(tags_parser)
    _add_base_and_unit(tags_parser)
    add_option(
        tags_parser,
        "nodecount",
        "how many values of a label at most; 0: all (%(default)d)",
        type=count,
        metavar="N",
        default=_TAG_VALUES,
    )

    diff_parser = _add(subparsers, "diff", "list what grew and shrank", _run_diff)
    diff_parser.add_argument("old", metavar="OLD", help=_SOURCE_HELP)
    diff_parser.add_argument("new", metavar="NEW", help="likewise; percentages are of OLD")
    add_unit_option(diff_parser)
    add_table_options(diff_parser)

    peek_parser = _add(subparsers, "peek", "show all callers and callees of functions", _run_peek)
    peek_parser.add_argument("regex", metavar="REGEX", help="part of the functions' names")
    _add_sources(peek_parser)
    _add_base_and_unit(peek_parser)
    add_granularity_options(peek_parser)

    list_parser = _add(subparsers, "list", "show source with each line's share", _run_list)
    list_parser.add_argument("regex", metavar="REGEX", help="part of the functions' names")
    _add_sources(list_parser)
    _add_base_and_unit(list_parser)
    _add_search_options(list_parser)

    flame_parser = _add(subparsers, "flame", "draw a flame graph as one HTML page", _run_flame)
    _add_sources(flame_parser)
    _add_flame_options(flame_parser)


def _add(
    subparsers: "Subparsers", name: str, what: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    description = f"{what[0].upper()}{what[1:]}."
    parser = subparsers.add_parser(name, help=what, description=description, allow_abbrev=False)
    add_selection_options(parser)
    add_source_options(parser)
    parser.set_defaults(run=run)
    return parser


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", nargs="+", help=f"{_SOURCE_HELP}; several add")


def _add_base_and_unit(parser: argparse.ArgumentParser) -> None:
    add_base_options(parser)
    add_unit_option(parser)


def _add_search_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where the source is")
    add_option(
        group,
        "source_path",
        f"directories to search, separated by {os.pathsep!r} (the current one)",
        metavar="DIRS",
        default=".",
    )
    add_option(
        group,
        "trim_path",
        f"beginnings to cut off file names, separated by {os.pathsep!r}",
        metavar="PATHS",
        default="",
    )


def _add_flame_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", metavar="FILE.html", type=Path, required=True, help="where to write"
    )
    parser.add_argument(
        *("-base", "--base", "-diff_base", "--diff_base"),
        metavar="SOURCE",
        help="compare with this profile: what grew is red, what shrank is blue",
    )
    group = parser.add_argument_group("how to draw")
    add_granularity_options(group, Granularity.FILEFUNCTIONS)
    add_option(
        group,
        "nodefraction",
        "put frames below this part of the total together (%(default)g)",
        type=fraction,
        metavar="F",
        default=0.0005,
    )


def _run_top(arguments: argparse.Namespace) -> int:
    options = _table_options(arguments, default_count=0)
    profile, base = _load_with_base(arguments)
    return _print(top(_prepare(profile, options, base)))


def _run_tree(arguments: argparse.Namespace) -> int:
    options = _table_options(arguments, default_count=_TREE_NODES)
    profile, base = _load_with_base(arguments)
    return _print(tree(_prepare(profile, options, base)))


def _run_tags(arguments: argparse.Namespace) -> int:
    options = report_options(arguments, trim=Trim(node_count=arguments.nodecount))
    profile, base = _load_with_base(arguments)
    return _print(tags(_prepare(profile, options, base)))


def _run_diff(arguments: argparse.Namespace) -> int:
    options = _table_options(arguments, default_count=0)
    fetch = fetch_options(arguments)
    old, new = load([arguments.old], fetch), load([arguments.new], fetch)
    return _print(top(_prepare(_diff(old, new), options, old)))


def _run_peek(arguments: argparse.Namespace) -> int:
    expression = compile_expression(arguments.regex, "REGEX")
    options = report_options(arguments, granularity=arguments.granularity)
    profile, base = _load_with_base(arguments)
    return _print(peek(_prepare(profile, options, base), expression))


def _run_list(arguments: argparse.Namespace) -> int:
    expression = compile_expression(arguments.regex, "REGEX")
    options = report_options(arguments)
    search = SourceSearch(
        tuple(Path(each) for each in arguments.source_path.split(os.pathsep) if each),
        tuple(each for each in arguments.trim_path.split(os.pathsep) if each),
    )
    profile, base = _load_with_base(arguments)
    return _print(list_source(_prepare(profile, options, base), expression, search))


def _run_flame(arguments: argparse.Namespace) -> int:
    report = report_options(arguments, granularity=arguments.granularity)
    options = FlameOptions(
        report.sample_index, report.granularity, arguments.nodefraction, report.filters
    )
    fetch = fetch_options(arguments)
    new = load(arguments.source, fetch)
    old = load([arguments.base], fetch) if arguments.base else None
    if old is not None:
        _refuse_other_kind(old, new)
    _warn_of_idle(apply_filters(new, options.filters).idle)
    name = ", ".join(arguments.source)
    try:
        page = flame_page(FlameSource(name, new, arguments.base or "", old), options)
    except ProfileError as error:
        raise CliError(str(error), 2) from error
    try:
        # A file name on Linux need not be Unicode, and it is the page's title.
        arguments.output.write_text(page, "utf-8", "backslashreplace")
    except OSError as error:
        raise CliError(f"cannot write {arguments.output}: {error.strerror}") from error
    return _print(f"wrote {arguments.output} ({len(page) / 1024:,.0f} kB); open it in a browser")


def _table_options(arguments: argparse.Namespace, default_count: int) -> ReportOptions:
    return report_options(
        arguments,
        granularity=arguments.granularity,
        by_cum=arguments.cum,
        trim=table_trim(arguments, default_count),
    )


def _load_with_base(arguments: argparse.Namespace) -> tuple[Profile, Profile | None]:
    """Load the sources less their base; give the base too where it is what 100 % means."""
    fetch = fetch_options(arguments)
    profile = load(arguments.source, fetch)
    if arguments.base:
        return _diff(load([arguments.base], fetch), profile), None
    if arguments.diff_base:
        base = load([arguments.diff_base], fetch)
        return _diff(base, profile), base
    return profile, None


def _diff(old: Profile, new: Profile) -> Profile:
    _refuse_other_kind(old, new)
    return diff(old, new)


def _refuse_other_kind(old: Profile, new: Profile) -> None:
    try:
        require_same_types(old, new)
    except ProfileError as error:
        raise CliError(f"cannot compare: {error}") from error


def _prepare(profile: Profile, options: ReportOptions, base: Profile | None) -> Report:
    try:
        report = prepare(profile, options, base)
    except ProfileError as error:
        raise CliError(str(error), 2) from error
    _warn_of_idle(report.idle_filters)
    return report


def _warn_of_idle(filters: Iterable[str]) -> None:
    """Say which filters matched nothing, so that a typo does not pass for an answer."""
    for name in filters:
        what = "label" if name.startswith("tag") else "frame"
        print(f"stanch: -{name} matched no {what}", file=sys.stderr)


def _print(text: str) -> int:
    """Print, with backslashes for what the terminal's encoding cannot show; the exit code is 0."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    print(text)
    return 0

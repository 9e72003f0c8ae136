"""The reports' options: pprof's own names, with one dash or two, and what they turn into."""

import argparse
import math
import re
from collections.abc import Callable
from re import Pattern
from typing import Any, TypeVar

from stanch.cli.errors import CliError
from stanch.cli.profile_source import FetchOptions
from stanch.cli.report_view import ReportOptions
from stanch.profile import Filters, Granularity, TagFilter, Trim

_USAGE = 2
_Number = TypeVar("_Number", int, float)
_SUITABLE_UNIT = "minimum"
_FRAMES = {
    Granularity.FUNCTIONS: "one frame for each function name",
    Granularity.FILEFUNCTIONS: "one frame for each function, told apart by file",
    Granularity.FILES: "one frame for each file",
    Granularity.LINES: "one frame for each line",
}
# pprof's shorthands for -sample_index.
_SAMPLE_TYPES = {
    "inuse_space": "inuse_space",
    "inuse_objects": "inuse_objects",
    "alloc_space": "alloc_space",
    "alloc_objects": "alloc_objects",
    "total_delay": "delay",
    "contentions": "contentions",
}


def add_option(parser: argparse._ActionsContainer, name: str, what: str, **settings: Any) -> None:
    """Add one option as -name and --name. what: its help. `settings` are add_argument's."""
    parser.add_argument(f"-{name}", f"--{name}", help=what, **settings)


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add how to get profiles that are URLs."""
    group = parser.add_argument_group("asking a URL")
    group.add_argument("--token-file", metavar="FILE", help="token to send, kept in a file")
    group.add_argument("--ca-file", metavar="FILE", help="certificates to trust for https")
    add_option(
        group,
        "seconds",
        "collect for so long: a CPU profile, or what the heap gained",
        type=_positive_int,
        metavar="N",
    )
    add_option(
        group,
        "timeout",
        "wait so many seconds for an answer (%(default)g)",
        type=_positive_float,
        metavar="S",
        default=FetchOptions().timeout_s,
    )


def add_selection_options(parser: argparse.ArgumentParser) -> None:
    """Add what a report is about: the sample type and the filters."""
    group = parser.add_argument_group("what to show")
    add_option(
        group,
        "sample_index",
        "sample type by name or number (the profile's default); also -inuse_space and the like",
        metavar="TYPE",
        default="",
    )
    for name, sample_type in _SAMPLE_TYPES.items():
        add_option(
            group,
            name,
            argparse.SUPPRESS,
            action="store_const",
            const=sample_type,
            dest="sample_index",
        )
    for name, what in (
        ("focus", "only samples that go through a frame that matches"),
        ("ignore", "no samples that go through a frame that matches"),
        ("hide", "leave out frames that match"),
        ("show", "leave out frames that do not match"),
    ):
        add_option(group, name, what, metavar="REGEX", default="")
    for name, what in (
        ("tagfocus", "only samples with a label that matches, such as route=/orders"),
        ("tagignore", "no samples with a label that matches"),
    ):
        add_option(group, name, what, metavar="[KEY=]REGEX", default="")
    add_option(
        group,
        "tagroot",
        "make these labels the outermost frames, such as route or thread,route",
        metavar="KEYS",
        default="",
    )


def add_unit_option(parser: argparse.ArgumentParser) -> None:
    """Add the unit of a text's values."""
    add_option(
        parser,
        "unit",
        "unit of the values, such as MB (what suits the smallest)",
        default=_SUITABLE_UNIT,
    )


def add_base_options(parser: argparse.ArgumentParser) -> None:
    """Add the comparison with an earlier profile."""
    group = parser.add_mutually_exclusive_group()
    add_option(group, "base", "subtract this profile", metavar="SOURCE")
    add_option(
        group,
        "diff_base",
        "subtract this profile; percentages are of its total",
        metavar="SOURCE",
    )


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Add the granularity, the order and what is too small to list."""
    group = parser.add_argument_group("how to list")
    add_granularity_options(group)
    add_option(group, "cum", "sort by cum, with calls", action="store_true")
    add_option(group, "flat", "sort by flat (default)", action="store_false", dest="cum")
    add_option(
        group, "nodecount", "how many lines at most; 0: all", type=count, metavar="N", default=-1
    )
    add_option(
        group,
        "nodefraction",
        "leave out what is below this part of the total (%(default)g)",
        type=fraction,
        metavar="F",
        default=0.005,
    )
    add_option(
        group,
        "edgefraction",
        "leave out calls below this part of the total (%(default)g)",
        type=fraction,
        metavar="F",
        default=0.001,
    )


def add_granularity_options(
    group: argparse._ActionsContainer, default: Granularity = Granularity.FUNCTIONS
) -> None:
    """Add what counts as one frame."""
    for granularity, what in _FRAMES.items():
        add_option(
            group,
            granularity.value,
            what + (" (default)" if granularity is default else ""),
            action="store_const",
            const=granularity,
            dest="granularity",
            default=default,
        )


def fetch_options(arguments: argparse.Namespace) -> FetchOptions:
    """Read what `add_source_options` added."""
    return FetchOptions(
        token_file=arguments.token_file,
        ca_file=arguments.ca_file,
        timeout_s=arguments.timeout,
        seconds=arguments.seconds,
    )


def report_options(
    arguments: argparse.Namespace,
    *,
    granularity: Granularity = Granularity.FUNCTIONS,
    by_cum: bool = False,
    trim: Trim | None = None,
) -> ReportOptions:
    """Read what `add_selection_options` added. Raises CliError for a bad expression."""
    return ReportOptions(
        sample_index=arguments.sample_index,
        granularity=granularity,
        by_cum=by_cum,
        trim=trim or Trim(),
        unit=getattr(arguments, "unit", _SUITABLE_UNIT),
        filters=Filters(
            focus=_optional(arguments.focus, "-focus"),
            ignore=_optional(arguments.ignore, "-ignore"),
            hide=_optional(arguments.hide, "-hide"),
            show=_optional(arguments.show, "-show"),
            tagfocus=_tag_filter(arguments.tagfocus, "-tagfocus"),
            tagignore=_tag_filter(arguments.tagignore, "-tagignore"),
            tagroot=tuple(key for key in arguments.tagroot.split(",") if key),
        ),
    )


def table_trim(arguments: argparse.Namespace, default_count: int) -> Trim:
    """Read how much `add_table_options` leaves of a table."""
    count = arguments.nodecount
    return Trim(
        default_count if count < 0 else count, arguments.nodefraction, arguments.edgefraction
    )


def compile_expression(text: str, where: str) -> Pattern[str]:
    """Compile a regular expression. Raises CliError, which says what is wrong with it."""
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise CliError(
            f"{where} {text!r} is no regular expression: {error};"
            " expected Python's syntax, where ( [ * + ? . are escaped by a backslash",
            _USAGE,
        ) from error


def _optional(text: str, where: str) -> Pattern[str] | None:
    return compile_expression(text, where) if text else None


def _tag_filter(text: str, where: str) -> TagFilter | None:
    if not text:
        return None
    key, separator, expression = text.partition("=")
    if not separator:
        key, expression = "", text
    return TagFilter(compile_expression(expression, where), key)


def count(text: str) -> int:
    """Read an option's value that counts something, from 0."""
    return _number(text, int, 0, math.inf, "a whole number from 0")


def _positive_int(text: str) -> int:
    return _number(text, int, 1, 86_400, "a whole number from 1 to 86400")


def _positive_float(text: str) -> float:
    return _number(text, float, 0.001, 86_400, "a number of seconds up to 86400")


def fraction(text: str) -> float:
    """Read an option's value from 0 to 1."""
    return _number(text, float, 0, 1, "a number from 0 to 1")


def _number(
    text: str, kind: Callable[[str], _Number], low: float, high: float, expected: str
) -> _Number:
    try:
        number = kind(text)
        if low <= number <= high:
            return number
    except ValueError:
        pass  # told below, like a number out of bounds
    raise argparse.ArgumentTypeError(f"{text!r} was given; expected {expected}")

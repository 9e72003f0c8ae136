"""`stanch demo`: the incident with real processes, real load and real kills, judged at the end."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from stanch.cli.errors import CliError

_LOG_WIDTH = 150  # columns of a log that is no terminal; the verdict's table needs them


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "demo",
        help="run the incident: services that leak, load, kills, and what Stanch says",
        description="Start ten nodes of five services on this machine, most of which leak, load "
        "them with 10,000 requests a minute, watch them, and compare what Stanch says with the "
        "truth. Exit code 0: every leak was named in the first half of a node's life and nothing "
        "else was accused. 1: not so. 2: the demo could not be run.",
    )
    parser.add_argument("--fixed", action="store_true", help="run the repaired code instead")
    parser.add_argument(
        "--recycle",
        action="store_true",
        help="run it twice: nodes die, and nodes are recycled before; about thirteen minutes",
    )
    parser.add_argument(
        "--full", action="store_true", help="real scale: 1 GiB a node, about 45 minutes"
    )
    parser.add_argument(
        "--for",
        dest="duration",
        metavar="DURATION",
        type=_duration,
        help="how long the load lasts, such as 90s or 5m",
    )
    parser.add_argument(
        "--json", action="store_true", help="the outcome as JSON; the timeline goes to stderr"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep logs, live tables and sources in the temp folder"
    )
    parser.add_argument(
        "--pages",
        metavar="DIRECTORY",
        type=Path,
        help="keep what the server's pages show of it in a directory, for later",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the incident. Returns 0 when it was solved, 1 when not."""
    if arguments.recycle and (arguments.fixed or arguments.full):
        raise CliError("--recycle goes with neither --fixed nor --full", 2)
    try:
        from rich.console import Console

        from stanch.demo.comparison import comparison_to_dict, print_comparison, run_comparison
        from stanch.demo.errors import DemoError
        from stanch.demo.outcome import outcome_to_dict, print_outcome
        from stanch.demo.run import DemoOptions, run_demo
        from stanch.demo.timeline import Timeline
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "stanch":
            raise
        raise CliError(
            f"the demo needs the package {error.name}; pip install 'stanch[demo]'", 2
        ) from error
    console = Console(stderr=arguments.json, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=arguments.json, highlight=False, width=_LOG_WIDTH)
    options = DemoOptions(
        fixed=arguments.fixed,
        full=arguments.full,
        window_s=arguments.duration,
        keep=arguments.keep,
        pages=arguments.pages,
    )
    try:
        if arguments.recycle:
            comparison = run_comparison(options, Timeline(console))
            outcome = comparison.recycled
        else:
            comparison, outcome = None, run_demo(options, Timeline(console))
    except DemoError as error:
        raise CliError(str(error), error.exit_code) from error
    print_outcome(console, outcome)
    if comparison is not None:
        print_comparison(console, comparison)
    if arguments.json:
        values: dict[str, Any] = (
            outcome_to_dict(outcome) if comparison is None else comparison_to_dict(comparison)
        )
        json.dump(values, sys.stdout, indent=2)
        print()
    return 0 if outcome.verdict.ok else 1


def _duration(text: str) -> float:
    from stanch.collect.sizes import parse_duration_s

    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error

"""`stanch evaluate`: how well leaks are told from what looks like them, on simulated services.

Exit codes: 0 it was played, 2 wrong use.
"""

import argparse
import json
import os
import sys
from dataclasses import replace

from stanch.cli.errors import CliError


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure the detector, and other people's rules, on services of known truth",
        description="Play simulated services with leaks, caches, warm-ups and loads of known "
        "truth, let Stanch's detector and other published rules judge them, and print recall, "
        "false alarms, and the rest. The same seed gives the same numbers.",
    )
    parser.add_argument("--quick", action="store_true", help="few episodes: about a minute")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    parser.add_argument("--seed", type=int, help="of all randomness; detection was tuned on 1")
    parser.add_argument("--leaks", type=int, metavar="N", help="episodes per kind and rate band")
    parser.add_argument("--healthy", type=int, metavar="N", help="service-days per healthy kind")
    parser.add_argument("--only-stanch", action="store_true", help="leave out the other rules")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes to use (%(default)s)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Play and print. Returns the exit code."""
    try:
        from stanch.evaluate.detectors import Stanch
        from stanch.evaluate.report import report_lines
        from stanch.evaluate.run import DETECTORS, evaluate
        from stanch.evaluate.spec import QUICK, Spec
    except ImportError as error:
        raise CliError(f"evaluate needs numpy: pip install 'stanch[cli]' ({error})", 2) from error
    spec = QUICK if arguments.quick else Spec()
    for name in ("seed", "leaks", "healthy"):
        number = getattr(arguments, name)
        if number is not None and number < 0:
            raise CliError(f"--{name} is {number}; expected 0 or more", 2)
        if number is not None:
            spec = replace(spec, **{name: number})
    report = evaluate(
        spec,
        detectors=(Stanch,) if arguments.only_stanch else DETECTORS,
        jobs=arguments.jobs,
        progress=_progress if sys.stderr.isatty() else lambda done, of: None,
    )
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        print("\n".join(report_lines(report)))
    return 0


def _progress(done: int, of: int) -> None:
    end = "\n" if done == of else "\r"
    print(f"{done} of {of} episodes", end=end, file=sys.stderr, flush=True)

"""`stanch recycles`: what was recycled, and letting it go on after a failure."""

import argparse
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from stanch.cli.errors import CliError
from stanch.cli.journal_source import add_data_option, open_journal

if TYPE_CHECKING:
    from stanch.recycle.book import Recycle


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "recycles",
        help="list what was recycled; let it go on after a failure",
        description="List what `stanch watch --recycle` has done, the newest first. After a "
        "failure a service is recycled no more until --resume.",
    )
    add_data_option(parser)
    parser.add_argument("--service", metavar="NAME", help="of this service only")
    parser.add_argument("-n", dest="most", type=int, default=20, help="so many (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--resume", metavar="SERVICE", help="recycle a service again")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List or resume. Returns 0."""
    from stanch.journal import JournalError
    from stanch.recycle.book import clear, recycles

    try:
        with open_journal(arguments) as journal:
            if arguments.resume is not None:
                with journal.write() as transaction:
                    cleared = clear(transaction, arguments.resume)
                if not cleared:
                    raise CliError(f"nothing of {arguments.resume} has failed")
                print(f"{arguments.resume} is recycled again")
                return 0
            with journal.read() as transaction:
                found = recycles(transaction, arguments.service, max(1, arguments.most))
    except JournalError as error:
        raise CliError(str(error)) from error
    for each in found:
        print(json.dumps(asdict(each)) if arguments.json else _text(each))
    if not found and not arguments.json:
        print("no recycles")
    return 0


def _text(recycle: "Recycle") -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(recycle.began_unix))
    took = recycle.about.get("took_s")
    within = f", within {took:g} s" if took is not None else ""
    who = f"{recycle.service} {recycle.instance}{within}"
    lines = [f"{when}  {recycle.step:<9} {who}: {recycle.about.get('reason', '')}"]
    if error := recycle.about.get("error"):
        cleared = " (resumed)" if recycle.about.get("cleared") else ""
        lines.append(f"    {error}{cleared}")
    for name, place in (recycle.about.get("evidence") or {}).items():
        lines.append(f"    {name}: {place}")
    return "\n".join(lines)

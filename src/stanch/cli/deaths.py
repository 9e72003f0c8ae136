"""`stanch deaths`: how processes ended, what they held, and what had been foretold."""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from stanch.cli.errors import CliError
from stanch.cli.journal_source import add_data_option, open_journal

if TYPE_CHECKING:
    from stanch.deaths import Death
    from stanch.journal import Journal


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "deaths",
        help="list how processes ended, with what in memory",
        description="List the deaths that `stanch watch --data` has written down, the newest "
        "first. With a NUMBER: all that is known of one, and its last heap profile.",
    )
    parser.add_argument("number", metavar="NUMBER", type=int, nargs="?", help="of one death")
    add_data_option(parser)
    parser.add_argument("--service", metavar="NAME", help="of this service only")
    parser.add_argument("-n", dest="most", type=int, default=20, help="so many (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument(
        "-o", "--output", metavar="FILE.pb.gz", type=Path, help="write the profile as pprof"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List deaths or show one. Returns 0."""
    try:
        from stanch.deaths.book import deaths
    except ModuleNotFoundError as error:
        raise CliError(
            f"deaths needs the package {error.name}; pip install 'stanch[cli]'", 2
        ) from error
    with open_journal(arguments) as journal:
        if arguments.number is not None:
            return _show(journal, arguments)
        if arguments.output is not None:
            raise CliError("-o needs the NUMBER of a death", 2)
        with journal.read() as transaction:
            found = deaths(transaction, arguments.service, max(1, arguments.most))
    for number, death in found:
        if arguments.json:
            print(json.dumps({"number": number} | asdict(death)))
        else:
            print(_text(number, death))
    if not found and not arguments.json:
        print("no deaths")
    return 0


def _text(number: int, death: "Death") -> str:
    from stanch.deaths.telling import death_facts, death_title, forecast_text

    cause = death.cause if death.sure or death.cause == "unknown" else f"{death.cause}?"
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(death.died_unix))
    lines = [f"{number:>4}  {when}  {cause:<8} {death_title(death)}"]
    lines += [f"      {text}" for text in (death_facts(death), forecast_text(death)) if text]
    return "\n".join(lines)


def _show(journal: "Journal", arguments: argparse.Namespace) -> int:
    from stanch.cli.report_text import top_text
    from stanch.deaths.book import death_by_number, profile_of
    from stanch.profile import parse

    with journal.read() as transaction:
        death = death_by_number(transaction, arguments.number)
        profile = profile_of(transaction, arguments.number)
    if death is None:
        raise CliError(f"there is no death {arguments.number}; `stanch deaths` lists them", 2)
    if arguments.output is not None:
        if profile is None:
            raise CliError(f"there is no profile of death {arguments.number}")
        try:
            arguments.output.write_bytes(profile)
        except OSError as error:
            raise CliError(f"cannot write {arguments.output}: {error.strerror}") from error
        print(f"wrote {arguments.output}; read it with: go tool pprof {arguments.output}")
        return 0
    if arguments.json:
        print(json.dumps({"number": arguments.number} | asdict(death)))
        return 0
    print(_text(arguments.number, death))
    if profile is not None:
        source = "the live table that it left" if death.profile_from == "table" else "the last look"
        age_s = death.profile_age_s or 0.0
        print(f"\nHeap profile from {source}, {age_s:.1f} s before the end:\n")
        print(top_text(parse(profile), nodecount=20, granularity="lines"))
    return 0

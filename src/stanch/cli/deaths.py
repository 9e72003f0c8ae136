"""`stanch deaths`: how processes ended, what they held, and what had been foretold."""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from stanch.cli.errors import CliError
from stanch.cli.journal_source import add_data_option, open_journal
from stanch.cli.server_options import add_server_arguments

if TYPE_CHECKING:
    from stanch.cli.death_source import DeathSource
    from stanch.deaths import Death


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "deaths",
        help="list how processes ended, with what in memory",
        description="List the deaths that `stanch watch --data` has written down, or with --url "
        "those that a server has, the newest first. With a NAME, as the list has it: all that is "
        "known of one, and its last heap profile.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="of one death, as the list has it")
    add_data_option(parser)
    add_server_arguments(parser, "view", default=None)
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
        from stanch.cli.death_source import AtServer, InJournal
    except ModuleNotFoundError as error:
        raise CliError(
            f"deaths needs the package {error.name}; pip install 'stanch[cli]'", 2
        ) from error
    if arguments.name is None and arguments.output is not None:
        raise CliError("-o needs the NAME of a death", 2)
    most = max(1, arguments.most)
    if arguments.url is not None:
        from stanch.cli.server_client import open_client

        with open_client(arguments.url, arguments.token_file, arguments.ca, {}) as client:
            return _tell(AtServer(client), arguments, most)
    with open_journal(arguments) as journal:
        return _tell(InJournal(journal), arguments, most)


def _tell(source: "DeathSource", arguments: argparse.Namespace, most: int) -> int:
    if arguments.name is not None:
        return _show(source, arguments)
    found = source.listed(arguments.service, most)
    for name, death in found:
        if arguments.json:
            print(json.dumps(source.named(name) | asdict(death)))
        else:
            print(_text(name, death))
    if not found and not arguments.json:
        print(source.nothing)
    return 0


def _text(name: str, death: "Death") -> str:
    from stanch.deaths.telling import cause_text, death_facts, death_title, forecast_text

    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(death.died_unix))
    lines = [f"{name:>4}  {when}  {cause_text(death):<8} {death_title(death)}"]
    lines += [f"      {text}" for text in (death_facts(death), forecast_text(death)) if text]
    return "\n".join(lines)


def _show(source: "DeathSource", arguments: argparse.Namespace) -> int:
    from stanch.cli.report_text import top_text
    from stanch.profile import parse

    name: str = arguments.name
    death = source.one(name)
    if death is None:
        raise CliError(f"there is no death {name}; `stanch deaths` lists them", 2)
    profile = source.profile(name)
    if arguments.output is not None:
        if profile is None:
            raise CliError(f"there is no profile of death {name}")
        try:
            arguments.output.write_bytes(profile)
        except OSError as error:
            raise CliError(f"cannot write {arguments.output}: {error.strerror}") from error
        print(f"wrote {arguments.output}; read it with: go tool pprof {arguments.output}")
        return 0
    if arguments.json:
        print(json.dumps(source.named(name) | asdict(death)))
        return 0
    print(_text(name, death))
    if profile is not None:
        origin = "the live table that it left" if death.profile_from == "table" else "the last look"
        age_s = death.profile_age_s or 0.0
        print(f"\nHeap profile from {origin}, {age_s:.1f} s before the end:\n")
        print(top_text(parse(profile), nodecount=20, granularity="lines"))
    return 0

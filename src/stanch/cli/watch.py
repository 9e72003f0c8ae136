"""`stanch watch`: look at targets every few seconds and name what leaks.

Exit codes: 0 nothing was confirmed, 1 something was, 2 wrong use or no target ever answered.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stanch.cli.errors import CliError

if TYPE_CHECKING:
    from stanch.collect import Scrape, TargetSource
    from stanch.recycle.backends import Backend
    from stanch.server.alarming import Alarming
    from stanch.server.chronicle import Chronicle
    from stanch.server.cluster import ClusterWatch
    from stanch.server.recycling import Recycling
    from stanch.server.watch import Watcher, WatchState
    from stanch.store import Look

_EPILOG = """\
A target is http[s]://HOST:PORT, unix:PATH, kubernetes:[NAMESPACE] (kubernetes:* for all; pods that
are annotated, see docs/kubernetes.md), sd+http[s]://URL of a list (docs/server.md), or a file with
one target per line:
  https://10.0.0.1:6060  service=shop  limit=1GiB  token_file=/run/stanch/token  ca=/etc/ca.pem
The file is read again when it changes. Exit codes: 0 nothing confirmed, 1 a leak is confirmed,
2 wrong use, or no target ever answered. The lines of --json are described in docs/detection.md.
"""


class Output(Protocol):
    """Where a watch goes: a terminal, a log or JSON lines. Called in the order of its methods."""

    def start(self, targets: int, every_s: float) -> None:
        """The watch begins."""

    def show(self, state: "WatchState") -> None:
        """A step was made."""

    def end(self, state: "WatchState | None", confirmed: int) -> None:
        """The watch is over; state: the last one. confirmed: findings ever confirmed."""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "watch",
        help="watch live Python and Go services and name what leaks",
        description="Scrape targets, Python services under Stanch's agent and Go services with "
        "net/http/pprof alike, show their memory against its limit, and name the line that leaks.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", metavar="TARGET", nargs="+", help="what to watch, see below")
    parser.add_argument(
        "--every", metavar="DURATION", default="5s", help="time between scrapes (%(default)s)"
    )
    parser.add_argument(
        "--for", dest="duration", metavar="DURATION", help="stop after this time, such as 90s or 2h"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line and event")
    parser.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
    parser.add_argument(
        "--ca", metavar="FILE", help="certificates to trust instead of the system's"
    )
    parser.add_argument("--service", metavar="NAME", default="", help="name of the service")
    parser.add_argument(
        "--limit", metavar="SIZE", help="memory limit where the target does not tell, e.g. 256MiB"
    )
    parser.add_argument(
        "--alarms", metavar="FILE", type=Path, help="whom to tell of leaks, see docs/alarms.md"
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="keep deaths and alarms there, for `stanch deaths` and `stanch alarms`",
    )
    parser.add_argument(
        "--tables",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="where processes of this machine keep their live tables (`stanch run --table`)",
    )
    parser.add_argument(
        "--recycle",
        metavar="FILE",
        type=Path,
        help="recycle what will die of a leak, by this file; see docs/recycling.md",
    )
    parser.add_argument(
        "--kubeconfig",
        metavar="FILE",
        type=Path,
        help="how to reach the cluster of kubernetes: targets, where this is no pod of it",
    )
    parser.add_argument(
        "--lease",
        metavar="[NAMESPACE/]NAME",
        default="",
        help="of several servers one leads, by this Lease; the others look on",
    )
    parser.add_argument(
        "--alive",
        metavar="FILE",
        type=Path,
        help="touch this file after each round, for a probe that tells whether the watch goes on",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="with --recycle: only say what would be done"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Watch until the time is over or Ctrl-C. Returns the exit code."""
    try:
        from stanch.server.slowness import SlownessWatch
        from stanch.server.watch import Watcher
    except ImportError as error:
        raise CliError(
            f"watch needs the package {error.name}; pip install 'stanch[cli]'", 2
        ) from error
    every_s = _duration("--every", arguments.every)
    for_s = _duration("--for", arguments.duration) if arguments.duration else None
    output = _output(json=arguments.json)
    confirmed: set[tuple[str, bool, str, str]] = set()
    last = None
    with contextlib.ExitStack() as ending:
        source, cluster = _source(arguments, ending)
        chronicle = _chronicle(arguments, ending)
        slowness = SlownessWatch()
        witnesses = [slowness.witness, *([chronicle.witness] if chronicle is not None else [])]

        def witness(scrape: "Scrape", look: "Look | None") -> None:
            for each in witnesses:
                each(scrape, look)

        watcher = ending.enter_context(Watcher(source, every_s, witness=witness))
        recycling = _recycling(arguments, source, chronicle, cluster, ending)
        alarming = _alarming(arguments, watcher, recycling, ending)
        output.start(len(source.targets()), every_s)
        try:
            for state in watcher.run(for_s):
                last = slowness.take(state)
                last = last if cluster is None else cluster.take(last, chronicle)
                last = last if chronicle is None else chronicle.take(last)
                last = last if recycling is None else _recycled(recycling, last)
                if alarming is not None and (cluster is None or cluster.may_tell):
                    last = _alarmed(alarming, recycling, cluster, last)
                confirmed |= {finding.key for finding in state.confirmed}
                output.show(_touched(arguments.alive, last))
        except KeyboardInterrupt:
            pass  # The way to end a watch without --for.
        finally:
            output.end(last, len(confirmed))
        if not watcher.answered:
            raise CliError(_no_answer(last), 2)
    return 1 if confirmed else 0


def _touched(alive: Path | None, state: "WatchState") -> "WatchState":
    """Show a probe that a round is done."""
    if alive is not None:
        try:
            alive.touch()
        except OSError as error:
            return state.troubled(f"--alive: {alive}: {error.strerror}")
    return state


def _chronicle(arguments: argparse.Namespace, ending: contextlib.ExitStack) -> "Chronicle | None":
    if arguments.dry_run and arguments.recycle is None:
        raise CliError("--dry-run needs --recycle", 2)
    if arguments.data is None and arguments.alarms is None and arguments.recycle is None:
        if arguments.tables:
            raise CliError("--tables needs --data, where deaths are kept", 2)
        return None
    from stanch.deaths.book import JournalBook
    from stanch.journal import JournalError, default_directory
    from stanch.server.chronicle import Chronicle

    try:
        book = JournalBook(arguments.data or default_directory())
    except JournalError as error:
        raise CliError(str(error), 2) from error
    return ending.enter_context(Chronicle(book, arguments.tables))


def _recycling(
    arguments: argparse.Namespace,
    source: "TargetSource",
    chronicle: "Chronicle | None",
    cluster: "ClusterWatch | None",
    ending: contextlib.ExitStack,
) -> "Recycling | None":
    if arguments.recycle is None or chronicle is None:
        return None
    from stanch.collect.configuration import ConfigurationError
    from stanch.journal import JournalError, default_directory
    from stanch.recycle.configuration import read_policies
    from stanch.server.recycling import Recycling, TargetClients, always, never, worker_backend

    clients = TargetClients(source)
    try:
        makers: dict[str, Callable[[], Backend]] = {"worker": lambda: worker_backend(clients)}
        if cluster is not None:
            makers["kubernetes"] = cluster.eviction_backend
        policies = read_policies(arguments.recycle, makers, dry_run=arguments.dry_run)
        directory = arguments.data or default_directory()
        recycling = Recycling(
            directory,
            policies,
            clients,
            chronicle,
            may_act=cluster.may_act if cluster is not None else always,
            is_leaving=cluster.is_leaving if cluster is not None else never,
        )
    except (ConfigurationError, JournalError) as error:
        raise CliError(str(error), 2) from error
    return ending.enter_context(recycling)


def _recycled(recycling: "Recycling", state: "WatchState") -> "WatchState":
    """Have what is due recycled; what was done is shown with the state."""
    from stanch.server.recycling import event_text

    notes = tuple(map(event_text, recycling.take(state)))
    state = replace(state, notes=(*state.notes, *notes))
    trouble = recycling.trouble
    return state if trouble is None else state.troubled(f"recycling: {trouble}")


def _alarming(
    arguments: argparse.Namespace,
    watcher: "Watcher",
    recycling: "Recycling | None",
    ending: contextlib.ExitStack,
) -> "Alarming | None":
    if arguments.alarms is None:
        return None
    from stanch.alert.configuration import read_configuration
    from stanch.alert.desk import nothing_harmless
    from stanch.collect.configuration import ConfigurationError
    from stanch.journal import JournalError, default_directory
    from stanch.server.alarming import Alarming

    try:
        alarming = Alarming(
            read_configuration(arguments.alarms),
            arguments.data or default_directory(),
            series=watcher.series,
            harmless=recycling.harmless if recycling is not None else nothing_harmless,
        )
    except (ConfigurationError, JournalError) as error:
        raise CliError(str(error), 2) from error
    return ending.enter_context(alarming)


def _alarmed(
    alarming: "Alarming",
    recycling: "Recycling | None",
    cluster: "ClusterWatch | None",
    state: "WatchState",
) -> "WatchState":
    """Hand a state to the alarms; what does not work there is shown with it."""
    if cluster is not None:
        cluster.take_up(alarming)
    alarming.take(state, recycling.conditions() if recycling is not None else ())
    if cluster is not None:
        cluster.leave(alarming)
    trouble = alarming.trouble
    if trouble is None:
        return state
    return state.troubled(f"alarms: {trouble}")


def _source(
    arguments: argparse.Namespace, ending: contextlib.ExitStack
) -> "tuple[TargetSource, ClusterWatch | None]":
    from stanch.collect import TargetDefaults, TargetError
    from stanch.collect.sizes import parse_size

    try:
        defaults = TargetDefaults(
            service=arguments.service,
            limit_bytes=parse_size(arguments.limit) if arguments.limit else None,
            token_file=arguments.token_file,
            ca_file=arguments.ca,
        )
    except ValueError as error:
        raise CliError(f"--limit: {error}", 2) from error
    from stanch.kube import ClusterError
    from stanch.server.cluster import sources_of

    try:
        return sources_of(
            arguments.targets,
            defaults,
            ending,
            kubeconfig=arguments.kubeconfig,
            lease=arguments.lease,
        )
    except (ClusterError, TargetError) as error:
        raise CliError(str(error), 2) from error


def _duration(option: str, text: str) -> float:
    from stanch.collect.sizes import parse_duration_s

    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise CliError(f"{option}: {error}", 2) from error


def _output(*, json: bool) -> Output:
    from stanch.cli.watch_lines import JsonLines, PlainLines

    if json:
        return JsonLines(sys.stdout)
    if not sys.stdout.isatty():
        return PlainLines(sys.stdout)
    from stanch.cli.watch_view import LiveView

    return LiveView()


def _no_answer(last: "WatchState | None") -> str:
    errors = [f"{row.instance}: {row.error}" for row in last.rows if row.error] if last else []
    reason = f" ({errors[0]})" if errors else ""
    return f"no target ever answered{reason}; check that the service runs and listens there"

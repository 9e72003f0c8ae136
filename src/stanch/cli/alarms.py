"""`stanch alarms`: what fires, who judged it, when to be quiet, and whether messages get through.

Works on the journal in the data directory, also while a watch or a server uses it.
"""

import argparse
import getpass
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from stanch.cli.errors import CliError
from stanch.cli.journal_source import add_data_option, open_journal

if TYPE_CHECKING:
    from stanch.alert.alarm import Alarm
    from stanch.alert.receivers import Receiver
    from stanch.alert.silences import Marked
    from stanch.journal import Journal

_EVERY = {"day": 86_400.0, "week": 7 * 86_400.0}
_ORDER = ("firing", "pending", "resolved")


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its own subcommands."""
    parser = subparsers.add_parser(
        "alarms",
        help="list alarms, mark leaks as known, be quiet during maintenance",
        description="Show and steer the alarms of `stanch watch --alarms`. Without a subcommand: "
        "list. Exit codes: 0 done, 1 not possible, 2 wrong use.",
    )
    add_data_option(parser)
    parser.add_argument("--all", action="store_true", help="also those that are over")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.set_defaults(run=_list)
    parts = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND")
    for verdict, what in (("known", "is known"), ("wontfix", "will not be fixed")):
        part = _part(parts, verdict, _mark, f"mark a leak that {what}: it is told no more")
        part.add_argument("fingerprint", metavar="ID", help="as listed; its beginning will do")
        part.add_argument("--note", default="", help="why, for others to read")
        part.set_defaults(verdict=verdict)
    part = _part(parts, "unmark", _unmark, "take a mark away")
    part.add_argument("fingerprint", metavar="ID")
    part = _part(parts, "quiet", _quiet, "add a maintenance window")
    part.add_argument("service", metavar="SERVICE", help="name or pattern, such as 'pay*' or '*'")
    part.add_argument("--for", dest="duration", metavar="DURATION", required=True)
    part.add_argument("--at", metavar="TIME", help="when it begins, such as 2026-03-01T02:00 (UTC)")
    part.add_argument("--every", choices=tuple(_EVERY), help="it comes again")
    part.add_argument("--note", default="", help="why, for others to read")
    _part(parts, "windows", _windows, "list maintenance windows")
    part = _part(parts, "unquiet", _unquiet, "remove a maintenance window")
    part.add_argument("number", metavar="NUMBER", type=int)
    _part(parts, "outbox", _outbox, "tell which messages wait for which receiver, and why")
    part = parts.add_parser("test", help="send a test message to each receiver of a file")
    part.add_argument("file", metavar="FILE", type=Path, help="the file of alarms")
    part.set_defaults(run=_test)


def _part(
    parts: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    what: str,
) -> argparse.ArgumentParser:
    part = parts.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    add_data_option(part, argparse.SUPPRESS)
    part.set_defaults(run=run)
    return part


def _list(arguments: argparse.Namespace) -> int:
    from stanch.alert.desk import stored_alarms
    from stanch.alert.silences import marks

    with open_journal(arguments) as journal, journal.read() as transaction:
        alarms = stored_alarms(transaction)
        marked = marks(transaction)
    shown = [alarm for alarm in alarms if arguments.all or alarm.status != "resolved"]
    shown.sort(key=lambda alarm: (_ORDER.index(alarm.status), alarm.service, alarm.pending_unix))
    for alarm in shown:
        if arguments.json:
            values = asdict(alarm) | {"severity": alarm.severity, "mark": None}
            if mark := marked.get(alarm.fingerprint):
                values["mark"] = asdict(mark)
            print(json.dumps(values))
        else:
            print(_text(alarm, marked.get(alarm.fingerprint)))
    if not shown and not arguments.json:
        print("no alarms")
    return 0


def _text(alarm: "Alarm", mark: "Marked | None") -> str:
    since = alarm.resolved_unix or alarm.fired_unix or alarm.pending_unix
    lines = [f"{alarm.fingerprint}  {alarm.status} since {_clock(since)}: {alarm.title}"]
    if alarm.status != "resolved":
        lines += [f"    {line}" for line in alarm.text.splitlines()[:1]]
    if alarm.quiet:
        lines.append(f"    quiet: {alarm.quiet}")
    elif mark is not None:
        lines.append(f"    marked {mark.verdict} by {mark.by}, but it is told: {mark.note}")
    return "\n".join(lines)


def _mark(arguments: argparse.Namespace) -> int:
    from stanch.alert.silences import Marked, set_mark

    with open_journal(arguments) as journal:
        alarm = _find(journal, arguments.fingerprint)
        mark = Marked(
            alarm.fingerprint,
            arguments.verdict,
            arguments.note,
            _who(),
            time.time(),
            alarm.rate,
        )
        with journal.write() as transaction:
            set_mark(transaction, mark)
    _note(arguments, f"marked {arguments.verdict}", alarm.title)
    print(f"marked {arguments.verdict}: {alarm.title}")
    return 0


def _unmark(arguments: argparse.Namespace) -> int:
    from stanch.alert.silences import remove_mark

    with open_journal(arguments) as journal:
        alarm = _find(journal, arguments.fingerprint)
        with journal.write() as transaction:
            if not remove_mark(transaction, alarm.fingerprint):
                raise CliError(f"{alarm.fingerprint} has no mark")
    _note(arguments, "unmarked", alarm.title)
    print(f"no longer marked: {alarm.title}")
    return 0


def _find(journal: "Journal", beginning: str) -> "Alarm":
    from stanch.alert.desk import stored_alarms

    with journal.read() as transaction:
        found = [
            alarm
            for alarm in stored_alarms(transaction)
            if alarm.fingerprint.startswith(beginning.lower())
        ]
    if len(found) != 1 or not beginning:
        many = f"{len(found)} alarms begin" if found else "no alarm begins"
        raise CliError(f"{many} with {beginning!r}; `stanch alarms --all` lists them", 2)
    return found[0]


def _quiet(arguments: argparse.Namespace) -> int:
    from stanch.alert.silences import SilenceError, add_window
    from stanch.collect.sizes import parse_duration_s

    try:
        length_s = parse_duration_s(arguments.duration)
        begins = time.time()
        if arguments.at is not None:
            at = datetime.fromisoformat(arguments.at)
            begins = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
        every_s = _EVERY[arguments.every] if arguments.every else None
        with open_journal(arguments) as journal, journal.write() as transaction:
            number = add_window(
                transaction,
                arguments.service,
                begins,
                begins + length_s,
                every_s,
                arguments.note,
                _who(),
            )
    except (SilenceError, ValueError) as error:
        raise CliError(str(error), 2) from error
    _note(arguments, "window added", f"{number}: {arguments.service}")
    print(f"window {number}: {arguments.service} is quiet from {_clock(begins)} for {length_s:g} s")
    return 0


def _windows(arguments: argparse.Namespace) -> int:
    from stanch.alert.silences import windows

    with open_journal(arguments) as journal, journal.read() as transaction:
        found = windows(transaction)
    for window in found:
        again = f", every {window.every_s / 86_400:g} days" if window.every_s else ""
        note = f": {window.note}" if window.note else ""
        print(
            f"{window.id}  {window.service}  {_clock(window.begins_unix)} to "
            f"{_clock(window.ends_unix)}{again}, by {window.by}{note}"
        )
    if not found:
        print("no windows")
    return 0


def _unquiet(arguments: argparse.Namespace) -> int:
    from stanch.alert.silences import remove_window

    with open_journal(arguments) as journal, journal.write() as transaction:
        if not remove_window(transaction, arguments.number):
            raise CliError(f"there is no window {arguments.number}", 2)
    _note(arguments, "window removed", str(arguments.number))
    print(f"window {arguments.number} is removed")
    return 0


def _outbox(arguments: argparse.Namespace) -> int:
    from stanch.alert.outbox import counts

    with open_journal(arguments) as journal, journal.read() as transaction:
        found = counts(transaction)
    for each in found:
        error = f"; {each.error}" if each.error else ""
        print(
            f"{each.receiver}: {each.waiting} waiting, {each.sent} sent, "
            f"{each.refused} refused{error}"
        )
    if not found:
        print("no messages")
    return 0


def _test(arguments: argparse.Namespace) -> int:
    from stanch.alert.configuration import make_receivers, read_configuration
    from stanch.collect.configuration import ConfigurationError

    try:
        receivers = make_receivers(read_configuration(arguments.file), time.time)
    except ConfigurationError as error:
        raise CliError(str(error), 2) from error
    if not receivers:
        raise CliError(f"{arguments.file} names no receiver", 2)
    failed = [name for name, receiver in receivers.items() if not _try(name, receiver)]
    return 1 if failed else 0


def _try(name: str, receiver: "Receiver") -> bool:
    from stanch.alert.alarm import Alarm
    from stanch.alert.message import Message
    from stanch.alert.receivers import DeliveryError

    now = time.time()
    alarm = Alarm(
        fingerprint=f"{int(now):016x}",
        name="StanchTest",
        service="stanch-test",
        cause="test",
        kind="",
        title=f"test message of {_who()}",
        text="This is a test of Stanch's alarms. Nothing leaks.",
        stage="suspect",
        status="firing",
        episode=1,
        pending_unix=now,
        stage_unix=now,
        seen_unix=now,
        fired_unix=now,
        told=1,
    )
    try:
        receiver.send(Message(f"{alarm.fingerprint}-1-1", "firing", alarm, now), uncertain=False)
        receiver.send(Message(f"{alarm.fingerprint}-1-2", "resolved", alarm, now), uncertain=False)
    except DeliveryError as error:
        print(f"{name}: failed: {error}")
        return False
    finally:
        receiver.close()
    print(f"{name}: delivered")
    return True


def _note(arguments: argparse.Namespace, event: str, what: str) -> None:
    """Put what somebody has silenced into the audit log."""
    from stanch.journal import default_directory
    from stanch.server.audit import AuditLog

    AuditLog(arguments.data or default_directory()).note(event, by=_who(), what=what)


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in many containers
        return "somebody"


def _clock(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(unix_s))

"""`stanch token`: make, list and take back the tokens of a server.

Exit codes: 0 done, 1 there is no such token, 2 wrong use or the file of tokens cannot be used.
"""

import argparse
import time
from pathlib import Path

from stanch.cli.errors import CliError


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "token",
        help="make, list and take back the tokens of a server",
        description="Tokens say who may push profiles to a server, view its pages or administer it."
        " Only their hashes are kept, so a new token is shown once.",
    )
    parser.add_argument("--data", metavar="DIR", type=Path, help="the server's data directory")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = actions.add_parser("make", help="make a token and print it")
    make.add_argument("name", help="whose it is, such as shop-agents")
    make.add_argument("--role", choices=("push", "view", "admin"), required=True)
    make.add_argument("--for", dest="lasts", metavar="DURATION", help="it expires after this time")
    make.set_defaults(run=_make)
    listing = actions.add_parser("list", help="list the tokens, without their secrets")
    listing.set_defaults(run=_list)
    back = actions.add_parser("revoke", help="take a token back")
    back.add_argument("name")
    back.set_defaults(run=_revoke)


def _make(arguments: argparse.Namespace) -> int:
    from stanch.collect.sizes import parse_duration_s
    from stanch.server.audit import AuditLog
    from stanch.server.tokens import TokenError, Tokens

    directory = _directory(arguments)
    try:
        lasts_s = parse_duration_s(arguments.lasts) if arguments.lasts else None
        print(Tokens(directory).make(arguments.name, arguments.role, lasts_s))
        AuditLog(directory).note("token made", token=arguments.name, role=arguments.role)
    except (TokenError, ValueError) as error:
        raise CliError(str(error), 2) from error
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from stanch.server.tokens import TokenError, Tokens

    try:
        tokens = Tokens(_directory(arguments)).listed()
    except TokenError as error:
        raise CliError(str(error), 2) from error
    for token in tokens:
        expires = _day(token.expires_unix) if token.expires_unix else "never"
        print(
            f"{token.name:<24} {token.role:<6} made {_day(token.created_unix)}  expires {expires}"
        )
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    from stanch.server.audit import AuditLog
    from stanch.server.tokens import TokenError, Tokens

    directory = _directory(arguments)
    try:
        if Tokens(directory).take_back(arguments.name):
            AuditLog(directory).note("token revoked", token=arguments.name)
            return 0
    except TokenError as error:
        raise CliError(str(error), 2) from error
    raise CliError(f"there is no token {arguments.name}; see 'stanch token list'", 1)


def _directory(arguments: argparse.Namespace) -> Path:
    from stanch.journal import default_directory

    return arguments.data or default_directory()


def _day(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_s))

"""`stanch server`: the history of every process and the pages, in one process.

Exit codes: 0 after SIGTERM or Ctrl-C, 2 wrong use or the server cannot start.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from stanch.cli.errors import CliError


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "server",
        help="keep the history of many services, and show it as pages",
        description="Scrape targets, take pushes, judge every service, keep it all in a data "
        "directory and show it as pages. Listens on loopback; beyond it only with TLS and tokens.",
    )
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="what to scrape, as for watch")
    parser.add_argument("--data", metavar="DIR", type=Path, help="where everything is kept")
    parser.add_argument("--listen", metavar="HOST:PORT", help="default 127.0.0.1:4041")
    parser.add_argument("--store", metavar="URL", help="a ClickHouse instead of the data directory")
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings, see docs/server.md")
    parser.add_argument("--token-file", metavar="FILE", type=Path, help="token for the targets")
    parser.add_argument("--ca", metavar="FILE", type=Path, help="CA of their certificates")
    parser.add_argument("--every", metavar="DURATION", help="time between scrapes (15s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C. Returns the exit code."""
    try:
        from stanch.collect import TargetError
        from stanch.collect.configuration import ConfigurationError, seconds_of
        from stanch.journal import default_directory
        from stanch.server.configuration import ServerConfiguration, read_server_file
        from stanch.server.serve import ServeError, serve
        from stanch.server.tokens import TokenError
        from stanch.store.errors import StoreError
    except ImportError as error:
        raise CliError(
            f"server needs the package {error.name}; pip install 'stanch[server]'", 2
        ) from error
    try:
        configuration = ServerConfiguration(data=arguments.data or default_directory())
        if arguments.config:
            configuration = read_server_file(arguments.config, configuration)
        given = {
            "listen": arguments.listen,
            "store": arguments.store,
            "targets": tuple(arguments.targets) or None,
            "token_file": arguments.token_file,
            "ca": arguments.ca,
            "every_s": seconds_of("--every", arguments.every) if arguments.every else None,
        }
        chosen = {name: value for name, value in given.items() if value is not None}
        serve(replace(configuration, **chosen))
    except (ConfigurationError, ServeError, StoreError, TargetError, TokenError) as error:
        raise CliError(str(error), 2) from error
    return 0

"""The options by which commands are told of a server; nothing is imported that needs an extra."""

import argparse
from pathlib import Path

DEFAULT_URL = "http://127.0.0.1:4041"


def add_server_arguments(
    parser: argparse.ArgumentParser, token: str, default: str | None = DEFAULT_URL
) -> None:
    """Add the options that say which server; token: what its token must be good for."""
    shown = f"the server ({default})" if default else f"the server, such as {DEFAULT_URL}"
    parser.add_argument("--url", default=default, help=shown)
    parser.add_argument("--token-file", type=Path, metavar="FILE", help=f"a token that may {token}")
    parser.add_argument("--ca", metavar="FILE", help="what the server's certificate is checked by")

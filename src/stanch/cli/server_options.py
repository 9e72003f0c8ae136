"""The options by which commands are told of a server; nothing is imported that needs an extra."""

import argparse
from pathlib import Path


def add_server_arguments(parser: argparse.ArgumentParser, token: str) -> None:
    """Add the options that say which server; token: what its token must be good for."""
    parser.add_argument(
        "--url", default="http://127.0.0.1:4041", help="the server (http://127.0.0.1:4041)"
    )
    parser.add_argument("--token-file", type=Path, metavar="FILE", help=f"a token that may {token}")
    parser.add_argument("--ca", metavar="FILE", help="what the server's certificate is checked by")

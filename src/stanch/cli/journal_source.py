"""The data directory that a command works on, and the journal in it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stanch.cli.errors import CliError

if TYPE_CHECKING:
    from stanch.journal import Journal


def add_data_option(parser: argparse.ArgumentParser, default: object = None) -> None:
    """Add `--data`."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        default=default,
        help="the data directory (default: $STANCH_DATA, or stanch in the state directory)",
    )


def open_journal(arguments: argparse.Namespace) -> "Journal":
    """Open the journal that `--data` means; it must be there. Raises CliError."""
    from stanch.journal import FILE_NAME, Journal, JournalError, default_directory

    directory: Path = arguments.data or default_directory()
    if not (directory / FILE_NAME).exists():
        raise CliError(f"there is no journal in {directory}; name the directory with --data", 2)
    try:
        return Journal(directory)
    except JournalError as error:
        raise CliError(str(error)) from error

"""`stanch autopsy [FILE]`: the heap profile of a process that was killed, from its table file.

Without FILE it lists the tables that the killed left, newest first.
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from stanch.agent import rundir
from stanch.cli.errors import CliError
from stanch.profile import encode, format_value
from stanch.sampler import (
    Domain,
    TableError,
    TableImage,
    read_table,
    sample_weight,
    table_profile,
)


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "autopsy",
        help="show what a killed process held, from its table file",
        description="Print the heap profile of a process that was killed, or write it as pprof. "
        "FILE is the .stanch file that it left; a directory means its newest. Without FILE, list "
        "the tables found: in the directory of runs, and where STANCH_TABLE says.",
    )
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?")
    parser.add_argument(
        "-l", "--list", metavar="DIR", type=Path, help="list the tables in a --table directory"
    )
    parser.add_argument("-o", "--output", metavar="FILE.pb.gz", type=Path, help="write pprof")
    parser.add_argument(
        "-n", "--nodecount", type=int, default=20, help="lines to show (%(default)s)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print or write one autopsy, or print the list. Returns 0."""
    if arguments.file is None or arguments.list is not None:
        if arguments.file is not None or arguments.output is not None:
            raise CliError("a list takes no FILE and no -o; name a FILE without --list", 2)
        print(_listed(*_deaths(arguments.list)))
        return 0
    path = _newest(arguments.file)
    try:
        image = read_table(path)
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror}", 2) from error
    except TableError as error:
        raise CliError(str(error), 2) from error
    profile = table_profile(image)
    if arguments.output is not None:
        try:
            arguments.output.write_bytes(encode(profile))
        except OSError as error:
            raise CliError(f"cannot write {arguments.output}: {error.strerror}") from error
        print(f"wrote {arguments.output}; read it with: go tool pprof {arguments.output}")
        return 0
    print(describe(image, path))
    from stanch.cli.report_text import top_text

    print(top_text(profile, nodecount=arguments.nodecount, granularity="lines"))
    return 0


def _newest(path: Path) -> Path:
    """Return the file itself, or the newest table in a directory: of the killed, if any were."""
    if not path.is_dir():
        return path
    tables = sorted(path.glob("**/*.stanch"), key=lambda file: file.stat().st_mtime)
    if not tables:
        raise CliError(f"no .stanch file in {path}; name the file, or the --table directory", 2)
    dead = rundir.dead_tables(tables)
    return dead[0].path if dead else tables[-1]


def _deaths(directory: Path | None) -> tuple[list[rundir.DeadTable], Sequence[Path]]:
    """Return the deaths of which there is evidence, newest first, and where was looked for it."""
    if directory is not None:
        if not directory.is_dir():
            raise CliError(f"{directory} is not a directory; read a file without --list", 2)
        return rundir.dead_tables(rundir.tables_beside(directory)), [directory]
    base = rundir.base_directory(os.environ)
    files, places = rundir.tables_of_runs(base), [base]
    if table := os.environ.get("STANCH_TABLE"):
        files += [file for file in rundir.tables_beside(Path(table)) if file not in files]
        places.append(Path(table))
    return rundir.dead_tables(files), places


def _listed(deaths: Sequence[rundir.DeadTable], places: Sequence[Path]) -> str:
    """Return one line for each, with the file to name to `stanch autopsy`."""
    if not deaths:
        looked = " and ".join(map(str, places))
        return f"No killed process has left a table in {looked}."
    rows = [("last seen", "pid", "service", "live heap", "on disk", "file")]
    for death in deaths:
        try:
            image = read_table(death.path)
            service, live = image.service or "-", format_value(_live_bytes(image)[0], "bytes")
        except (OSError, TableError):
            service, live = "?", "damaged"
        size = format_value(death.bytes, "bytes")
        seen = _clock(death.seen_unix_ns)
        rows.append((seen, str(death.pid), service, live, size, str(death.path)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]))
        for row in rows
    )


def _live_bytes(image: TableImage) -> tuple[float, float]:
    """Return the estimate of what was alive, and how much of that was native, in bytes."""
    live = native = 0.0
    for entry in image.entries:
        size = entry.size_bytes * sample_weight(entry.size_bytes, entry.interval_bytes)
        live += size
        native += size if entry.domain == Domain.NATIVE else 0.0
    return live, native


def describe(image: TableImage, path: Path) -> str:
    """Say in a few lines whose table this is and how that process ended."""
    end = image.start_unix_ns + image.uptime_ns
    alive = not image.stopped and Path(f"/proc/{image.pid}").exists()
    if image.stopped:
        fate = "ended in good order"
    elif alive:
        fate = "a process of this number is running now"
    else:
        fate = "no sign of a clean end: killed or crashed"
    limit = "unknown" if image.limit_bytes is None else format_value(image.limit_bytes, "bytes")
    interval = format_value(image.interval_bytes, "bytes")
    live, native = _live_bytes(image)
    of_which = f", {format_value(native, 'bytes')} of it native" if native else ""
    who = f"{image.service or 'a process'}, pid {image.pid}, Python {image.python}"
    lines = [
        f"Autopsy of {who}: {fate}",
        (
            f"  started {_clock(image.start_unix_ns)}, last sample {_clock(end)}, "
            f"after {image.uptime_ns / 1e9:,.1f} s"
        ),
        (
            f"  live heap {format_value(live, 'bytes')}{of_which} (limit {limit}), "
            f"from {len(image.entries):,} samples at one per {interval}"
        ),
        f"  requests served: {image.requests:,}",
    ]
    if image.dropped or image.torn:
        lines.append(f"  samples lost: {image.dropped:,} dropped, {image.torn:,} torn")
    return "\n".join([*lines, f"  {path}", ""])


def _clock(unix_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(unix_ns / 1e9))

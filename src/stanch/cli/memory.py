"""`stanch memory PID|URL|unix:PATH`: what the memory of processes and of their cgroup is made of.

Exit codes: 0, 1 where it cannot be had, 2 wrong use.
"""

import argparse
import json
import os
import shutil
import sys
from typing import Any

from stanch.agent.breakdown import from_json
from stanch.cli.errors import CliError
from stanch.cli.memory_process import agent_of, without_agent
from stanch.cli.memory_text import Style, memory_text
from stanch.cli.profile_source import FetchOptions, fetch, is_url, split_url

PATH = "/debug/stanch/memory"
_PIPE_COLUMNS = 140


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "memory",
        help="show what the memory of a process is made of",
        description="Account for the resident memory of a process, and of its cgroup: live heap, "
        "free space that allocators keep, C code's blocks, stacks, shared memory, page cache. "
        "A URL or socket stands for all processes of its run, and so does the pid of a run's "
        "first process. A process without the agent gives what /proc says.",
    )
    parser.add_argument("source", metavar="PID|URL|unix:PATH")
    parser.add_argument("--json", action="store_true", help="print JSON, see docs/memory.md")
    parser.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
    parser.add_argument(
        "--ca", metavar="FILE", help="certificates to trust instead of the system's"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the account. Returns 0."""
    options = FetchOptions(token_file=arguments.token_file, ca_file=arguments.ca)
    document = _document(arguments.source, options)
    if arguments.json:
        print(json.dumps(document, indent=1))
        return 0
    terminal = sys.stdout.isatty()
    columns = shutil.get_terminal_size().columns if terminal else _PIPE_COLUMNS
    print(memory_text(document, Style(columns, terminal and "NO_COLOR" not in os.environ)))
    return 0


def _document(source: str, options: FetchOptions) -> dict[str, Any]:
    if is_url(source):
        address, path = split_url(source, PATH)
        return _checked(source, fetch(source, address, path, options))
    if not (source.isascii() and source.isdigit()):
        raise CliError(
            f"{source!r} is no process and no URL; expected a pid, http(s)://HOST:PORT or"
            " unix:SOCKET",
            2,
        )
    pid = int(source)
    agent = agent_of(pid)
    if agent is None:
        return without_agent(pid)
    query = f"?pid={agent.pid}" if agent.one_of_many else ""
    return _checked(source, fetch(source, agent.address, PATH + query, options))


def _checked(source: str, body: bytes) -> dict[str, Any]:
    """Read an answer. Raises CliError for what is none."""
    try:
        document = json.loads(body)
        processes = document["processes"]
        for process in processes:
            int(process["pid"])
            if "rows" in process:
                from_json(process)
        if "total" in document:
            from_json(document["total"])
    except (ValueError, KeyError, TypeError) as error:
        raise CliError(f"{source}: the answer is no account of memory: {error}") from error
    if not isinstance(document, dict) or not processes:
        raise CliError(f"{source}: the answer is no account of memory")
    return document

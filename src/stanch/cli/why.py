"""`stanch why TARGET`: what keeps memory alive in a live Python service, down to its roots.

Exit codes: 0 something was found, 1 the search was refused or found nothing, 2 wrong use.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from stanch.cli.errors import CliError
from stanch.cli.memory_process import agent_of
from stanch.cli.profile_source import FetchOptions, fetch, is_url, split_url
from stanch.profile import format_value

PATH = "/debug/stanch/retention"
_TIMEOUT_S = 30.0
_EXPECTED = "expected http[s]://HOST:PORT, unix:PATH or the PID of a process under `stanch run`"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "why",
        help="show what keeps memory alive: the path from a leaked object to its root",
        description="Ask a live Python service what keeps the memory of a function alive. It is "
        "searched in a snapshot, so the service goes on. TARGET is http[s]://HOST:PORT, unix:PATH "
        "or a PID on this machine. Without --function, --stack or --type it is the function that "
        "holds most of what was allocated since start-up.",
    )
    parser.add_argument("target", metavar="TARGET")
    parser.add_argument("--function", metavar="NAME", help="memory that this function allocated")
    parser.add_argument("--stack", metavar="FILE:LINE", help="memory that this line allocated")
    parser.add_argument("--type", metavar="NAME", help="only objects of this type")
    parser.add_argument(
        "--seconds",
        type=float,
        default=3.0,
        help="time between two looks, which tell what grows; 0: look once (%(default)g)",
    )
    parser.add_argument("--pid", type=int, help="one process of the run, else its largest")
    parser.add_argument(
        "--in-process",
        action="store_true",
        help="search without a snapshot: the service stands still for up to a quarter of a second",
    )
    parser.add_argument(
        "--values", action="store_true", help="show keys of containers; on this machine only"
    )
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    parser.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
    parser.add_argument(
        "--ca", metavar="FILE", help="certificates to trust instead of the system's"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask once and print the answer. Returns the exit code."""
    answer = ask(arguments)
    print(json.dumps(answer, indent=1) if arguments.json else "\n".join(describe(answer)))
    return 0


def ask(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the target's answer. Raises CliError."""
    address, pid = _address(arguments.target)
    fields = {"function": arguments.function, "place": arguments.stack, "type": arguments.type}
    query = {name: text for name, text in fields.items() if text}
    if arguments.seconds > 0:
        query["seconds"] = f"{arguments.seconds:g}"
    if (asked := arguments.pid or pid) is not None:
        query["pid"] = str(asked)
    query |= {name: "1" for name in ("in_process", "values") if getattr(arguments, name)}
    options = FetchOptions(
        token_file=arguments.token_file,
        ca_file=arguments.ca,
        timeout_s=_TIMEOUT_S + arguments.seconds,
    )
    path = f"{PATH}?{urlencode(query)}" if query else PATH
    try:
        answer = json.loads(fetch(arguments.target, address, path, options))
    except ValueError as error:
        raise CliError(f"{arguments.target}: the answer is no JSON: {error}") from error
    if not isinstance(answer, dict) or "paths" not in answer:
        raise CliError(f"{arguments.target} does not answer as an agent of Stanch does")
    return answer


def _address(target: str) -> tuple[str, int | None]:
    """Return the address of a target and, where it stands for others too, the process meant."""
    if is_url(target):
        return split_url(target)[0], None
    if not (target.isascii() and target.isdigit()):
        raise CliError(f"{target!r} is no process and no URL; {_EXPECTED}", 2)
    agent = agent_of(int(target))
    if agent is None:
        raise CliError(f"process {target} has no agent in sight; {_EXPECTED}", 2)
    return agent.address, agent.pid if agent.one_of_many else None


# ---- text ----


def describe(answer: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of an answer: the whole, the tree of references, what the containers do."""
    yield (
        f"{answer['chosen']} in process {answer['pid']}: {answer['samples']:,} live samples, "
        f"about {_bytes(answer['bytes'])}, are kept alive by"
    )
    total = max(answer["bytes"], 1)
    for branch in answer["paths"]:
        yield from _lines(branch, total, 1)
    acting = [each for each in answer["holders"] if each.get("behaviour")]
    if acting:
        yield ""
    for holder in acting:
        yield f"{holder['name']} ({_size(holder)}): {holder['behaviour']}"
    for note in answer["notes"]:
        yield f"note: {note}"
    cost = answer["search"]
    where = "in the process" if cost["in_process"] else "in a snapshot"
    yield (
        f"{cost['objects']:,} objects searched {where} in {cost['walk_ms']:.0f} ms; "
        f"the process stood still for {cost['pause_ms']:.1f} ms"
    )


def _lines(branch: dict[str, Any], total: int, depth: int) -> Iterator[str]:
    line, below = _branch_text(branch), branch.get("holds", [])
    # References that go on in one way stand on one line.
    while len(below) == 1 and below[0]["samples"] == branch["samples"]:
        branch = below[0]
        line += f" -> {_branch_text(branch)}"
        below = branch.get("holds", [])
    share = f"{branch['bytes'] / total:4.0%} {_bytes(branch['bytes']):>9} {branch['samples']:>6,}"
    yield f"{share}  {'  ' * (depth - 1)}{line}"
    for each in below:
        yield from _lines(each, total, depth + 1)


def _branch_text(branch: dict[str, Any]) -> str:
    size = _size(branch)
    kept = f" of {_bytes(branch['average_bytes'])}" if "average_bytes" in branch else ""
    kind = f"{size}{kept}"
    if not branch["reference"]:
        return kind or "?"
    return f"{branch['reference']} ({kind})" if size else f"{branch['reference']}{kept}"


def _size(each: dict[str, Any]) -> str:
    parts = [each["type"]] if each["type"] else []
    if "containers" in each:
        parts = [f"{each['containers']:,} x {each['type']} of at most {each['length']:,}"]
    elif "length" in each:
        parts.append(f"{each['length']:,} entries")
        if each["bound"] is not None:
            parts.append(f"at most {each['bound']:,}")
        if each["growth_per_second"] is not None:
            parts.append(f"{each['growth_per_second']:+,.4g}/s")
    elif each.get("objects", 1) > 1:
        parts.append(f"{each['objects']:,} seen")
    return ", ".join(parts)


def _bytes(number: float) -> str:
    return format_value(round(number), "bytes")

"""Stanch beside tracemalloc, memray, Scalene, ddtrace's memalloc and pyroscope-io's heap.

    python -m benchmarks.peers [--quick] [--markdown] [--json FILE]
                               [--tool NAME]... [--workload NAME]...

Everything is measured here and now, with the versions that requirements/bench.txt pins, in an
environment of its own. CPU is the ratio with the tool on / off, in pairs of chunks inside one
process, or, of a tool that only wraps a whole process, of runs that take turns with plain ones.
Takes about 15 minutes, with --quick about 5, on a machine that does nothing else.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers import costs, probes
from benchmarks.peers.results import Result
from benchmarks.peers.runs import build_structs
from benchmarks.peers.table import markdown, rows, text
from benchmarks.peers.tools import CONTROL, TOOLS, Tool
from benchmarks.workloads import WORKLOADS


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is measured of each tool: time for pairs, whole runs, estimates, and patience."""

    pair_s: float
    whole_s: float
    whole_runs: int
    estimates: int
    estimates_s: float
    wait_s: float


FULL = Amount(pair_s=5.0, whole_s=1.0, whole_runs=3, estimates=10, estimates_s=20.0, wait_s=75.0)
QUICK = Amount(pair_s=0.5, whole_s=0.3, whole_runs=1, estimates=3, estimates_s=4.0, wait_s=15.0)


def attempt(result: Result, what: str, measure: Callable[[], None]) -> None:
    """Measure; a tool that fails costs its cell, never the table."""
    begin = time.monotonic()
    outcome = "done"
    try:
        measure()
    except Exception as error:  # foreign libraries and formats raise what they like
        result.failures[what] = f"{type(error).__name__}: {error}"
        outcome = f"failed: {error}"
    seconds = time.monotonic() - begin
    print(f"{result.tool}, {what}: {outcome} in {seconds:.1f} s", file=sys.stderr, flush=True)


def compare(tools: list[Tool], workloads: list[str], amount: Amount, library: Path) -> list[Result]:
    """Measure everything, one process at a time but for the probes, which mostly wait."""
    results = {tool.name: Result(tool.name, tool.note) for tool in tools}

    def pairs(tool: Tool, workload: str) -> None:
        ratio = costs.in_pairs(tool, library, workload, amount.pair_s)
        results[tool.name].cpu[workload] = ratio

    def wholes(tool: Tool, workload: str) -> None:
        """Measure the peak; and CPU of a tool that cannot be switched, against plain runs."""
        plain = results[CONTROL].whole.setdefault(workload, [])
        if not plain:
            plain.append(costs.whole(TOOLS[CONTROL], library, workload, amount.whole_s, 0))
        rounds = plain[0].rounds
        under = results[tool.name].whole.setdefault(workload, [])
        beside = []
        for _ in range(1 if tool.switchable else amount.whole_runs):
            under.append(costs.whole(tool, library, workload, 0.0, rounds))
            if not tool.switchable:
                beside.append(costs.whole(TOOLS[CONTROL], library, workload, 0.0, rounds))
        if not tool.switchable:
            plain.extend(beside)
            results[tool.name].cpu[workload] = costs.of_runs(under, beside)

    def estimates(tool: Tool) -> None:
        found = probes.estimates(tool, library, amount.estimates, amount.estimates_s)
        results[tool.name].estimates = found

    def reach(tool: Tool) -> None:
        results[tool.name].reach = probes.reach(tool, library, amount.wait_s)

    watching = [tool for tool in tools if tool.name != CONTROL]
    for workload in workloads:
        for tool in tools:
            result = results[tool.name]
            if tool.switchable:
                attempt(result, f"cpu {workload}", partial(pairs, tool, workload))
            if tool in watching:
                attempt(result, f"peak {workload}", partial(wholes, tool, workload))
    for tool in watching:
        attempt(results[tool.name], "estimates", partial(estimates, tool))
    with ThreadPoolExecutor(len(tools)) as pool:
        for tool in watching:
            pool.submit(attempt, results[tool.name], "reach", partial(reach, tool))
    return list(results.values())


def machine() -> str:
    """Return one sentence about where this was measured, the load included."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    return (
        f"{os.cpu_count()} cores ({models[0] if models else platform.machine()}), "
        f"Linux {platform.release().partition('-')[0]}, {' '.join(platform.libc_ver())}, "
        f"CPython {platform.python_version()}, load average {os.getloadavg()[0]:.1f} at the end"
    )


def versions(tools: list[Tool]) -> dict[str, str]:
    """Return the version of every package compared."""
    packages = {tool.package for tool in tools if tool.package}
    return {package: version(package) for package in sorted(packages)}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="measure less, in about 5 minutes")
    parser.add_argument("--markdown", action="store_true", help="as in benchmarks/README.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--tool", action="append", choices=list(TOOLS), help="only this one")
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no measured process stays
    wanted = arguments.tool or list(TOOLS)
    tools = [
        tool
        for name, tool in TOOLS.items()
        if name == CONTROL or (name in wanted and tool.available())
    ]
    workloads = arguments.workload or list(WORKLOADS)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stanch-bench-") as folder:
        library = build_structs(Path(folder))
        results = compare(tools, workloads, QUICK if arguments.quick else FULL, library)
    facts = {"machine": machine(), "versions": versions(tools), "seconds": time.monotonic() - begin}
    if arguments.json:
        measured = {**facts, "results": [asdict(result) for result in results]}
        arguments.json.write_text(json.dumps(measured, indent=1))
    table = rows(results, workloads)
    if arguments.markdown:
        print(markdown(table))
    else:
        print(text(table, shutil.get_terminal_size((150, 0)).columns))
    print()
    print(
        f"{facts['machine']}; {facts['seconds']:.0f} s. "
        f"{', '.join(f'{name} {number}' for name, number in versions(tools).items())}."
    )
    print()
    for result in results:
        print(f"- {result.tool}: {result.note}.")
        for what, reason in result.failures.items():
            print(f"  - failed, {what}: {reason}")

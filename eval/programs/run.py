"""Runs the real programs, watches them as `stanch watch` does, and judges what it says.

    python -m eval.programs.run [--at-once N] [--only NAME ...] [--life SECONDS] [--part SHARE]

A process counts as dead when its memory is at its limit, which is ROOM above what it has at the
start; a leak takes about sixteen minutes to get there. With --part it is watched until it has
taken that share of its room, and its time of death is reckoned on from its pace. Prints JSON.
"""

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eval.programs.leaks import LEAKS
from eval.programs.lookalikes import LOOKALIKES
from eval.programs.packages import NATIVE, PACKAGES
from eval.programs.prepare import go_program, search_path
from eval.programs.work import ALLOCATES, ROOM, TICKS_PER_S
from stanch.collect import parse_target
from stanch.server.watch import Watcher

STARTS = {"aiohttp 3.10.10": 75_000_000}
PYTHON_START = 34_000_000
GO_START = 12_000_000
"""Memory at the start: of programs with much to import, of the others, and of Go's."""

HEALTHY_S = 520.0
EVERY_S = 5.0
_START_S = 90.0
_LONGEST = 2.5
SHARES = (0.05, 0.10, 0.25, 0.50, 1.0)

GO: dict[str, tuple[str, ...]] = {
    "go map": ("main.remember",),
    "go slice": ("main.keepHeader",),
    "go goroutines": ("main.waitReceipt", "main.askReceipt"),
}
"""Go programs, and what names their leaks."""


def names_of(name: str) -> tuple[str, ...]:
    """The functions or holders that name a leak."""
    if name in GO:
        return GO[name]
    return PACKAGES[name][2] if name in PACKAGES else LEAKS[name][1]


@dataclass(slots=True)
class Played:
    """What became of one program. Times are seconds since all programs had started.

    named_s, credit: when a leak was first rightly accused, and how well its line was named.
    wrong: what was accused that does not leak, and when. seen: time and memory at each look;
    the time of death of a leak that was not watched to its end follows from it.
    """

    name: str
    which: str
    died_s: float | None = None
    named_s: float | None = None
    credit: float = 0.0
    kind: str = ""
    wrong: dict[str, float] = field(default_factory=dict)
    seen: list[tuple[float, float]] = field(default_factory=list)

    @property
    def taken(self) -> float:
        """The share of the room between its first memory and its limit that it has taken."""
        if not self.seen:
            return 0.0
        first, last = self.seen[0][1], self.seen[-1][1]
        return (last - first) / max(self.limit_bytes - first, 1.0)

    def reckon_death(self) -> None:
        """Say when it would die at the pace of the later two thirds of what was seen."""
        later = self.seen[len(self.seen) // 3 :]
        (at_s, before), (now_s, now) = later[0], later[-1]
        if now > before:
            pace = (now - before) / (now_s - at_s)
            self.died_s = now_s + (self.limit_bytes - now) / pace

    @property
    def service(self) -> str:
        """Its name as a service."""
        return f"{self.which}-{self.name}".replace(" ", "-")

    @property
    def limit_bytes(self) -> int:
        """What it may use."""
        other = GO_START if self.name in GO else PYTHON_START
        return STARTS.get(self.name, other) + ROOM

    @property
    def share(self) -> float:
        """When it was accused, as a share of the time to death; infinite when it was not."""
        if self.named_s is None or self.died_s is None:
            return math.inf
        return self.named_s / self.died_s


def everything(only: Sequence[str] = ()) -> list[tuple[str, str]]:
    """All programs: name and which of leak, fixed, healthy."""
    names = [*LEAKS, *PACKAGES, *GO]
    found = [(name, which) for name in names for which in ("leak", "fixed")]
    found += [(name, "healthy") for name in LOOKALIKES]
    return [one for one in found if not only or one[0] in only]


def play(
    programs: Sequence[tuple[str, str]],
    healthy_s: float = HEALTHY_S,
    *,
    until: Callable[[Played], bool] = lambda leak: leak.died_s is not None,
    ticks_per_s: float = TICKS_PER_S,
    every_s: float = EVERY_S,
) -> list[Played]:
    """Run programs at once, until the leaks are `until` and the others have lived their time."""
    played = {one.service: one for one in (Played(name, which) for name, which in programs)}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stanch-eval-")))
        processes: dict[str, subprocess.Popen[bytes]] = {}
        stack.callback(_end, processes)
        targets = {}
        for service, one in played.items():
            processes[service], address = _start(one, directory, ticks_per_s)
            targets[service] = parse_target(f"{address} service={service} limit={one.limit_bytes}")
        _wait_for([directory / f"{one.service}.sock" for one in played.values() if not _is_go(one)])
        with Watcher(tuple(targets.values()), every_s) as watcher:
            _watch(watcher, played, processes, healthy_s, until)
    for one in played.values():
        if one.which == "leak" and one.died_s is None and one.seen:
            one.reckon_death()
    return list(played.values())


def _end(processes: "dict[str, subprocess.Popen[bytes]]") -> None:
    for process in processes.values():
        process.kill()
        process.wait()


def _is_go(one: Played) -> bool:
    return one.name in GO


def _start(
    one: Played, directory: Path, ticks_per_s: float
) -> "tuple[subprocess.Popen[bytes], str]":
    if _is_go(one):
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command = [str(go_program()), one.name, one.which, address, str(ticks_per_s)]
        return _popen(command, None), f"http://{address}"
    listen = f"unix:{directory / one.service}.sock"
    command = [sys.executable, "-m", "stanch.cli.main", "run", "--listen", listen]
    # 128 KiB is what the agent takes by itself below such a limit.
    command += ["--service", one.service, "--interval", "128KiB", "--table", str(directory)]
    command += ["--native"] if one.name in NATIVE else []
    command += ["--", sys.executable, "-m", "eval.programs.host", one.name, one.which]
    command += [str(ticks_per_s)]
    return _popen(command, search_path(one.name, one.which)), listen


def _popen(command: list[str], first: Path | None) -> "subprocess.Popen[bytes]":
    root = Path(__file__).parents[2]
    path = os.pathsep.join(str(one) for one in (first, root) if one is not None)
    environment = os.environ | {"PYTHONPATH": path}
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=root, stdout=nothing, stderr=nothing, env=environment)


def _wait_for(paths: Sequence[Path]) -> None:
    end_s = time.monotonic() + _START_S
    while not all(path.exists() for path in paths):
        if time.monotonic() > end_s:
            missing = ", ".join(path.name for path in paths if not path.exists())
            raise RuntimeError(f"no socket within {_START_S:g} s: {missing}")
        time.sleep(0.1)


def _watch(
    watcher: Watcher,
    played: dict[str, Played],
    processes: "dict[str, subprocess.Popen[bytes]]",
    healthy_s: float,
    until: Callable[[Played], bool],
) -> None:
    began_s = time.monotonic()
    for state in watcher.run(for_s=_LONGEST * healthy_s):
        now_s = time.monotonic() - began_s
        for finding in state.confirmed:
            _note(played[finding.service], finding, now_s)
        for row in state.rows:
            one = played.get(row.service)
            if one is None or one.died_s is not None or row.memory_bytes is None:
                continue
            one.seen.append((now_s, row.memory_bytes))
            if one.which == "leak" and row.memory_bytes >= one.limit_bytes:
                one.died_s = now_s
                processes[row.service].kill()
        leaking = [one for one in played.values() if one.which == "leak"]
        if now_s >= healthy_s and all(until(one) for one in leaking):
            return


def _note(one: Played, finding: Any, now_s: float) -> None:
    right = names_of(one.name) if one.which == "leak" else ()
    named = (finding.function, finding.holder, finding.taken_by)
    exact = any(
        name == finding.function or (name and any(name in text for text in named)) for name in right
    )
    if exact or (right and finding.function.rpartition(".")[2] == ALLOCATES):
        if one.named_s is None:
            one.named_s, one.kind = now_s, finding.kind
        # What holds it may be found a look later; the finding then names it from there on.
        one.credit = max(one.credit, 1.0 if exact else 0.5)
    else:
        one.wrong.setdefault(finding.function or "native memory", now_s)


def summary(played: Sequence[Played]) -> dict[str, Any]:
    """Recall by share of the time to death, precision, lines, false accusations."""
    leaks = [one for one in played if one.which == "leak"]
    named = [one for one in leaks if one.named_s is not None]
    wrong = sum(len(one.wrong) for one in played)
    return {
        "programs": len(played),
        "leaks": len(leaks),
        "recall": {
            f"{share:.0%}": sum(one.share <= share for one in leaks) / max(len(leaks), 1)
            for share in SHARES
        },
        "precision": len(named) / (len(named) + wrong) if named or wrong else None,
        "line_credit": sum(one.credit for one in named) / len(named) if named else None,
        "wrong": {f"{one.which} {one.name}": one.wrong for one in played if one.wrong},
        "each": [_told(one) for one in leaks],
    }


def _told(one: Played) -> dict[str, Any]:
    told = asdict(one) | {"share": one.share, "taken": one.taken}
    del told["seen"]
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    """Play everything; print how far it is on stderr, and the JSON."""
    parser = argparse.ArgumentParser(prog="python -m eval.programs.run", description=__doc__)
    parser.add_argument("--at-once", type=int, default=20, help="programs at a time (%(default)s)")
    parser.add_argument("--only", nargs="*", default=(), help="names of programs")
    parser.add_argument("--life", type=float, default=HEALTHY_S, help="seconds the healthy live")
    parser.add_argument("--part", type=float, default=1.0, help="of the room, that leaks take")
    chosen = parser.parse_args(arguments)
    programs = everything(chosen.only)
    played: list[Played] = []
    for first in range(0, len(programs), chosen.at_once):
        played += play(
            programs[first : first + chosen.at_once],
            chosen.life,
            until=lambda leak: leak.died_s is not None or leak.taken >= chosen.part,
        )
        print(f"{len(played)} of {len(programs)} programs", file=sys.stderr, flush=True)
    print(json.dumps(summary(played), indent=1))


if __name__ == "__main__":
    main()

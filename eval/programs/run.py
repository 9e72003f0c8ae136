"""Runs the real programs under `stanch run`, watches them as `stanch watch` does, and judges.

A process counts as dead when its memory is at its limit, which is SPARE above what it has at the
start; a leak takes about four minutes to get there. Prints a table, or JSON.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eval.programs.leaks import LEAKS
from eval.programs.lookalikes import LOOKALIKES, ROOM
from stanch.collect import parse_target
from stanch.server.watch import Watcher

LIMIT_BYTES = 34_000_000 + ROOM
HEALTHY_S = 260.0
EVERY_S = 2.5
_START_S = 60.0
_ALLOCATES = "payload"
SHARES = (0.05, 0.10, 0.25, 0.50, 1.0)


@dataclass(slots=True)
class Played:
    """What became of one program. Times are seconds since its socket was there.

    named_s, credit: when a leak was first rightly accused, and how well its line was named then.
    wrong: what was accused that does not leak.
    """

    name: str
    which: str
    died_s: float | None = None
    named_s: float | None = None
    credit: float = 0.0
    kind: str = ""
    wrong: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """When it was accused, as a share of the time to death; infinite when it was not."""
        if self.named_s is None or self.died_s is None:
            return math.inf
        return self.named_s / self.died_s


def everything() -> list[tuple[str, str]]:
    """All programs: name and which of leak, fixed, healthy."""
    leaks = [(name, which) for name in LEAKS for which in ("leak", "fixed")]
    return leaks + [(name, "healthy") for name in LOOKALIKES]


def play(programs: Sequence[tuple[str, str]], healthy_s: float = HEALTHY_S) -> list[Played]:
    """Run programs at once, until the leaks are dead and the others have lived their time."""
    played = {f"{which}-{name}".replace(" ", "-"): Played(name, which) for name, which in programs}
    with tempfile.TemporaryDirectory(prefix="stanch-eval-") as directory:
        processes = {
            service: _start(one, service, Path(directory)) for service, one in played.items()
        }
        try:
            sockets = {service: Path(directory) / f"{service}.sock" for service in played}
            _wait_for(list(sockets.values()))
            limit = f"limit={LIMIT_BYTES}"
            targets = {
                service: parse_target(f"unix:{path} service={service} {limit}")
                for service, path in sockets.items()
            }
            _watch(played, processes, targets, healthy_s)
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
    return list(played.values())


def _start(one: Played, service: str, directory: Path) -> "subprocess.Popen[bytes]":
    socket = f"unix:{directory / service}.sock"
    command = [sys.executable, "-m", "stanch.cli.main", "run", "--listen", socket]
    command += ["--service", service, "--interval", "128KiB", "--table", str(directory), "--"]
    command += [sys.executable, "-m", "eval.programs.host", one.name, one.which]
    output = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=output, stderr=output)


def _wait_for(paths: Sequence[Path]) -> None:
    end_s = time.monotonic() + _START_S
    while not all(path.exists() for path in paths):
        if time.monotonic() > end_s:
            missing = ", ".join(path.name for path in paths if not path.exists())
            raise RuntimeError(f"no socket within {_START_S:g} s: {missing}")
        time.sleep(0.1)


def _watch(
    played: dict[str, Played],
    processes: "dict[str, subprocess.Popen[bytes]]",
    targets: dict[str, Any],
    healthy_s: float,
) -> None:
    began_s, longest_s = time.monotonic(), 2.5 * healthy_s
    with Watcher(tuple(targets.values()), EVERY_S) as watcher:
        for state in watcher.run(for_s=longest_s):
            now_s = time.monotonic() - began_s
            for finding in state.confirmed:
                _note(played[finding.service], finding, now_s)
            for row in state.rows:
                one = played.get(row.service)
                if one is None or one.died_s is not None:
                    continue
                if (row.memory_bytes or 0) >= LIMIT_BYTES:
                    one.died_s = now_s
                    processes[row.service].kill()
            leaking = [one for one in played.values() if one.which == "leak"]
            if now_s >= healthy_s and all(one.died_s is not None for one in leaking):
                return


def _note(one: Played, finding: Any, now_s: float) -> None:
    right = LEAKS[one.name][1] if one.which == "leak" else ()
    exact = finding.function in right or any(name and name in finding.holder for name in right)
    if exact or (right and finding.function == _ALLOCATES):
        if one.named_s is None:
            one.named_s, one.kind = now_s, finding.kind
        # What holds it may be found a look later; the finding then names it from there on.
        one.credit = max(one.credit, 1.0 if exact else 0.5)
    elif finding.function not in one.wrong:
        one.wrong.append(finding.function or "native memory")


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
        "each": [asdict(one) | {"share": one.share} for one in leaks],
    }


def main(at_once: int = 15) -> None:
    """Play everything and print a line for each leak, the wrong accusations, and the JSON."""
    programs = everything()
    played: list[Played] = []
    for first in range(0, len(programs), at_once):
        played += play(programs[first : first + at_once])
        print(f"{len(played)} of {len(programs)} programs", file=sys.stderr, flush=True)
    print(json.dumps(summary(played), indent=1))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[2]))
    main(*(int(argument) for argument in sys.argv[1:]))

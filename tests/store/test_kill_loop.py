"""Whatever was acknowledged is stored, once, at whatever instant the process is killed."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from stanch.store.sqlstore import open_store
from tests.store.killed import value_of

ROUNDS = int(os.environ.get("STANCH_TEST_KILL_ROUNDS", "6"))
"""So many processes are killed, 200 of them behind the figure in benchmarks/README.md."""
_CHECKED_EACH = 10


def test_an_acknowledged_profile_survives_sigkill(tmp_path: Path) -> None:
    """After each kill every acknowledged profile is there exactly once, with all its samples."""
    chance = random.Random(20)
    acknowledged: set[int] = set()
    first = 0
    for number in range(ROUNDS):
        told = _run_until_killed(tmp_path, first, chance)
        acknowledged |= told
        # Those that were not acknowledged may be there too: the next process begins behind them.
        first = max(acknowledged, default=-1) + 1000
        if (number + 1) % _CHECKED_EACH == 0 or number + 1 == ROUNDS:
            _check(tmp_path, acknowledged)
    assert len(acknowledged) > ROUNDS


def _run_until_killed(directory: Path, first: int, chance: random.Random) -> set[int]:
    """Kill a process after a random number of acknowledgements, or while it is opening."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.store.killed", str(directory), str(first)],
        stdout=subprocess.PIPE,
    )
    told: set[int] = set()
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        wanted = chance.choice((0, 1, 5, 40, 200, 400))
        while len(told) < wanted:
            told.add(int(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        # A whole line was an acknowledgement, also one that was not read before the kill.
        rest = process.stdout.read().split(b"\n")[:-1]
        told |= {int(line) for line in rest}
    assert process.returncode == -signal.SIGKILL
    return told


def _check(directory: Path, acknowledged: set[int]) -> None:
    with open_store("chdb", directory) as store:
        store.flush()
        rows = store.engine.query(
            "SELECT live_bytes, count(), sum(alloc_bytes) FROM samples"
            " WHERE kind = 'heap' GROUP BY live_bytes"
        )
        stored = {live: (count, allocated) for live, count, allocated in rows}
        missing = {number for number in acknowledged if value_of(number) not in stored}
        assert not missing
        assert all(count == 1 for count, _ in stored.values())
        assert all(allocated == 2 * live for live, (_, allocated) in stored.items())
        ((profiles, names),) = store.engine.query(
            "SELECT count(), uniqExact(profile) FROM profiles"
        )
        assert profiles == names == len(stored)
        ((unknown,),) = store.engine.query(
            "SELECT count() FROM samples WHERE stack NOT IN (SELECT stack FROM stacks)"
        )
        assert unknown == 0

"""The server's loops on real services: scraped and pushed, stored, judged, written down."""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from stanch.collect import Target, parse_target
from stanch.collect.received import Receiver
from stanch.server.fleet import Fleet, FleetOptions
from stanch.server.ingest import ingest_routes
from stanch.server.watch import WatchState
from stanch.store.history import TimeRange
from stanch.store.intake import IntakeBounds
from stanch.store.sqlstore import open_store
from tests.cli.watched import STANCH, build_go, running
from tests.server.serving import serving

PATIENCE_S = 150.0
QUICK = FleetOptions(every_s=0.5, detect_every_s=0.5)
BOUNDS = IntakeBounds(seconds=0.2)
LEAK = """
import time
kept = []

def remember(number):
    kept.append(bytearray(2000 + number % 7))

while True:
    for number in range(40):
        remember(number)
    time.sleep(0.01)
"""


@dataclass
class Targets:
    """Targets that a test changes."""

    listed: tuple[Target, ...]
    error: str | None = None

    def targets(self) -> tuple[Target, ...]:
        """The targets of this moment."""
        return self.listed


@dataclass
class Told:
    """Collects the states of the detection and waits for one."""

    states: list[WatchState] = field(default_factory=list)

    async def until(self, wanted: Callable[[WatchState], bool]) -> WatchState:
        """The first state that is wanted; fails after PATIENCE_S."""
        until = time.monotonic() + PATIENCE_S
        while True:
            for state in self.states:
                if wanted(state):
                    return state
            assert time.monotonic() < until, self.states[-1:]
            await asyncio.sleep(0.1)


def confirms(service: str) -> Callable[[WatchState], bool]:
    """Whether a state accuses a service."""
    return lambda state: any(one.service == service for one in state.confirmed)


def run_fleet(fleet: Fleet, meanwhile: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run the loops until `meanwhile` has returned."""

    async def run() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(fleet.run(stop))
        try:
            await meanwhile()
        finally:
            stop.set()
            await task

    asyncio.run(run())


def test_a_scraped_leak_is_found_and_written_down(tmp_path: Path) -> None:
    """Go without an agent: scrapes go into chDB, the detector reads them there and names the line.

    A new fleet over the same store goes on with the finding; a target that is down says so.
    """
    program = build_go(tmp_path)
    with (
        running(program, "leaky") as leaky,
        running(program, "healthy") as healthy,
        open_store("chdb", tmp_path / "data", bounds=BOUNDS) as store,
    ):
        assert leaky.stdout is not None
        assert healthy.stdout is not None
        ports = [process.stdout.readline().strip() for process in (leaky, healthy)]
        targets = Targets(
            (
                parse_target(f"http://127.0.0.1:{ports[0]} service=ledger limit=160MiB"),
                parse_target(f"http://127.0.0.1:{ports[1]} service=twin limit=160MiB"),
                parse_target("http://127.0.0.1:9 service=gone"),
            )
        )
        told = Told()

        async def confirmed() -> None:
            await told.until(confirms("ledger"))

        run_fleet(Fleet(store, targets, QUICK, told=told.states.append), confirmed)
        (finding,) = [one for one in store.history.findings("ledger") if one.stage == "confirmed"]
        assert (finding.status, finding.function) == ("firing", "main.post")
        assert finding.file.endswith("main.go")
        assert not [one for one in store.history.findings("twin") if one.stage == "confirmed"]
        health = {row.service: row for row in store.history.targets()}
        assert "connect" in health["gone"].error
        assert health["gone"].last_good_unix_s is None
        assert health["twin"].error == ""
        assert health["twin"].duration_s is not None
        first = finding.first_unix_s
        again = Told()

        async def goes_on() -> None:
            state = await again.until(confirms("ledger"))
            assert not any(one.service == "ledger" for one in state.new)

        run_fleet(Fleet(store, targets, QUICK, told=again.states.append), goes_on)
        later = store.history.finding(finding.finding)
        assert later is not None
        assert (later.first_unix_s, later.last_unix_s > finding.last_unix_s) == (first, True)


def test_a_pushed_leak_is_found(tmp_path: Path) -> None:
    """A Python process that only pushes is judged by what the store knows of it."""
    script = tmp_path / "remembering.py"
    script.write_text(LEAK)
    with open_store("chdb", tmp_path / "data", bounds=BOUNDS) as store:
        told = Told()
        fleet = Fleet(store, Targets(()), QUICK, told=told.states.append)
        receiver = Receiver(store, time.time, fleet.heard)
        push = ("--push-every", "1s", "--service", "pushing", "--interval", "64KiB")
        with serving([*ingest_routes(receiver)]) as url:
            command = (*STANCH, "run", "--push", f"{url}/api/v1/push", *push, "--", sys.executable)

            async def found() -> None:
                await told.until(
                    lambda state: any(one.function == "remember" for one in state.findings)
                )

            with running(*command, script):
                run_fleet(fleet, found)
        life = store.history.lives("pushing", TimeRange(time.time() - 600, time.time() + 60))[0]
        assert life.language == "python"
        (target,) = store.history.targets()
        assert (target.origin, target.service) == ("push", "pushing")


def test_what_keeps_a_scraped_leak_is_asked_for(tmp_path: Path) -> None:
    """A leak of a scraped Python process is written down with the path to its root."""
    script = tmp_path / "remembering.py"
    script.write_text(LEAK)
    socket = tmp_path / "agent.sock"
    listen = ("--listen", f"unix:{socket}", "--service", "kept", "--interval", "64KiB")
    target = parse_target(f"unix:{socket} service=kept limit=160MiB")
    with open_store("chdb", tmp_path / "data", bounds=BOUNDS) as store:

        async def explained() -> None:
            until = time.monotonic() + PATIENCE_S
            while not (
                found := [
                    row for row in store.history.findings("kept") if row.retention is not None
                ]
            ):
                assert time.monotonic() < until
                await asyncio.sleep(0.2)
            assert found[0].function == "remember"
            assert "kept" in str(found[0].retention)

        with running(*STANCH, "run", *listen, "--", sys.executable, script):
            run_fleet(Fleet(store, Targets((target,)), QUICK), explained)

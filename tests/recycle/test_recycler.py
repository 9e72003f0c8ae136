"""The recycler with real commands: courses, failures, hangs, kills, and a second server."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from stanch.journal import Journal
from stanch.recycle import RecyclePolicy, Recycler, Replica
from stanch.recycle.backends import Backend, RecycleError
from stanch.recycle.backends.command import CommandBackend, run_command, systemd_backend
from stanch.recycle.book import Recycle, clear, recycles

POLICY = RecyclePolicy(
    "shop", spacing_s=0.0, most_at_once=2, settle_s=0.1, drain_s=20.0, end_s=60.0, ready_s=60.0
)


@dataclass
class Farm:
    """Six replicas whose state is files: commands drain, end and restore them.

    A replica dies of its leak unless it has ended since; `write` shows what was done, in order.
    """

    directory: Path
    flying: dict[str, float] = field(default_factory=dict)
    gathered: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    down: set[str] = field(default_factory=set)

    def backend(self, end: str = "") -> CommandBackend:
        """Commands that write what they do into a file, and end a replica by a file."""
        say = f'echo "$1 $2" >> {self.directory}/done'
        end = end or f"{say}; touch {self.directory}/ended-$2"
        return CommandBackend(
            ("sh", "-c", end, "sh", "end", "{instance}"),
            ("sh", "-c", say, "sh", "drain", "{instance}"),
            ("sh", "-c", say, "sh", "restore", "{instance}"),
        )

    def done(self, instance: str = "") -> list[str]:
        """What was done, in order, to an instance or to all."""
        path = self.directory / "done"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.endswith(instance)]

    def ended(self, number: int) -> bool:
        return (self.directory / f"ended-shop-{number}").exists()

    def replicas(self) -> list[Replica]:
        return [
            Replica(
                "shop",
                name := f"shop-{number}",
                healthy=name not in self.down,
                leaks=not self.ended(number),
                death_s=10.0 + number,
                leak="leak in shop",
                life="2" if self.ended(number) else "1",
            )
            for number in range(6)
        ]

    def gather(self, service: str, instance: str) -> dict[str, object]:
        self.gathered.append(instance)
        return {"profile": "kept.pb.gz"}

    def in_flight(self, service: str, instance: str) -> float | None:
        return self.flying.get(instance)

    def taken_out(self, service: str, instance: str, reason: str) -> None:
        self.taken.append(instance)


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    """A farm whose six replicas are all due."""
    (tmp_path / "farm").mkdir()
    return Farm(tmp_path / "farm")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal of its own."""
    with Journal(tmp_path / "data") as journal:
        yield journal


def until(recycler: Recycler, farm: Farm, condition: Callable[[], bool]) -> None:
    """Look until a condition holds, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, (farm.done(), recycler.take_events())
        recycler.observe(farm.replicas())
        time.sleep(0.02)


def on_record(journal: Journal) -> list[Recycle]:
    with journal.read() as transaction:
        return recycles(transaction)[::-1]


def make(journal: Journal, farm: Farm, backend: Backend, **changes: object) -> Recycler:
    policy = replace(POLICY, **changes)  # type: ignore[arg-type]
    return Recycler(journal, [(policy, backend)], farm)


def test_all_are_taken_out_in_turn_and_never_too_many(journal: Journal, farm: Farm) -> None:
    """Evidence, drain, end, restore of each, those that die first before the others."""
    recycler = make(journal, farm, farm.backend())
    most = 0
    deadline = time.monotonic() + 60
    while len([each for each in on_record(journal) if each.step == "done"]) < 6:
        assert time.monotonic() < deadline
        recycler.observe(farm.replicas())
        under_way = [e for e in on_record(journal) if e.step not in ("done", "failed")]
        most = max(most, len(under_way))
        time.sleep(0.01)
    recycler.close()
    assert most == 2
    for number in range(6):
        name = f"shop-{number}"
        assert farm.done(name) == [f"drain {name}", f"end {name}", f"restore {name}"]
    assert sorted(farm.gathered) == sorted(farm.taken) == [f"shop-{n}" for n in range(6)]
    assert [each.instance for each in on_record(journal)] == [f"shop-{n}" for n in range(6)]
    about = on_record(journal)[0].about
    assert about["evidence"] == {"profile": "kept.pb.gz"}
    assert about["reason"] == "at its limit in 10 s: leak in shop"
    assert {event.what for event in recycler.take_events()} == {"begun", "done"}


def test_requests_in_flight_are_waited_for(journal: Journal, farm: Farm) -> None:
    """The end comes when the last request is done, or when the wait has been long enough."""
    farm.flying = {"shop-0": 3.0, "shop-1": 3.0}
    recycler = make(journal, farm, farm.backend(), drain_s=3.0)
    until(recycler, farm, lambda: len(farm.done()) >= 2)
    assert farm.done() in (
        ["drain shop-0", "drain shop-1"],
        ["drain shop-1", "drain shop-0"],
    )
    farm.flying["shop-0"] = 0.0
    until(recycler, farm, lambda: "end shop-0" in farm.done())
    until(recycler, farm, lambda: "end shop-1" in farm.done())
    until(recycler, farm, lambda: sum(e.step == "done" for e in on_record(journal)) >= 2)
    left = {each.instance: each.about["in_flight"] for each in on_record(journal)[:2]}
    assert left == {"shop-0": 0.0, "shop-1": 3.0}
    recycler.close()


def test_a_dry_run_says_what_it_would_do_and_does_nothing(journal: Journal, farm: Farm) -> None:
    """Once for each replica and life."""
    recycler = make(journal, farm, farm.backend(), dry_run=True)
    for _ in range(3):
        recycler.observe(farm.replicas())
    events = recycler.take_events()
    assert [(event.what, event.instance) for event in events] == [
        ("would", "shop-0"),
        ("would", "shop-1"),
    ]
    assert events[0].text == "would be recycled: at its limit in 10 s: leak in shop"
    assert (farm.done(), on_record(journal)) == ([], [])
    assert recycler.harmless("shop") is None
    recycler.close()


def test_a_command_that_hangs_is_killed_and_stops_recycling(journal: Journal, farm: Farm) -> None:
    """It is put back into service, nothing more is taken out until somebody clears it."""
    backend = farm.backend(end="sleep 600 & sleep 600")
    recycler = make(journal, farm, backend, end_s=1.0, most_at_once=1)
    until(recycler, farm, lambda: bool(recycler.stopped))
    assert recycler.stopped == {
        "shop": "the last one failed: sh did not end within 1 s, and was killed"
    }
    assert recycler.harmless("shop") is None
    assert farm.done() == ["drain shop-0", "restore shop-0"]
    for _ in range(3):
        recycler.observe(farm.replicas())
    assert [each.step for each in on_record(journal)] == ["failed"]
    assert farm.taken == ["shop-0"]
    with journal.write() as transaction:
        assert clear(transaction, "shop") == 1
    until(recycler, farm, lambda: len(on_record(journal)) == 2)
    recycler.close()


def test_one_that_does_not_come_back_stops_recycling(journal: Journal, farm: Farm) -> None:
    """A replica that is not healthy again in time is a failure."""
    farm.down = set()
    backend = farm.backend(end=f"touch {farm.directory}/gone")

    recycler = make(journal, farm, backend, ready_s=0.5, most_at_once=1)
    until(recycler, farm, lambda: bool(recycler.stopped))
    assert recycler.stopped["shop"] == "the last one failed: not healthy again after 0.5 s"
    recycler.close()


def test_a_recycler_that_was_killed_is_made_up_for(journal: Journal, farm: Farm) -> None:
    """The next one puts what was out back into service, and goes on within the same budget."""
    code = """
import sys
from pathlib import Path
from stanch.journal import Journal
from stanch.recycle import Recycler
from tests.recycle.test_recycler import POLICY, Farm
farm = Farm(Path(sys.argv[2]))
backend = farm.backend(end="echo killed > /dev/null; sleep 600")
recycler = Recycler(Journal(Path(sys.argv[1])), [(POLICY, backend)], farm)
while len(farm.done()) < 2:
    recycler.observe(farm.replicas())
print("amid", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(journal.path.parent), str(farm.directory)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "amid\n"
        waiting = make(journal, farm, farm.backend())
        waiting.observe(farm.replicas())
        assert len(on_record(journal)) == 2  # the second server waits while the first lives
        process.kill()
    until(waiting, farm, lambda: sum(e.step == "done" for e in on_record(journal)) == 6)
    assert [each.step for each in on_record(journal)[:2]] == ["abandoned", "abandoned"]
    assert farm.done()[2:4] == ["restore shop-0", "restore shop-1"]
    waiting.close()


def test_recycling_keeps_a_leak_harmless_until_one_dies_of_it(journal: Journal, farm: Farm) -> None:
    """With a policy that works the leak is harmless; after an OOM kill, for an hour, it is not."""
    recycler = make(journal, farm, farm.backend())
    assert recycler.harmless("shop") is None
    recycler.observe(farm.replicas())
    assert recycler.harmless("shop") == "it is recycled before its memory limit"
    assert recycler.harmless("cart") is None
    recycler.note_oom("shop", time.time())
    assert recycler.harmless("shop") is None
    recycler.note_oom("shop", time.time() - 3601.0)
    assert recycler.harmless("shop") is not None
    recycler.close()


def test_other_services_are_left_alone(journal: Journal, farm: Farm) -> None:
    """Without a policy of its name nothing is done to a service."""
    recycler = make(journal, farm, farm.backend(), service="cart")
    recycler.observe(farm.replicas())
    assert (farm.done(), on_record(journal)) == ([], [])
    recycler.close()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("/no/such/program",), "/no/such/program cannot be run: No such file"),
        (("sh", "-c", "echo why; exit 3"), "sh ended with status 3: why"),
        (("sh", "-c", "sleep 600 & sleep 600"), "sh did not end within 0.5 s, and was killed"),
    ],
)
def test_what_is_wrong_with_a_command_is_one_sentence(command: tuple[str, ...], says: str) -> None:
    """A program that is not there, a status, a time that is over."""
    with pytest.raises(RecycleError) as error:
        run_command(command, "shop", "shop-1", 0.5)
    assert str(error.value).startswith(says)


def test_no_shell_sees_the_names() -> None:
    """A name with odd characters is one word."""
    run_command(("test", "{instance}", "=", "; exit 1 $(x)"), "shop", "; exit 1 $(x)", 30.0)


def test_a_systemd_unit_is_restarted_by_its_name() -> None:
    """The unit may hold the instance, and cannot be taken for an option."""
    backend = systemd_backend("shop@{instance}.service")
    assert backend.end_command == ("systemctl", "restart", "--", "shop@{instance}.service")

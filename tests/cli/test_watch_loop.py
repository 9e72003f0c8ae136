"""The Watcher's loop against real servers, under a clock that the test sets."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stanch.collect import FileTargets, Scrape, parse_target
from stanch.server.watch import Watcher, WatchState
from stanch.store import MemoryStore, StoreBounds
from tests.collect.answers import Answer, Served, python_heap, serving

MIB = 1024 * 1024
EVERY_S = 2.5


@dataclass
class Clock:
    """A clock that only moves when somebody sleeps."""

    now_s: float = 5000.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now_s += seconds


@dataclass
class Service:
    """A process that leaks `rate` bytes per second since it began, as its endpoint tells it."""

    served: Served
    clock: Clock
    began_s: float
    rate: float = 1.0 * MIB
    pid: int = 10

    def tell(self) -> None:
        """Set the answers to what they are now."""
        age_s = self.clock.now_s - self.began_s
        bands = int(age_s // 5)
        births = [int(5 * self.rate)] * bands + [int((age_s - 5 * bands) * self.rate)]
        heap = python_heap(sum(births), births=tuple(births), age_s=age_s, pid=self.pid)
        metrics = f"process_resident_memory_bytes {50 * MIB + 1.1 * self.rate * age_s}\n"
        metrics += f"stanch_memory_limit_bytes {160 * MIB}\nstanch_requests_total {20 * age_s}\n"
        self.served.answers["/debug/pprof/heap"] = Answer(heap)
        self.served.answers["/metrics"] = Answer(metrics.encode())

    def restart(self) -> None:
        """Begin anew under another pid."""
        self.began_s, self.pid = self.clock.now_s - 1.0, self.pid + 1


@pytest.fixture
def service() -> Iterator[Service]:
    """Give a service that has just begun."""
    with serving({}) as served:
        clock = Clock()
        yield Service(served, clock, began_s=clock.now_s - 1.0)


def watching(service: Service, **options: object) -> Watcher:
    """A watcher of the service, under its clock."""
    clock = service.clock
    return Watcher(
        [parse_target(service.served.url)],
        EVERY_S,
        monotonic=lambda: clock.now_s,
        wall=lambda: 1.7e9 + clock.now_s,
        sleep=clock.sleep,
        **options,  # type: ignore[arg-type]
    )


def steps(watcher: Watcher, service: Service, count: int) -> list[WatchState]:
    """So many steps, EVERY_S apart."""
    states = []
    for _ in range(count):
        service.tell()
        states.append(watcher.step())
        service.clock.sleep(EVERY_S)
    return states


def test_a_finding_develops_and_is_told_as_news_once(service: Service) -> None:
    """The leak is new, then changes its stage, is confirmed in time, and stays so."""
    with watching(service) as watcher:
        states = steps(watcher, service, 32)
    news = [
        (name, finding.stage)
        for state in states
        for name in ("new", "changed", "resolved")
        for finding in getattr(state, name)
    ]
    assert news == [("new", "suspect"), ("changed", "probable"), ("changed", "confirmed")]
    first = next(state for state in states if state.confirmed)
    life_s = 110 / 1.1
    assert first.elapsed_s < 0.5 * life_s
    (finding,) = states[-1].confirmed
    assert (finding.service, finding.function, finding.line) == ("shop", "remember", 41)
    assert finding.first_seen_unix < 1.7e9 + 5000.0 + first.elapsed_s
    (row,) = states[-1].rows
    assert (row.verdict, row.limit_bytes) == ("leak", 160 * MIB)
    assert row.growth_bytes_per_second == pytest.approx(1.1 * MIB, rel=0.01)


def test_after_a_death_the_next_life_is_accused_at_once(service: Service) -> None:
    """A life that ended at its limit keeps the finding confirmed through the restart."""
    with watching(service) as watcher:
        steps(watcher, service, 38)
        service.restart()
        states = steps(watcher, service, 14)
    assert all(state.confirmed for state in states)
    assert not any(state.resolved for state in states)
    assert "died at the limit while this grew" in " ".join(states[-1].confirmed[0].evidence)


def test_a_repaired_service_resolves_its_finding(service: Service) -> None:
    """When a new process, not after a death, no longer grows, the finding is resolved."""
    with watching(service) as watcher:
        states = steps(watcher, service, 24)
        assert states[-1].confirmed
        service.restart()
        service.rate = 0.0
        states = steps(watcher, service, 30)
    assert [one.function for state in states for one in state.resolved] == ["remember"]
    assert states[-1].findings == ()
    assert states[-1].rows[0].verdict == "steady"


def test_a_target_that_fails_is_a_row_with_an_error(service: Service) -> None:
    """While it fails the row is down with its last memory; it goes on where it was."""
    with watching(service) as watcher:
        steps(watcher, service, 3)
        service.served.answers.clear()
        service.served.answers["/metrics"] = Answer(b"<html>", 200)
        state = watcher.step()
        assert state.rows[0].verdict == "down"
        assert state.rows[0].error is not None
        assert state.rows[0].memory_bytes is not None
        assert state.rows[0].seconds_to_death is None
        service.clock.sleep(EVERY_S)
        (state,) = steps(watcher, service, 1)
    assert state.rows[0].error is None
    assert state.rows[0].verdict != "down"


def test_a_target_that_never_answered_is_down() -> None:
    """Its row has nothing but the error, and the watcher knows that nobody ever answered."""
    with serving({}) as gone:
        pass
    with Watcher([parse_target(f"{gone.url} service=shop")], EVERY_S) as watcher:
        (row,) = watcher.step().rows
        assert not watcher.answered
    assert (row.service, row.verdict, row.memory_bytes) == ("shop", "down", None)
    assert row.error is not None


def test_runs_in_step_with_its_clock_and_no_longer_than_asked(service: Service) -> None:
    """Steps begin `every_s` apart, and a run of 10 s has four of them."""
    service.tell()
    with watching(service) as watcher:
        states = list(watcher.run(10.0))
    assert [state.step for state in states] == [1, 2, 3, 4]
    assert service.clock.slept == [EVERY_S] * 3


def test_no_text_is_made_of_what_was_scraped(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step in the main thread does not format the profiles: it would cost more than all else."""
    formatted: list[Scrape] = []

    def text(scrape: Scrape) -> str:
        formatted.append(scrape)  # an exception would be swallowed by reprlib
        return "a scrape"

    monkeypatch.setattr(Scrape, "__repr__", text)
    service.tell()
    with watching(service) as watcher:
        assert watcher.step().rows[0].memory_bytes
    assert formatted == []


def test_a_step_that_takes_too_long_is_followed_at_once(service: Service) -> None:
    """Time lost is not made up by a burst of steps."""
    service.tell()
    with watching(service) as watcher:
        run = watcher.run(20.0)
        next(run)
        service.clock.now_s += 7.0
        next(run)
        next(run)
    assert service.clock.slept == [0.0, EVERY_S]


def test_a_target_taken_out_of_the_file_is_forgotten(service: Service, tmp_path: Path) -> None:
    """The file is read again before each step; what is no longer in it has no row."""
    path = tmp_path / "targets.txt"
    service.tell()
    path.write_text(f"{service.served.url}/a\n{service.served.url}\n")
    with Watcher(FileTargets(path), EVERY_S) as watcher:
        assert len(watcher.step().rows) == 2
        path.write_text(f"{service.served.url}/a\n")
        state = watcher.step()
        assert [row.instance for row in state.rows] == [f"{service.served.url[7:]}/a"]
        path.write_text("nonsense\n")
        state = watcher.step()
    assert state.source_error is not None
    assert "line 1" in state.source_error


def test_instances_beyond_the_store_are_told(service: Service) -> None:
    """When there is no room for an instance, that is said and the others go on."""
    service.tell()
    service.served.answers["/a/metrics"] = service.served.answers["/metrics"]
    targets = [parse_target(f"{service.served.url}{path}") for path in ("", "/a")]
    store = MemoryStore(StoreBounds(instances=1))
    with Watcher(targets, 0.1, store=store) as watcher:
        state = watcher.step()
    assert state.source_error == "there is no room for 1 of the instances, which are not judged"
    assert len(state.rows) == 2

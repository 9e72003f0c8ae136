"""Which targets a server scrapes, of those that several of them know."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stanch.collect import Target, parse_target
from stanch.server.division import Division
from stanch.server.members import owner_of, ranked
from stanch.server.sharing import Sharing
from stanch.store.history import TargetRow
from stanch.store.sqlshared import Beat, write_beat
from stanch.store.sqlstore import SqlStore, open_store

NOW = 1_800_000_000.0
NAMES = ("ann", "bob", "cem")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    """The tables; what is in them is the same on a cluster."""
    with open_store("chdb", tmp_path, wall=lambda: NOW) as opened:
        yield opened


class Ann:
    """One of three servers, with a clock that the test sets."""

    def __init__(self, store: SqlStore) -> None:
        self.now_s = 1000.0
        self.store = store
        for name in ("bob", "cem"):
            write_beat(store.engine, Beat(name, 1, 40, NAMES))
        sharing = Sharing(store.engine, "ann", clock=lambda: self.now_s)
        for _ in range(2):
            sharing.sign()
        assert sharing.standing().members == NAMES
        self.division = Division(store, sharing, monotonic=lambda: self.now_s)

    def scrapes(self, target: Target, after_s: float = 10.0) -> bool:
        """Whether it scrapes a target, some time later."""
        self.now_s += after_s
        return target in self.division.scraped([target], lambda target: "")

    def other_scrapes(self, name: str, target: Target, service: str) -> None:
        """Another server has scraped a target, just now."""
        row = TargetRow(service, "i", target.base_url, "scrape", "steady", "", 0.1, NOW, NOW, name)
        moment_s = NOW - 1000 + self.now_s / 100
        self.store.write_targets([replace(row, last_unix_s=moment_s)])


def service_in_order(*names: str) -> str:
    """A service that goes to these servers in this order."""
    services = (f"service-{number}" for number in range(1000))
    return next(name for name in services if ranked(NAMES, name) == list(names))


def test_a_server_with_a_store_of_its_own_scrapes_all(store: SqlStore) -> None:
    """And judges all, and may tell of all."""
    division = Division(store)
    targets = [parse_target(f"http://127.0.0.1:{port}") for port in (1, 2, 3)]
    assert division.scraped(targets, lambda target: "") == set(targets)
    assert division.share(["a", "b"], lambda share: None).owned == {"a", "b"}
    assert division.may_tell()
    assert division.standing() is None


def test_the_owner_scrapes_at_once_and_the_next_when_nobody_does(store: SqlStore) -> None:
    """Of a target that its service's server does not list, so that none is left out."""
    ann = Ann(store)
    mine = parse_target(f"http://127.0.0.1:1 service={service_in_order('ann', 'bob', 'cem')}")
    assert ann.scrapes(mine)
    second = service_in_order("bob", "ann", "cem")
    target = parse_target(f"http://127.0.0.1:2 service={second}")
    for _ in range(5):
        assert not ann.scrapes(target)
    # Bob scrapes it for a while, and then no more.
    for _ in range(20):
        ann.other_scrapes("bob", target, second)
        assert not ann.scrapes(target)
    for _ in range(5):
        assert not ann.scrapes(target)
    for _ in range(20):
        # That one who comes after her does so too is no reason to stop.
        ann.other_scrapes("cem", target, second)
        assert ann.scrapes(target)
    ann.other_scrapes("bob", target, second)
    assert not ann.scrapes(target)


def test_a_socket_is_scraped_from_its_machine(store: SqlStore) -> None:
    """Nobody else can reach it."""
    ann = Ann(store)
    service = service_in_order("bob", "cem", "ann")
    assert ann.scrapes(parse_target(f"unix:/run/stanch/a.sock service={service}"))


def test_what_a_target_tells_goes_before_what_nobody_has_heard(store: SqlStore) -> None:
    """A target that has not told its service goes by its instance, then by what it has told."""
    ann = Ann(store)
    first = next(
        target
        for target in (parse_target(f"http://127.0.0.1:{port}") for port in range(1, 1000))
        if owner_of(NAMES, f"\0{target.instance}") == "ann"
    )
    assert ann.scrapes(first)
    ann.other_scrapes("ann", first, service_in_order("cem", "bob", "ann"))
    assert not ann.scrapes(first)


def test_a_round_is_left_out_while_others_may_have_taken_over(store: SqlStore) -> None:
    """Nothing is judged or told until the store has had a sign of life again, and a round."""
    ann = Ann(store)
    service = service_in_order("ann", "bob", "cem")
    assert not ann.division.may_tell()
    share = ann.division.share([service], lambda share: None)
    assert (share.owned, share.gained, share.lost) == ({service}, {service}, set())
    assert ann.division.may_tell()
    ann.now_s += 25.0
    assert not ann.division.may_tell()
    assert ann.division.sharing is not None
    ann.division.sharing.sign()
    assert not ann.division.may_tell(), "a round must see first what is still its own"

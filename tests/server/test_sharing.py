"""Servers that share a cluster: who has which service, and what becomes of it when one dies."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from stanch.server.members import owner_of
from stanch.server.sharing import Sharing
from stanch.store.engine import Engine, open_http
from stanch.store.errors import StoreError
from stanch.store.history import TimeRange
from stanch.store.intake import IntakeBounds
from stanch.store.sqlstore import SqlStore, Taken, open_store
from tests.alert.samples import Posted, webhook
from tests.cli.command import stanch
from tests.collect.answers import python_answers, serving
from tests.server.sharers import Leaks, firing, kill, services_of, start, until
from tests.store.clickhouse import CLUSTER, three_nodes
from tests.store.looks import PROCESS, look
from tests.store.pprofs import heap_bytes

NAMES = ("ann", "bob", "cem")


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Three nodes with the tables on each."""
    with three_nodes(tmp_path_factory.mktemp("nodes")) as started:
        addresses = ",".join(node.url for node in started)
        command = ["store", "init", "--cluster", CLUSTER, "--without-keeper"]
        assert stanch(*command, "--store", addresses).code == 0
        yield addresses


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def engine(urls: str) -> Iterator[Engine]:
    """The cluster, without any server's sign of life."""
    opened = open_http(urls)
    for url in urls.split(","):
        node = open_http(url)
        node.command("TRUNCATE TABLE stanch.servers_local")
        node.close()
    yield opened
    opened.close()


def step(*sharings: Sharing) -> None:
    """Each gives a sign of life, reads the others', and hands over what is asked of it."""
    for one in sharings:
        one.sign()
        one.handed_over(one.turn())


SERVICES = [f"service-{number}" for number in range(100)]


def owned(one: Sharing) -> set[str]:
    """What a server says is its own."""
    return {service for service in SERVICES if one.owns(service)}


def test_never_two_owners_and_soon_one(engine: Engine) -> None:
    """One begins alone, others come, one stands still and is back: at no step has a service two
    owners, and after some steps each has one; who was away does nothing until all agree."""
    clocks = {name: Clock() for name in NAMES}
    ann, bob, cem = (Sharing(engine, name, 30.0, clock=clocks[name]) for name in NAMES)

    def steps(count: int, *there: Sharing) -> None:
        for _ in range(count):
            for clock in clocks.values():
                clock.now_s += 5.0
            step(*there)
            sets = [owned(one) for one in (ann, bob, cem)]
            assert sum(map(len, sets)) == len(set().union(*sets))

    steps(2, ann)
    assert owned(ann) == set(SERVICES)
    steps(9, ann, bob, cem)
    for one in (ann, bob, cem):
        assert owned(one) == {name for name in SERVICES if owner_of(NAMES, name) == one.name}
        assert one.standing().members == NAMES
    # Bob cannot reach the store: he stops before the others begin.
    before = owned(ann), owned(cem)
    steps(5, ann, cem)
    assert not bob.acts
    assert (owned(bob), owned(ann), owned(cem)) == (set(), *before)
    steps(6, ann, cem)
    assert owned(ann) | owned(cem) == set(SERVICES)
    assert owned(ann) > before[0] and owned(cem) > before[1]
    # He is back, and has nothing to say before the others have handed over.
    clocks["bob"].now_s += 7200
    steps(1, ann, bob, cem)
    assert owned(bob) == set()
    steps(9, ann, bob, cem)
    assert (owned(ann), owned(cem)) == before
    assert owned(ann) | owned(bob) | owned(cem) == set(SERVICES)
    assert {ann.owner(service) for service in SERVICES} == set(NAMES)


def test_services_wait_for_who_has_not_handed_over(engine: Engine) -> None:
    """A server that comes begins with a service only when the one that had it has let it go."""
    clock = Clock()
    ann, bob = Sharing(engine, "ann", 30.0, clock=clock), Sharing(engine, "bob", 30.0, clock=clock)
    step(ann)
    step(ann)
    held = owned(ann)
    for _ in range(8):
        clock.now_s += 5.0
        ann.sign()
        step(bob)
        assert not owned(bob)
    assert held == set(SERVICES)
    assert owned(ann) < held, "it takes no more of what is to be handed over"
    for _ in range(2):
        clock.now_s += 5.0
        step(ann, bob)
    assert owned(ann) | owned(bob) == held and owned(bob)


def test_two_servers_of_one_name(engine: Engine) -> None:
    """One of them has everything, the other says what is wrong."""
    clock = Clock()
    both = [Sharing(engine, "same", 30.0, clock=clock) for _ in range(2)]
    for _ in range(8):
        clock.now_s += 5.0
        step(*both)
    troubles = [one.standing().trouble for one in both]
    assert sorted(map(bool, troubles)) == [False, True]
    assert "another server is called same too" in "".join(troubles)
    assert sorted(len(owned(one)) for one in both) == [0, len(SERVICES)]


def test_tables_of_an_earlier_version(urls: str, engine: Engine) -> None:
    """The remedy is said at the start."""
    for url in urls.split(","):
        node = open_http(url)
        node.command("RENAME TABLE stanch.servers TO stanch.servers_away")
        node.close()
    try:
        with pytest.raises(StoreError, match="run 'stanch store init' again"):
            Sharing(engine, "ann").__enter__()
    finally:
        for url in urls.split(","):
            node = open_http(url)
            node.command("RENAME TABLE stanch.servers_away TO stanch.servers")
            node.close()


class Hook:
    """What receivers took: each message once, unless it is refused now."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.taken: list[tuple[str, str, str]] = []
        self.refuses: Callable[[str], bool] = lambda service: False
        self.refused: set[str] = set()

    def answer(self, posted: Posted) -> int:
        """Take a message, or refuse it for now."""
        alarm = posted.body["alarm"]
        with self.lock:
            if self.refuses(alarm["service"]):
                self.refused.add(alarm["service"])
                return 503
            self.taken.append((alarm["service"], posted.body["key"], posted.body["news"]))
            return 200

    def fired(self) -> set[str]:
        """The services that were told of."""
        with self.lock:
            return {service for service, _, news in self.taken if news == "firing"}


def test_a_killed_server_is_followed_by_the_others(
    urls: str, engine: Engine, tmp_path: Path
) -> None:
    """Three servers over one cluster. Each alarm is told by one of them, once. One is killed while
    it has alarms to tell: the others judge its services, scrape its targets, and tell what it could
    not; nothing is told again. It comes back and has its services again."""
    old, late = services_of(NAMES, 2, "old"), services_of(NAMES, 1, "late")
    victims = [name for name in [*old, *late] if owner_of(NAMES, name) == "bob"]
    scraped = services_of(NAMES, 1, "scraped")
    hook = Hook()
    bounds = IntakeBounds(seconds=0.5)
    with ExitStack() as stack:
        store = stack.enter_context(open_store(urls, tmp_path / "seed", bounds=bounds))
        posts = stack.enter_context(webhook())
        posts.answer = hook.answer
        answers = [stack.enter_context(serving(python_answers())) for _ in scraped]
        targets = [
            f"{one.url} service={name} instance={name}"
            for one, name in zip(answers, scraped, strict=True)
        ]
        leaks = Leaks(store)
        stack.callback(leaks.close)
        leaks.begin(old)
        servers = {name: start(stack, name, tmp_path, urls, posts.url, targets) for name in NAMES}
        ann, bob, cem = servers.values()
        until(lambda: hook.fired() >= set(old), lambda: (hook.taken, ann.page("settings")))
        until(
            lambda: all(
                one.metric("members") == 3 and one.shows(scraped, NAMES) for one in servers.values()
            ),
            lambda: [one.has() for one in servers.values()],
        )
        everything = len(old) + len(scraped)
        until(
            lambda: sum(one.metric("services_owned") for one in servers.values()) == everything,
            lambda: [one.metric("services_owned") for one in servers.values()],
        )
        assert "ann, bob, cem; this one is bob" in bob.page("settings")
        # A push goes to any of them; whoever has the service judges it.
        pushed = next(name for name in SERVICES if owner_of(NAMES, name) == "bob")
        for number, one in enumerate((ann, cem)):
            heap = heap_bytes({"a": 1000 + number}, time_s=time.time())
            headers = {"X-Stanch-Service": pushed, "X-Stanch-Instance": one.name}
            answer = httpx.post(f"{one.url}api/v1/push", content=heap, headers=headers)
            assert answer.status_code == 200, answer.text
        until(
            lambda: all(one.has().get(pushed, ("", ""))[1] == "bob" for one in servers.values()),
            lambda: [one.has() for one in servers.values()],
        )
        until(lambda: bob.metric("services_owned") >= everything // 3 + 1, bob.has)

        # What bob has to tell now nobody hears, and then he is killed.
        hook.refuses = lambda service: service in victims
        leaks.begin(late)
        told_by_others = set(old) | set(late) - set(victims)
        until(
            lambda: hook.fired() >= told_by_others and hook.refused >= set(late) & set(victims),
            lambda: (hook.taken, hook.refused),
        )
        kill(bob)
        hook.refuses = lambda service: False
        two = ("ann", "cem")
        until(lambda: hook.fired() >= {*old, *late}, lambda: (hook.taken, ann.page("settings")))
        until(
            lambda: all(one.shows(scraped, two) for one in (ann, cem)),
            lambda: [one.has() for one in (ann, cem)],
        )
        assert ann.has()[pushed][1] == owner_of(two, pushed)
        now_s = time.time()
        until(
            lambda: all(row.last_unix_s > now_s for row in firing(store, [*old, *late])),
            lambda: [(row.service, row.last_unix_s - now_s) for row in firing(store, old)],
        )
        assert {row.service for row in firing(store, [*old, *late])} == {*old, *late}

        # He comes back, in the same directory with what he had to tell.
        bob = start(stack, "bob", tmp_path, urls, posts.url, targets)
        until(
            lambda: all(one.shows(scraped, NAMES) for one in (ann, bob, cem)),
            lambda: [one.has() for one in (ann, bob, cem)],
        )
        now_s = time.time()
        until(
            lambda: all(row.last_unix_s > now_s for row in firing(store, victims)),
            lambda: [(row.service, row.last_unix_s - now_s) for row in firing(store, victims)],
        )
    with hook.lock:
        assert {news for _, _, news in hook.taken} == {"firing"}
        keys = Counter(key for _, key, _ in hook.taken)
        assert max(keys.values()) == 1, hook.taken
        # Each alarm has been told in one episode by one message, whoever told it.
        assert len(keys) == len({key.partition("-")[0] for key in keys})


def test_a_process_that_two_servers_hear_of_has_one_life(urls: str, tmp_path: Path) -> None:
    """What one server has begun the other goes on with, also when it has known an older life."""
    bounds = IntakeBounds(seconds=0.1)
    now_s = time.time()
    began_ago_s = {1: 1000, 2: 400}
    with (
        open_store(urls, tmp_path / "one", bounds=bounds) as one,
        open_store(urls, tmp_path / "two", bounds=bounds) as two,
    ):

        def take(store: SqlStore, ago_s: float, pid: int, size: int) -> None:
            process = replace(PROCESS, pid=pid, age_s=began_ago_s[pid] - ago_s)
            seen = look(1.0, process, service="twice", instance="i", unix_s=now_s - ago_s)
            store.take(seen, [Taken("heap", heap_bytes({"a": size}))])
            store.flush()

        take(one, 600, 1, 1000)
        take(two, 570, 1, 1001)
        take(one, 540, 1, 1002)
        take(one, 300, 2, 1003)
        take(two, 270, 2, 1004)
        # So long after, a pid tells two nothing: it asks who was there meanwhile.
        take(one, 30, 2, 1005)
        found = one.history.lives("twice", TimeRange(now_s - 900, now_s + 60))
        assert [life.end for life in found] == ["running", "restarted"]

"""Which of several servers a service belongs to, and which servers live."""

from stanch.server.members import JOINS_AFTER, Roster, owner_of, ranked
from stanch.store.sqlshared import Beat

SERVICES = [f"service-{number}" for number in range(600)]
EVERY_S = 5.0
LIFETIME_S = 30.0


def owners(*members: str) -> dict[str, str]:
    """The owner of each service."""
    return {service: owner_of(members, service) for service in SERVICES}


def test_services_are_divided_evenly() -> None:
    """Each of three has about a third, in whatever order they are told."""
    found = owners("a", "b", "c")
    assert found == owners("c", "a", "b")
    for member in "abc":
        assert 150 < sum(owner == member for owner in found.values()) < 250


def test_only_the_services_of_one_who_goes_move() -> None:
    """Those of the others stay where they were, and the next in order has it."""
    before, after = owners("a", "b", "c"), owners("a", "c")
    assert all(after[service] == before[service] for service in SERVICES if before[service] != "b")
    for service in SERVICES:
        first, second, _ = ranked("abc", service)
        assert before[service] == first
        assert first != "b" or after[service] == second
    assert owner_of((), "shop") == ""


class Store:
    """What stands in the store, and one roster that reads it every five seconds."""

    def __init__(self, *there: Beat) -> None:
        self.roster = Roster("me", 7, LIFETIME_S, 2 * EVERY_S)
        self.rows = {(one.server, one.incarnation): one for one in there}
        self.now_s = 1000.0
        self.roster.read(self.rows.values(), self.now_s)

    def write(self, *beats: Beat) -> None:
        """Others write; after a while it is read."""
        self.rows |= {(one.server, one.incarnation): one for one in beats}
        self.wait()

    def wait(self, times: int = 1) -> None:
        """Read again, so many times, while nobody writes."""
        for _ in range(times):
            self.now_s += EVERY_S
            self.roster.read(self.rows.values(), self.now_s)


ALL = ("me", "you")


def test_one_that_comes_is_a_member_after_some_beats() -> None:
    """And one that comes and dies each time never is; what it claims counts at once."""
    store = Store()
    for beat in range(1, JOINS_AFTER):
        store.write(Beat("you", 1, beat, ALL))
        assert store.roster.members() == ("me",)
        assert store.roster.claims() == (("you", ALL),)
    store.write(Beat("you", 1, JOINS_AFTER, ALL))
    assert store.roster.members() == ALL
    for incarnation in range(2, 9):
        store.write(Beat("they", incarnation, 1, ()), Beat("you", 1, 2 + incarnation, ALL))
    assert store.roster.members() == ALL


def test_a_missed_beat_changes_nothing() -> None:
    """It is dead after a lifetime without one, and must beat for a while to be back."""
    store = Store(Beat("you", 1, 40, ALL))
    assert store.roster.members() == ALL
    store.wait(5)
    assert store.roster.members() == ALL
    store.write(Beat("you", 1, 41, ALL))
    store.wait(5)
    assert store.roster.members() == ALL
    store.wait()
    assert (store.roster.members(), store.roster.claims()) == (("me",), ())
    store.write(Beat("you", 1, 42, ()))
    assert store.roster.members() == ("me",)
    store.write(Beat("you", 1, 43, ALL))
    store.write(Beat("you", 1, 44, ALL))
    assert store.roster.members() == ALL


def test_time_in_which_nothing_could_be_read_does_not_count() -> None:
    """When the store was away for an hour nobody is dead of that."""
    store = Store(Beat("you", 1, 40, ALL))
    store.wait(2)
    store.now_s += 3600
    store.wait()
    assert store.roster.members() == ALL
    store.wait(10)
    assert store.roster.members() == ("me",)


def test_one_that_leaves_is_gone_at_once() -> None:
    """Its last word is believed."""
    store = Store(Beat("you", 1, 40, ALL))
    store.write(Beat("you", 1, 41, (), left=True))
    assert (store.roster.members(), store.roster.claims()) == (("me",), ())


def test_a_restart_within_a_lifetime_moves_nothing() -> None:
    """The new incarnation has the old one's name, and joins before that one is dead."""
    store = Store(Beat("you", 1, 40, ALL))
    for beat in range(1, 9):
        store.write(Beat("you", 2, beat, ALL))
        assert store.roster.members() == ALL


def test_two_of_one_name() -> None:
    """The one that began with the higher number steps back, but not for what it was itself."""
    store = Store(Beat("me", 1, 40, ALL), Beat("me", 9, 40, ALL))
    store.wait()
    assert not store.roster.has_double()
    store.write(Beat("me", 9, 41, ALL))
    assert not store.roster.has_double()
    store.write(Beat("me", 1, 41, ALL))
    assert store.roster.has_double()
    store.wait(7)
    assert not store.roster.has_double()
    assert store.roster.members() == ("me",)

"""Who leads, by a Lease at a real API server: one at a time, whatever fails."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from stanch.kube import Cluster, KubeSession, Leadership
from stanch.kube.leadership import DEADLINE_S, DURATION_S
from tests.kube.apiserver import ApiServer
from tests.kube.samples import serving, until


@dataclass
class Clock:
    """A clock of each server's own, which its pauses do not move."""

    now_s: float = 0.0
    pauses: list[asyncio.Event] = field(default_factory=list)

    async def pause(self, _seconds: float) -> None:
        await asyncio.sleep(0.01)


@contextmanager
def server(api: ApiServer, identity: str, clock: Clock) -> Iterator[Leadership]:
    """A server that strives for the lease until the end of the block."""
    with KubeSession(Cluster(api.url)) as session:
        leadership = Leadership(
            session.client,
            "shop",
            "stanch",
            identity,
            monotonic=lambda: clock.now_s,
            pause=clock.pause,
        )
        session.begin(leadership.run)
        yield leadership


def tried(api: ApiServer, more: int = 6) -> None:
    """Wait until the lease was asked for some more times."""
    path = "GET /apis/coordination.k8s.io/v1/namespaces/shop/leases/stanch"
    before = api.count(path)
    until(lambda: api.count(path) >= before + more)


def test_one_leads_and_the_other_waits_until_it_is_gone() -> None:
    """Whoever leaves lets go of the lease, so the other need not wait for it to run out."""
    clock = Clock()
    with serving() as running, ExitStack() as ending:
        api = running.api
        with server(api, "a", clock) as first:
            until(lambda: first.leads)
            second = ending.enter_context(server(api, "b", clock))
            tried(api)
            assert first.leads and not second.leads
            assert (second.holder, second.led_last) == ("a", False)
        until(lambda: second.leads)
        lease = api.get("leases", "stanch")["spec"]
        assert (lease["holderIdentity"], lease["leaseTransitions"]) == ("b", 1)
        assert lease["leaseDurationSeconds"] == DURATION_S


def test_a_leader_that_was_killed_is_followed_when_its_lease_has_run_out() -> None:
    """By the follower's own clock since it saw the last renewal, whatever that one's time says."""
    clock = Clock()
    with serving() as running:
        api = running.api
        api.put(
            "leases",
            {
                "metadata": {"name": "stanch", "namespace": "shop"},
                "spec": {
                    "holderIdentity": "dead",
                    "leaseDurationSeconds": DURATION_S,
                    "renewTime": "2001-01-01T00:00:00.000000Z",  # a clock that is years behind
                    "leaseTransitions": 4,
                },
            },
        )
        with server(api, "b", clock) as second:
            tried(api)
            clock.now_s = DURATION_S - 1.0
            tried(api)
            assert not second.leads
            clock.now_s = DURATION_S + 1.0
            until(lambda: second.leads)
        assert api.get("leases", "stanch")["spec"]["leaseTransitions"] == 5


def test_a_leader_that_cannot_renew_leads_no_more_before_the_other_begins() -> None:
    """While the API server is away nobody leads for sure; who led last is still known."""
    clock = Clock()
    with serving() as running:
        with server(running.api, "a", clock) as first:
            until(lambda: first.leads)
            running.stop()
            until(lambda: first.error is not None)
            clock.now_s += DEADLINE_S + 0.1
            assert not first.leads
            assert first.led_last
            assert "lease shop/stanch: not reached" in str(first.error)
            running.start()
            until(lambda: first.leads and first.error is None)
        assert DEADLINE_S < DURATION_S


def test_of_many_that_try_at_once_one_leads() -> None:
    """The API server lets one write through; the others see who it was."""
    clock = Clock()
    with serving() as running, ExitStack() as ending:
        servers = [
            ending.enter_context(server(running.api, f"s{number}", clock)) for number in range(5)
        ]
        until(lambda: all(each.holder for each in servers))
        tried(running.api, 20)
        assert sum(each.leads for each in servers) == 1
        assert len({each.holder for each in servers}) == 1


def test_a_lease_that_may_not_be_read_is_a_trouble() -> None:
    """It leads nothing, and says why."""
    clock = Clock()
    with serving(token="secret") as running, server(running.api, "a", clock) as only:
        until(lambda: only.error is not None)
        assert not only.leads and not only.led_last
        assert "refused with 401" in str(only.error)


def test_the_next_leader_gets_what_the_one_before_has_left() -> None:
    """At once after it was left, so also from one that was killed; the first one gets nothing."""
    clock = Clock()
    with serving() as running, ExitStack() as ending:
        api = running.api
        with server(api, "a", clock) as first:
            until(lambda: first.leads)
            assert first.term == (1, None)
            first.leave("what a told")
            until(lambda: "annotations" in api.get("leases", "stanch")["metadata"])
            second = ending.enter_context(server(api, "b", clock))
            tried(api)
            assert second.term == (0, None)
        until(lambda: second.leads)
        assert second.term == (1, "what a told")
        tried(api)
        annotations = api.get("leases", "stanch")["metadata"]["annotations"]
        assert annotations == {"stanch.dev/left": "what a told"}
        second.leave("what b told")
        again = ending.enter_context(server(api, "a2", clock))
        until(lambda: "what b told" in str(api.get("leases", "stanch")["metadata"]))
        assert again.term == (0, None)


def test_what_is_left_again_and_again_is_not_written_each_time() -> None:
    """A lease is renewed as if nothing had been said, while what is left is the same."""
    left: list[str] = []
    renewals: list[int] = []

    async def pause(_seconds: float) -> None:
        first.leave("the same")
        left.append("the same")
        renewals.append(api.count("PUT"))
        await asyncio.sleep(0)

    with serving() as running, KubeSession(Cluster(running.api.url)) as session:
        api = running.api
        first = Leadership(session.client, "shop", "stanch", "a", pause=pause)
        session.begin(first.run)
        until(lambda: api.count("PUT") >= 6)
        begun = renewals.index(2)
    pauses = [renewals.count(number) for number in range(2, 6)]
    assert pauses == [10, 10, 10, 10], (begun, renewals)
    assert "the same" in str(api.get("leases", "stanch")["metadata"]["annotations"])

"""Recycling wired to a watch of real gunicorn workers: evidence, end, record, alarm."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from stanch.collect import FixedTargets, parse_target
from stanch.deaths.book import JournalBook
from stanch.journal import Journal
from stanch.profile import parse
from stanch.recycle import RecyclePolicy
from stanch.recycle.backends.worker import PROCESSES
from stanch.recycle.book import recycles
from stanch.server.chronicle import Chronicle
from stanch.server.recycling import Recycling, TargetClients, event_text, worker_backend
from stanch.server.watch import Watcher, WatchState
from tests.agent.test_ending import GUNICORN, Host, hosting
from tests.cli.command import stanch
from tests.cli.watch_states import LEAK

POLICY = RecyclePolicy("shop", lead_s=60.0, spacing_s=0.0, per_hour=1, ready_s=60.0)


def leaking(state: WatchState) -> WatchState:
    """The state as it would be if the shop leaked and were to die in half a minute."""
    rows = tuple(replace(row, seconds_to_death=(30.0, 40.0, 50.0)) for row in state.rows)
    finding = replace(LEAK, instances=("shop-1",), first_to_die="shop-1")
    return replace(state, rows=rows, findings=(finding,))


def test_a_leaking_worker_is_recycled_with_evidence_and_on_record(tmp_path: Path) -> None:
    """The largest worker ends in good order, is on record as recycled, and then it is enough."""
    with hosting(tmp_path, GUNICORN, "--recycle", "--service", "shop") as host:
        host.until(lambda: len(host.pids()) == 3)
        before = set(host.pids())
        source = FixedTargets((parse_target(f"http://{host.profiles} instance=shop-1"),))
        clients = TargetClients(source)
        data = tmp_path / "data"
        policies = [(POLICY, worker_backend(clients))]
        with (
            Chronicle(JournalBook(data)) as chronicle,
            Recycling(data, policies, clients, chronicle) as recycling,
            Watcher(source, 1.0, witness=chronicle.witness) as watcher,
        ):
            events = []
            deaths = []

            def step() -> None:
                state = leaking(chronicle.take(watcher.step()))
                deaths.extend(state.deaths)
                events.extend(recycling.take(state))
                assert recycling.trouble is None

            host.until(lambda: step() or recycling.harmless("shop"))
            host.until(lambda: step() or any(event.what == "done" for event in events))
            assert [event.what for event in events] == ["begun", "done"]
            host.until(lambda: step() or deaths)
            host.until(lambda: step() or list(recycling.conditions()))
            (stopped,) = recycling.conditions()
            assert recycling.harmless("shop") is None
        (gone,) = before - set(host.pids())
        assert gone != host.process.pid
    (death,) = deaths
    assert (death.cause, death.sure, death.pids) == ("recycle", True, (gone,))
    assert stopped.title == "recycling of shop has stopped"
    assert "1 replicas were recycled within the hour" in stopped.text
    with Journal(data) as journal, journal.read() as transaction:
        (recycle,) = recycles(transaction)
    evidence = recycle.about["evidence"]
    assert len(parse(Path(evidence["profile"]).read_bytes()).sample_types) == 4
    assert "holders" in json.loads(Path(evidence["retention"]).read_text())
    assert event_text(events[0]).startswith("recycling: shop shop-1: at its limit in 30 s: leak")
    listed = stanch("recycles", "--data", data)
    assert " done      shop shop-1, within " in listed.out
    assert f"    profile: {evidence['profile']}" in listed.out
    assert '"step": "done"' in stanch("recycles", "--data", data, "--json").out
    nothing = stanch("recycles", "--data", data, "--resume", "shop")
    assert (nothing.code, "nothing of shop has failed" in nothing.err) == (1, True)


def test_a_refusal_of_the_agent_is_a_failure_that_stops(tmp_path: Path) -> None:
    """Without --recycle in the service nothing ends, and Stanch says why until it is resumed. That
    others ask the agent too often is no such refusal."""
    with hosting(tmp_path, GUNICORN, "--service", "shop") as host:
        data = tmp_path / "data"
        host.until(lambda: len(host.pids()) == 3)
        pids = host.pids()
        url = f"http://{host.profiles}{PROCESSES}"
        with httpx.Client() as client, ThreadPoolExecutor(8) as flood:
            statuses = set(flood.map(lambda _: client.get(url).status_code, range(300)))
        assert statuses <= {200, 429}
        recycling_reason = _reason_of_stop(host, data)
        assert "start the service with stanch run --recycle" in recycling_reason
        assert host.pids() == pids
    resumed = stanch("recycles", "--data", data, "--resume", "shop")
    assert (resumed.code, resumed.out) == (0, "shop is recycled again\n")
    assert "(resumed)" in stanch("recycles", "--data", data).out


def _reason_of_stop(host: Host, data: Path) -> str:
    source = FixedTargets((parse_target(f"http://{host.profiles} instance=shop-1"),))
    clients = TargetClients(source)
    policies = [(POLICY, worker_backend(clients))]
    with (
        Chronicle(JournalBook(data)) as chronicle,
        Recycling(data, policies, clients, chronicle) as recycling,
        Watcher(source, 1.0, witness=chronicle.witness) as watcher,
    ):
        deadline = time.monotonic() + 120
        while not (stopped := list(recycling.conditions())):
            assert time.monotonic() < deadline
            recycling.take(leaking(chronicle.take(watcher.step())))
        return stopped[0].text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--dry-run"], "--dry-run needs --recycle"),
        (["--recycle", "/no/such"], "cannot read /no/such"),
        (["--tables", "/tmp"], "--tables needs --data"),
    ],
)
def test_a_wrong_use_is_one_sentence(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    """Before anything is watched."""
    data = [] if arguments[0] == "--tables" else ["--data", str(tmp_path / "data")]
    outcome = stanch("watch", "http://127.0.0.1:1", *arguments, *data)
    assert outcome.code == 2
    assert complaint in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_dry_run_of_the_command(tmp_path: Path) -> None:
    """A steady service is watched as without it: nothing is due."""
    from tests.collect.answers import python_answers, serving

    (tmp_path / "recycle.toml").write_text("[[service]]\nservice='*'\nbackend='worker'\n")
    with serving(python_answers()) as agent:
        options = ("--recycle", tmp_path / "recycle.toml", "--dry-run", "--data", tmp_path / "data")
        outcome = stanch("watch", agent.url, *options, "--every", "100ms", "--for", "300ms")
    assert (outcome.code, outcome.err) == (0, "")
    assert stanch("recycles", "--data", tmp_path / "data").out == "no recycles\n"

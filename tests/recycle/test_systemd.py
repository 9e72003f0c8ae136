"""Recycling units of a real systemd: drained, restarted, and what systemd refuses."""

import os
import shlex
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stanch.collect import FixedTargets, parse_target
from stanch.deaths.book import JournalBook
from stanch.demo.host.ports import free_addresses
from stanch.journal import Journal
from stanch.recycle.backends import RecycleError
from stanch.recycle.backends.command import systemd_backend
from stanch.recycle.book import recycles, under_way
from stanch.recycle.configuration import read_policies
from stanch.server.chronicle import Chronicle
from stanch.server.recycling import Recycling, TargetClients
from stanch.server.watch import Watcher, WatchState
from tests.agent.test_ending import Host
from tests.cli.watch_states import LEAK
from tests.recycle.systemd import NoSystemdError, Systemd, systemd

RECYCLE = """
[[service]]
service = "shop"
backend = "systemd"
unit = "{instance}.service"
lead = "60s"
drain = "5m"
end = "90s"
spacing = "0s"
per_hour = 1
"""
# Answers with its pid, when the file it is asked for is no more.
APP = """
import os, time

def wsgi(environ, start_response):
    while os.path.exists(environ["QUERY_STRING"]):
        time.sleep(0.05)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
ALONE = "[Unit]\nDefaultDependencies=no\n"
BROKEN = f"{ALONE}[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/false\n"
SLOW = (
    f"{ALONE}[Service]\nExecStart=/bin/sleep 1000\nExecStop=/bin/sleep 1000\nTimeoutStopSec=300\n"
)


def unit(directory: Path, name: str, address: str, profiles: str) -> str:
    """A unit of gunicorn under `stanch run`, of one worker, which ends gracefully."""
    run = [sys.executable, "-m", "stanch.cli.main", "run", "--listen", profiles]
    run += ["--service", "shop", "--", sys.executable, "-m", "gunicorn", "-w", "1"]
    run += ["--worker-class", "gthread", "--threads", "4", "-b", address, "app:wsgi"]
    environment = {"PYTHONPATH": directory, "STANCH_DIR": directory / name}
    named = "".join(f'Environment="{key}={value}"\n' for key, value in environment.items())
    return (
        f"{ALONE}[Service]\n{named}WorkingDirectory={directory}\nExecStart={shlex.join(run)}\n"
        f"StandardOutput=append:{directory}/log\nStandardError=inherit\nTimeoutStopSec=60\n"
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Systemd, list[Host]]]:
    """A systemd with two units of the shop, which answer."""
    directory = tmp_path_factory.mktemp("systemd")
    (directory / "app.py").write_text(APP)
    addresses = free_addresses(4)
    units = {
        f"shop-{number + 1}.service": unit(
            directory, f"run-{number + 1}", *addresses[2 * number : 2 * number + 2]
        )
        for number in range(2)
    }
    try:
        with systemd(directory, units | {"broken.service": BROKEN, "slow.service": SLOW}) as one:
            hosts = []
            for number, name in enumerate(units):
                assert one.systemctl("start", name) == ""
                address, profiles = addresses[2 * number : 2 * number + 2]
                host = Host(address, profiles, None, directory / "log")  # type: ignore[arg-type]
                host.until(lambda host=host: answer(host))
                host.until(lambda host=host: len(host.pids()) == 2)
                hosts.append(host)
            yield one, hosts
    except NoSystemdError as error:
        pytest.skip(f"a systemd cannot be run here: {error}")


@pytest.fixture(autouse=True)
def on_path(
    two: tuple[Systemd, list[Host]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let `systemctl` be that of the tests' systemd."""
    directory = two[0].on_path(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def leaking(state: WatchState) -> WatchState:
    """The state as it would be if the first unit were to die in half a minute."""
    rows = tuple(replace(row, seconds_to_death=(30.0, 40.0, 50.0)) for row in state.rows)
    finding = replace(LEAK, instances=("shop-1",), first_to_die="shop-1")
    return replace(state, rows=rows, findings=(finding,))


def main_pid(one: Systemd, name: str) -> str:
    return one.systemctl("show", "--property=MainPID", "--value", name)


def answer(host: Host, file: str = "") -> int:
    """The pid that answers, once the file is no more."""
    with urllib.request.urlopen(f"http://{host.address}/?{file}", timeout=120) as reply:
        return int(reply.read())


def test_a_unit_is_drained_and_restarted(two: tuple[Systemd, list[Host]], tmp_path: Path) -> None:
    """Its request in flight is waited for, then it is another process; the other unit stays."""
    one, hosts = two
    before = [main_pid(one, f"shop-{number}.service") for number in (1, 2)]
    gone = set(hosts[0].pids())
    (tmp_path / "recycle.toml").write_text(RECYCLE)
    policies = read_policies(tmp_path / "recycle.toml", {}, dry_run=False)
    source = FixedTargets(
        tuple(
            parse_target(f"http://{host.profiles} instance=shop-{number}")
            for number, host in enumerate(hosts, start=1)
        )
    )
    clients, data, hold = TargetClients(source), tmp_path / "data", tmp_path / "hold"
    hold.touch()
    answers: list[int] = []
    asking = threading.Thread(
        target=lambda: answers.append(answer(hosts[0], str(hold))), daemon=True
    )
    asking.start()
    with (
        Chronicle(JournalBook(data)) as chronicle,
        Recycling(data, policies, clients, chronicle) as recycling,
        Watcher(source, 0.5, witness=chronicle.witness) as watcher,
        Journal(data) as journal,
    ):
        hosts[0].until(lambda: recycling.in_flight("shop", "shop-1") == 1)
        told = []

        def step() -> None:
            told.extend(recycling.take(leaking(chronicle.take(watcher.step()))))
            assert recycling.trouble is None

        def steps() -> list[str]:
            with journal.read() as transaction:
                return [each.step for each in under_way(transaction)]

        hosts[0].until(lambda: step() or steps() == ["draining"])
        for _ in range(4):
            step()
            assert steps() == ["draining"]
        assert main_pid(one, "shop-1.service") == before[0]
        hold.unlink()
        hosts[0].until(lambda: step() or any(each.what != "begun" for each in told))
        with journal.read() as transaction:
            (recycle,) = recycles(transaction)
    asking.join(60)
    assert [(each.what, each.instance) for each in told] == [
        ("begun", "shop-1"),
        ("done", "shop-1"),
    ]
    assert len(answers) == 1 and answers[0] in gone
    assert not gone & set(hosts[0].pids())
    after = [main_pid(one, f"shop-{number}.service") for number in (1, 2)]
    assert before[0] != after[0] and before[1] == after[1]
    assert recycle.about["in_flight"] == 0
    assert Path(recycle.about["evidence"]["profile"]).exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("broken.service", "status 1: Job for broken.service failed"),
        ("other.service", "status 5: Failed to restart other.service: Unit other.service not"),
        ("slow.service", "did not end within 3 s, and was killed"),
    ],
)
def test_what_systemd_does_not_do_is_a_failure_in_its_words(
    two: tuple[Systemd, list[Host]], name: str, says: str
) -> None:
    """A unit that does not start, one that is not there, and one that takes too long to stop."""
    if name == "slow.service":
        assert two[0].systemctl("start", name) == ""
    with pytest.raises(RecycleError, match=says):
        systemd_backend("{instance}.service").end("shop", name.removesuffix(".service"), 3.0)

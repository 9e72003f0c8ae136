"""Alarms at a real Alertmanager (Debian package prometheus-alertmanager)."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from stanch.alert import AlarmDesk, Condition, Policy
from stanch.alert.alarm import Alarm
from stanch.alert.configuration import AlarmConfiguration, ReceiverSpec, make_receivers
from stanch.alert.courier import REFRESH_S, Courier
from stanch.demo.host.ports import free_addresses
from stanch.journal import Journal
from tests.alert.samples import Hook, leak, webhook

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no Alertmanager (Debian package prometheus-alertmanager)"
)
CONFIGURATION = """
route:
  receiver: people
  group_by: [alertname, service, leak]
  group_wait: 0s
  group_interval: 1s
  repeat_interval: 1h
receivers:
  - name: people
    webhook_configs:
      - url: {url}
        send_resolved: true
"""


@dataclass
class Alertmanager:
    """A running Alertmanager and the people that it tells."""

    url: str
    people: Hook
    arguments: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.arguments, stdout=log, stderr=log)
        eventually(self.is_ready, self.log)

    def stop(self) -> None:
        """End it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that it holds active."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts?active=true", timeout=10) as answer:
            return list(json.loads(answer.read()))

    def told(self) -> list[tuple[str, str, str]]:
        """Return what people were told: status, service and stage of each alert."""
        return [
            (alert["status"], alert["labels"]["service"], alert["labels"]["stage"])
            for posted in self.people.posted
            for alert in posted.body["alerts"]
        ]


def eventually(condition: Callable[[], bool], log: Path) -> None:
    """Wait for a condition, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.05)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Alertmanager]:
    """Run an Alertmanager on loopback that tells people by a webhook."""
    assert PROGRAM is not None
    with webhook() as people:
        (tmp_path / "am.yml").write_text(CONFIGURATION.format(url=people.url))
        (address,) = free_addresses(1)
        arguments = [PROGRAM, f"--config.file={tmp_path / 'am.yml'}"]
        arguments += [f"--storage.path={tmp_path / 'am'}", "--cluster.listen-address="]
        arguments += [f"--web.listen-address={address}"]
        manager = Alertmanager(f"http://{address}", people, arguments, tmp_path / "am.log")
        manager.start()
        yield manager
        manager.stop()


@dataclass
class Server:
    """A desk and a courier for one Alertmanager; our clock is the real one plus `ahead_s`."""

    directory: Path
    manager: Alertmanager
    ahead_s: float = 0.0

    def __post_init__(self) -> None:
        spec = ReceiverSpec("alertmanager", "alertmanager", self.manager.url)
        self.configuration = AlarmConfiguration(receivers=(spec,))
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.directory)
        policy = Policy(fire_at="probable", resolve_after_s=0.0)
        self.desk = AlarmDesk(self.journal, policy, self.configuration.receivers_of)
        receivers = make_receivers(self.configuration, self.clock)
        receivers_of = self.configuration.receivers_of
        self.courier = Courier(self.directory, receivers, receivers_of, self.clock)

    def close(self) -> None:
        self.courier.close()
        self.journal.close()

    def clock(self) -> float:
        return time.time() + self.ahead_s

    def look(self, *conditions: Condition) -> None:
        self.desk.observe(self.clock(), conditions, ["shop"])
        self.courier.deliver()


def test_one_notification_for_each_leak_and_stage(manager: Alertmanager, tmp_path: Path) -> None:
    """Probable fires, confirmed replaces it, the end resolves it: people hear each once."""
    server = Server(tmp_path / "data", manager)
    server.look(leak(stage="probable"))
    eventually(lambda: len(manager.told()) >= 1, manager.log)
    for _ in range(5):
        server.look(leak(stage="confirmed"))
    eventually(lambda: ("firing", "shop", "confirmed") in manager.told(), manager.log)
    (alert,) = manager.alerts()
    assert alert["labels"]["alertname"] == "StanchLeak"
    assert alert["labels"]["leak"] == "shop/sessions.py remember"
    assert alert["labels"]["severity"] == "critical"
    assert "at its limit in 47 s" in alert["annotations"]["description"]
    server.close()
    server.open()
    for _ in range(5):
        server.look(leak(stage="confirmed"))
    server.look()
    eventually(lambda: ("resolved", "shop", "confirmed") in manager.told(), manager.log)
    assert manager.alerts() == []
    told = manager.told()
    for event in (("firing", "shop", "probable"), ("firing", "shop", "confirmed")):
        assert told.count(event) == 1
    assert told.count(("resolved", "shop", "confirmed")) == 1
    server.close()


@pytest.mark.parametrize("ahead_s", [-3600.0, 3600.0])
def test_clocks_that_differ_by_an_hour(
    manager: Alertmanager, tmp_path: Path, ahead_s: float
) -> None:
    """An alert is active while it fires and over when it is over, whatever our clock says."""
    server = Server(tmp_path / "data", manager, ahead_s)
    server.look(leak())
    eventually(lambda: manager.told() == [("firing", "shop", "confirmed")], manager.log)
    (alert,) = manager.alerts()
    assert alert["status"]["state"] == "active"
    server.look()
    eventually(lambda: ("resolved", "shop", "confirmed") in manager.told(), manager.log)
    server.close()


def test_an_alertmanager_that_was_away_and_forgot_is_told_again(
    manager: Alertmanager, tmp_path: Path
) -> None:
    """Away for an hour and started with nothing: what fires is there again, what is over is not."""
    server = Server(tmp_path / "data", manager)
    server.look(leak(), leak(cause="other"))
    eventually(lambda: len(manager.alerts()) == 2, manager.log)
    manager.stop()
    shutil.rmtree(tmp_path / "am")
    server.look(leak(), leak(cause="third"))  # "other" is over, "third" is new
    server.ahead_s += 3600.0
    server.look(leak(), leak(cause="third"))
    manager.start()
    server.ahead_s += max(REFRESH_S, 300.0)
    server.courier.deliver()
    eventually(lambda: causes(manager) == {"shop/sessions.py remember", "third"}, manager.log)
    server.close()


def causes(manager: Alertmanager) -> set[str]:
    return {alert["labels"]["leak"] for alert in manager.alerts()}


def test_labels_are_sound_for_any_finding(manager: Alertmanager, tmp_path: Path) -> None:
    """Native memory without a line, odd characters and no forecast are taken by Alertmanager."""
    server = Server(tmp_path / "data", manager)
    odd = replace(
        leak('a/ß \n"x"', "native memory"), kind="native leak", first_to_die="", death_unix=None
    )
    server.desk.observe(server.clock(), [odd], [odd.service])
    assert server.courier.deliver() == 1
    (alert,) = manager.alerts()
    assert alert["labels"]["service"] == 'a/ß \n"x"'
    alarm: Alarm = server.desk.alarms[0]
    assert alert["labels"]["fingerprint"] == alarm.fingerprint
    server.close()

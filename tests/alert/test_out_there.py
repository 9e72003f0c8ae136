"""Slack, Teams, PagerDuty and a webhook get alarms: by a real courier, a proxy, TLS and apprise."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.alert.internet import (
    BOT_TOKEN,
    HOOK,
    PAGERDUTY,
    ROUTING_KEY,
    SECRETS,
    SLACK,
    SLACK_API,
    SLACK_TOKENS,
    TARGETS,
    TEAMS,
    Internet,
    internet,
)
from tests.alert.samples import MIB, leak

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="there is no openssl to make certificates with"
)
HOSTS = {"slack": SLACK, "teams": TEAMS, "pagerduty": PAGERDUTY}
INCIDENT = f"stanch-{leak().fingerprint}-1"
# A server in small, as loud as one can be: what it looks at and when comes on its standard input.
SERVER = """
import base64, json, logging, sys
from dataclasses import asdict, replace
from pathlib import Path
import numpy as np
from stanch.alert import AlarmDesk
from stanch.alert.configuration import make_receivers, read_configuration
from stanch.alert.courier import Courier
from stanch.alert.desk import Illustration
from stanch.alert.outbox import counts
from stanch.alert.picture import memory_chart
from stanch.journal import Journal
from tests.alert.samples import leak
logging.basicConfig(level=1)
directory, configuration = Path(sys.argv[1]), read_configuration(Path(sys.argv[2]))
seconds = np.arange(0.0, 60.0, 2.5)
chart = base64.b64encode(memory_chart(seconds, 5e7 + 1e6 * seconds, 1.6e8, 110.0)).decode()
shown = Illustration("https://stanch.example/services/shop?a=1&b=2", chart)
journal, now = Journal(directory), 1.7e9
desk = AlarmDesk(
    journal, configuration.policy, configuration.receivers_of, illustrate=lambda _: shown
)
receivers = make_receivers(configuration, lambda: now)
courier = Courier(directory, receivers, configuration.receivers_of, lambda: now)
for line in sys.stdin:
    told = json.loads(line)
    now += told["after"]
    if told["leaks"] is not None:
        conditions = [
            replace(leak(cause=cause, stage=stage), rate=rate)
            for cause, stage, rate in told["leaks"]
        ]
        desk.observe(now, conditions, ["shop"])
    courier.deliver()
    with journal.read() as transaction:
        print(json.dumps([asdict(each) for each in counts(transaction)]), flush=True)
courier.close()
journal.close()
"""
CAUSE = "shop/sessions.py remember"


class Server:
    """The server in small, in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self._process = process
        self._log = log

    def look(self, *leaks: tuple[str, str, float], after: float = 1.0) -> dict[str, dict[str, Any]]:
        """Let it look at leaks (cause, stage, bytes a second), and deliver."""
        return self._do(list(leaks), after)

    def wait(self, seconds: float = 300.0) -> dict[str, dict[str, Any]]:
        """Let it deliver what is due after a while; return the counts of its outbox by receiver."""
        return self._do(None, seconds)

    def _do(self, leaks: object, after: float) -> dict[str, dict[str, Any]]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"leaks": leaks, "after": after}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self._log.read_text()[-3000:]
        return {each["receiver"]: each for each in json.loads(line)}


@pytest.fixture(name="out")
def _out(tmp_path: Path) -> Iterator[Internet]:
    directory = tmp_path / "tls"
    directory.mkdir()
    with internet(directory) as out:
        yield out


def environment(changes: dict[str, str]) -> dict[str, str]:
    """This environment without its proxies and certificates, and with others."""
    ours = re.compile("(?i)(.*_proxy|.*_ca_bundle|ssl_cert_.*)")
    return {key: value for key, value in os.environ.items() if not ours.fullmatch(key)} | changes


def file_of_alarms(directory: Path, urls: dict[str, str]) -> Path:
    """A file of alarms with a receiver for each URL, which lies in a file of its own."""
    lines = ['fire_at = "probable"\nresolve_after = "60s"\n']
    for name, url in urls.items():
        (directory / name).write_text(url)
        lines.append(f'[[receiver]]\nname = "{name}"\ntype = "apprise"\n')
        lines.append(f'url_file = "{directory / name}"\n')
    path = directory / "alarms.toml"
    path.write_text("".join(lines))
    return path


@contextmanager
def serving(
    directory: Path, urls: dict[str, str], changes: dict[str, str], more: str = ""
) -> Iterator[Server]:
    """A server until the end of the block; then nothing it wrote may hold a secret."""
    alarms = file_of_alarms(directory, urls)
    alarms.write_text(alarms.read_text() + more)
    log = directory / "log"
    with log.open("a") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(directory), str(alarms)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env=environment(changes),
        )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield Server(process, log)
        process.stdin.close()
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait(30)
        process.stdin.close()
        process.stdout.close()
    written = log.read_bytes() + (directory / "journal.sqlite").read_bytes()
    assert [secret for secret in SECRETS if secret.encode() in written] == []


def test_each_is_told_of_an_alarm_as_it_documents(out: Internet, tmp_path: Path) -> None:
    """Firing, worse and resolved arrive once each, by the proxy, in each service's own words."""
    with serving(tmp_path, TARGETS, out.environment()) as server:
        server.look((CAUSE, "probable", MIB))
        server.look((CAUSE, "confirmed", MIB))
        server.look(after=5.0)
        told = server.look(after=70.0)
    assert {name: (each["sent"], each["waiting"]) for name, each in told.items()} == dict.fromkeys(
        TARGETS, (3, 0)
    )
    assert {host: out.statuses(host) for host in HOSTS.values()} == {
        SLACK: [200, 200, 200],
        TEAMS: [202, 202, 202],
        PAGERDUTY: [202, 202, 202],
    }
    assert set(out.tunnels) == {f"CONNECT {host}:443" for host in HOSTS.values()}
    _check_slack(out)
    _check_teams(out)
    _check_pagerduty(out)


def _check_slack(out: Internet) -> None:
    first, worse, over = (each.body["attachments"][0] for each in out.taken(SLACK))
    assert first["title"].startswith("[FIRING] leak (probable) in shop")
    assert worse["title"].startswith("[WORSE] leak (confirmed) in shop")
    assert over["title"].startswith("[RESOLVED] leak (confirmed) in shop")
    assert "at its limit in 47 s" in first["text"]
    assert "https://stanch.example/services/shop?a=1&amp;b=2" in first["text"]
    assert first["footer"] == "Stanch"
    assert "It is over after 76 s" in over["text"]
    assert len({first["color"], worse["color"], over["color"]}) == 3
    assert not any("repetition" in each.raw.decode() for each in out.taken(SLACK))
    assert not any("caronc" in each.raw.decode() for each in out.requests)


def _check_teams(out: Internet) -> None:
    cards = [each.body["attachments"][0]["content"]["body"] for each in out.taken(TEAMS)]
    titles = [card[0]["text"] for card in cards]
    assert [title.partition("]")[0] for title in titles] == ["[FIRING", "[WORSE", "[RESOLVED"]
    assert "at its limit in 47 s" in cards[0][1]["text"]
    link = "https://stanch.example/services/shop?a=1&b=2"
    assert f"\n\n[{link}]({link})" in cards[0][1]["text"]
    assert "It is over after 76 s" in cards[2][1]["text"]
    assert all(card[1]["wrap"] for card in cards)


def _check_pagerduty(out: Internet) -> None:
    events = [each.body for each in out.taken(PAGERDUTY)]
    assert [each["event_action"] for each in events] == ["trigger", "trigger", "resolve"]
    assert {each["dedup_key"] for each in events} == {INCIDENT}
    assert {each["routing_key"] for each in events} == {ROUTING_KEY}
    first, worse = (each["payload"] for each in events[:2])
    assert (first["severity"], worse["severity"]) == ("warning", "critical")
    assert first["summary"].startswith("[FIRING] leak (probable) in shop")
    assert "\n" not in first["summary"]
    assert (first["source"], first["component"], first["class"]) == ("shop", CAUSE, "leak")
    assert "at its limit in 47 s" in first["custom_details"]["text"]
    assert first["custom_details"]["instances"] == "shop-1, shop-2"
    assert events[0]["links"] == [{"href": "https://stanch.example/services/shop?a=1&b=2"}]
    assert events[0]["client"] == "Stanch"


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_refused_is_tried_again_and_arrives_once(
    name: str, out: Internet, tmp_path: Path
) -> None:
    """Of 429, 500 and a broken connection each is followed by a pause; only the last may double.

    After it the message says that it may be a repetition, or has the same key as before.
    """
    host = HOSTS[name]
    out.faults[host] = [429, 500, None]
    with serving(tmp_path, {name: TARGETS[name]}, out.environment()) as server:
        assert server.look((CAUSE, "confirmed", MIB))[name]["error"] == "answered 429"
        assert server.wait(4.0)[name]["error"] == "answered 429"
        assert server.wait(2.0)[name]["error"] == "answered 500"
        told = server.wait()[name]
        assert (told["waiting"], "onnection error" in told["error"]) == (1, True)
        assert server.wait()[name]["sent"] == 1
        assert server.wait()[name]["sent"] == 1
    assert [status or 0 for status in out.statuses(host)] == [
        429,
        500,
        0,
        out.taken(host)[0].status,
    ]
    texts = [each.raw.decode() for each in out.asked(host)]
    if name == "pagerduty":
        assert len(set(texts)) == 1
        assert INCIDENT in texts[0]
    else:
        assert ["repetition" in text for text in texts] == [False, False, False, True]


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_never_taken_is_set_aside(name: str, out: Internet, tmp_path: Path) -> None:
    """After 400 the next message goes out; 403 is tried again, and a redirect is not followed."""
    host = HOSTS[name]
    out.faults[host] = [400, 403, 307]
    with serving(tmp_path, {name: TARGETS[name]}, out.environment()) as server:
        server.look(("a", "confirmed", MIB), ("b", "confirmed", MIB))
        assert server.wait()[name]["refused"] == 1
        assert server.wait()[name]["error"] == "answered 307"
        told = server.wait()[name]
    assert (told["sent"], told["refused"], told["error"]) == (1, 1, "answered 400")
    (taken,) = out.taken(host)
    assert "in shop: b" in taken.raw.decode()
    assert out.asked(HOOK) == []


def test_without_trust_or_a_way_nothing_is_sent(out: Internet, tmp_path: Path) -> None:
    """An unknown CA and a proxy that refuses are said in words, and what comes later is no
    repetition."""
    only_proxy = {"HTTPS_PROXY": out.proxy}
    urls = {"slack": TARGETS["slack"]}
    with serving(tmp_path, urls, only_proxy) as server:
        told = server.look((CAUSE, "confirmed", MIB))
        assert told["slack"]["error"] == "its certificate is not trusted"
    with serving(tmp_path, urls, out.environment()) as server:
        out.refused.add(SLACK)
        assert server.wait()["slack"]["error"] == "the proxy does not let it through"
        out.refused.clear()
        assert server.wait()["slack"]["sent"] == 1
    (request,) = out.asked(SLACK)
    assert "repetition" not in request.raw.decode()


def test_a_picture_that_is_not_taken_does_not_repeat_the_message(
    out: Internet, tmp_path: Path
) -> None:
    """Slack's bots post a message and then the picture; without the right to, the text is told."""
    url = f"slack://{BOT_TOKEN}/#leaks"
    with serving(tmp_path, {"bot": url}, out.environment()) as server:
        assert server.look((CAUSE, "confirmed", MIB))["bot"]["sent"] == 1
        server.wait()
    posted = [each for each in out.asked(SLACK_API) if each.path.endswith("chat.postMessage")]
    assert [each.body["channel"] for each in posted] == ["#leaks"]
    assert len(out.asked(SLACK_API)) == 2


def test_of_several_addresses_those_that_were_told_hear_of_a_repetition(
    out: Internet, tmp_path: Path
) -> None:
    """One URL is one receiver: when a channel of it cannot be told, all are told again."""
    url = f"slack://{BOT_TOKEN}/#leaks/#locked"
    with serving(tmp_path, {"bot": url}, out.environment()) as server:
        told = server.look((CAUSE, "confirmed", MIB))["bot"]
        assert (told["waiting"], told["error"]) == (1, "answered 200: not_in_channel")
        server.wait()
    leaks = [
        "repetition" in each.raw.decode()
        for each in out.asked(SLACK_API)
        if each.path.endswith("chat.postMessage") and each.body["channel"] == "#leaks"
    ]
    assert leaks == [False, True]


def test_a_webhook_goes_by_the_proxy_too(out: Internet, tmp_path: Path) -> None:
    """With the CA of its `ca`, since `REQUESTS_CA_BUNDLE` is for apprise."""
    more = f'[[receiver]]\ntype = "webhook"\nurl = "https://{HOOK}/stanch"\nca = "{out.ca}"\n'
    with serving(tmp_path, {}, out.environment(), more) as server:
        assert server.look((CAUSE, "confirmed", MIB))["webhook"]["sent"] == 1
    assert [each.body["news"] for each in out.taken(HOOK)] == ["firing"]
    assert out.tunnels == [f"CONNECT {HOOK}:443"]


@pytest.mark.parametrize("works", [True, False])
def test_alarms_test_says_who_gets_it(works: bool, out: Internet, tmp_path: Path) -> None:
    """`stanch alarms test` tells everybody, of apprise's URLs and of those that services show."""
    flow = TARGETS["teams"].removeprefix(f"workflows://{TEAMS}:443/")
    number, signature = flow.split("/")
    query = f"api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig={signature}"
    urls = TARGETS | {
        "slack's own": f"https://{SLACK}/services/{'/'.join(SLACK_TOKENS)}",
        "teams' own": f"https://{TEAMS}:443/workflows/{number}/triggers/manual/paths/invoke?{query}",
    }
    if not works:
        out.refused.update(HOSTS.values())
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "stanch.cli.main",
            "alarms",
            "test",
            str(file_of_alarms(tmp_path, urls)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(out.environment()),
    )
    said = ended.stdout + ended.stderr
    assert [secret for secret in SECRETS if secret in said] == []
    outcome = "delivered" if works else "failed: the proxy does not let it through"
    assert ended.stdout.splitlines() == [f"{name}: {outcome}" for name in urls], said
    assert ended.returncode == (0 if works else 1)
    told = {host: len(out.taken(host)) for host in HOSTS.values()}
    assert told == ({SLACK: 4, TEAMS: 4, PAGERDUTY: 2} if works else dict.fromkeys(told, 0))

"""`stanch alarms`, and `stanch watch --alarms` from a real leak's finding to a real webhook."""

import json
import time
from pathlib import Path

import pytest

from stanch.alert import AlarmDesk, Policy
from stanch.alert.configuration import read_configuration
from stanch.journal import FILE_NAME, Journal
from stanch.server.alarming import Alarming
from tests.alert.samples import leak, webhook
from tests.cli.command import stanch
from tests.cli.test_watch_loop import EVERY_S, Clock, Service, service, watching
from tests.collect.answers import python_answers, serving

__all__ = ["service"]  # a fixture


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with one firing alarm of the shop and a pending one of the cart."""
    with Journal(tmp_path / "data") as journal:
        desk = AlarmDesk(journal, Policy(), lambda _service: ["hook"])
        desk.observe(time.time(), [leak(), leak("cart", stage="suspect")], ["shop", "cart"])
    return tmp_path / "data"


def test_alarms_are_listed(data: Path) -> None:
    """Firing ones first, with what they are about; as JSON with all fields."""
    outcome = stanch("alarms", "--data", data)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0].startswith(f"{leak().fingerprint}  firing since ")
    assert lines[0].endswith("leak (confirmed) in shop: shop/sessions.py remember")
    assert lines[1] == "    1.10 MiB/s, at its limit in 47 s."
    assert " pending since " in lines[2]
    (firing, pending) = map(json.loads, stanch("alarms", "--data", data, "--json").out.splitlines())
    assert (firing["service"], firing["severity"], firing["mark"]) == ("shop", "critical", None)
    assert pending["status"] == "pending"


def test_a_leak_is_marked_and_unmarked(data: Path) -> None:
    """By the beginning of its number, with a note, and shown with it."""
    beginning = leak().fingerprint[:6]
    marked = stanch("alarms", "known", beginning, "--note", "ticket 7", "--data", data)
    assert (marked.code, marked.err) == (0, "")
    with Journal(data) as journal:
        desk = AlarmDesk(journal, Policy(), lambda _service: [])
        desk.observe(time.time(), [leak()], ["shop"])
    listed = stanch("alarms", "--data", data).out
    assert "quiet: marked known by " in listed
    assert "ticket 7" in listed
    unmarked = stanch("alarms", "unmark", beginning, "--data", data)
    assert unmarked.out == f"no longer marked: {leak().title}\n"
    assert stanch("alarms", "unmark", beginning, "--data", data).code == 1
    log = [json.loads(line) for line in (data / "audit.jsonl").read_text().splitlines()]
    assert [line["event"] for line in log] == ["marked known", "unmarked"]
    assert all(line["by"] and line["what"] == leak().title for line in log)


def test_windows_come_and_go(data: Path) -> None:
    """Added with a time in UTC, listed, removed."""
    options = ("--for", "2h", "--at", "2026-03-01T02:00", "--every", "week", "--note", "backup")
    added = stanch("alarms", "quiet", "pay*", *options, "--data", data)
    assert added.out == "window 1: pay* is quiet from 2026-03-01 02:00:00Z for 7200 s\n"
    listed = stanch("alarms", "windows", "--data", data).out
    assert "1  pay*  2026-03-01 02:00:00Z to 2026-03-01 04:00:00Z, every 7 days, by " in listed
    assert "backup" in listed
    assert stanch("alarms", "unquiet", "1", "--data", data).code == 0
    assert stanch("alarms", "windows", "--data", data).out == "no windows\n"


def test_the_outbox_is_shown(data: Path) -> None:
    """What waits for whom."""
    assert stanch("alarms", "outbox", "--data", data).out == "hook: 1 waiting, 0 sent, 0 refused\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--data", "/no/such"], "there is no journal in /no/such"),
        (["known", "zz", "--data", "DATA"], "no alarm begins with 'zz'"),
        (["known", "", "--data", "DATA"], "2 alarms begin with ''"),
        (["quiet", "shop", "--for", "long", "--data", "DATA"], "'long' is not a duration"),
        (["quiet", "shop", "--for", "2d", "--every", "day", "--data", "DATA"], "come again"),
        (["quiet", "shop", "--for", "2h", "--at", "noon", "--data", "DATA"], "noon"),
        (["unquiet", "7", "--data", "DATA"], "there is no window 7"),
        (["test", "/no/such"], "cannot read /no/such"),
    ],
)
def test_a_wrong_use_is_one_sentence(data: Path, arguments: list[str], complaint: str) -> None:
    """Each says what is wrong, with exit code 2."""
    outcome = stanch("alarms", *(str(data) if each == "DATA" else each for each in arguments))
    assert outcome.code == 2
    assert complaint in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_test_message_reaches_each_receiver(tmp_path: Path) -> None:
    """Exit code 0 when all took it, 1 when one did not, each with its reason."""
    path = tmp_path / "alarms.toml"
    with webhook() as hook:
        path.write_text(f"[[receiver]]\ntype='webhook'\nurl='{hook.url}'\n")
        outcome = stanch("alarms", "test", path)
        assert (outcome.code, outcome.out) == (0, "webhook: delivered\n")
    assert [posted.body["news"] for posted in hook.posted] == ["firing", "resolved"]
    outcome = stanch("alarms", "test", path)
    assert outcome.code == 1
    assert outcome.out.startswith("webhook: failed: no connection")


def test_watch_refuses_a_wrong_file_of_alarms(tmp_path: Path) -> None:
    """Before anything is watched."""
    (tmp_path / "alarms.toml").write_text("fire_at = 'sure'")
    outcome = stanch("watch", "http://127.0.0.1:1", "--alarms", tmp_path / "alarms.toml")
    assert outcome.code == 2
    assert "fire_at is 'sure'" in outcome.err


def test_watch_shows_what_does_not_work(tmp_path: Path) -> None:
    """A steady target with alarms: exit 0, and the journal is made where --data says."""
    (tmp_path / "alarms.toml").write_text("")
    with serving(python_answers()) as agent:
        options = ("--alarms", tmp_path / "alarms.toml", "--data", tmp_path / "data")
        outcome = stanch("watch", agent.url, *options, "--every", "100ms", "--for", "300ms")
    assert outcome.code == 0
    assert (tmp_path / "data" / FILE_NAME).exists()


def test_a_leak_is_told_once_for_each_stage(service: Service, tmp_path: Path) -> None:
    """From looks at a leaking process to the webhook: each stage once, with a chart."""
    clock: Clock = service.clock
    with webhook() as hook:
        text = f"fire_at='probable'\n[[receiver]]\ntype='webhook'\nurl='{hook.url}'\n"
        (tmp_path / "alarms.toml").write_text(text)
        watcher = watching(service)
        alarming = Alarming(
            read_configuration(tmp_path / "alarms.toml"),
            tmp_path / "data",
            series=watcher.series,
            wall=lambda: 1.7e9 + clock.now_s,
        )
        with watcher, alarming:
            for _ in range(40):
                service.tell()
                alarming.take(watcher.step())
                clock.sleep(EVERY_S)
            hook.wait_for(2)
            assert alarming.trouble is None
    told = [(posted.body["news"], posted.body["alarm"]["stage"]) for posted in hook.posted]
    assert told == [("firing", "probable"), ("worse", "confirmed")]
    assert hook.posted[1].body["alarm"]["picture"].startswith("iVBOR")

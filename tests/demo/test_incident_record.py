"""What a run notes down: autopsies of real dead processes, news only once, forecasts, text."""

import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from stanch.demo.autopsies import autopsy
from stanch.demo.deploy import Deployment, node_specs, targets
from stanch.demo.host.node import Died
from stanch.demo.host.workplace import Workplace
from stanch.demo.load.report import LoadMeasure
from stanch.demo.logbook import Logbook
from stanch.demo.outcome import Outcome, outcome_to_dict, print_outcome
from stanch.demo.record import Place
from stanch.demo.scenario import (
    MIB,
    REQUESTS_PER_MINUTE,
    SERVICES,
    SMALL,
    cast,
    load_plan,
    units_per_request,
)
from stanch.demo.timeline import MemoryGauge, Timeline, duration, gauges
from stanch.demo.verdict import Row, Verdict
from stanch.detect.finding import Finding

FINDING = Finding(
    service="shop",
    kind="leak",
    stage="probable",
    file="shop/sessions.py",
    line=41,
    function="remember",
    stack=(),
    rate_bytes_per_second=1.5 * MIB,
    rates=(1.0, 1.5 * MIB, 2.0 * MIB),
    rate_bytes_per_request=48_000.0,
    rate_count_per_second=None,
    grown_bytes=20.0 * MIB,
    confidence=0.9,
    seconds_to_death=(50.0, 60.0, 75.0),
    first_to_die="shop-3",
    instances=("shop-1", "shop-3"),
    evidence=(),
)
# Keeps 16 MiB of small strings, then waits to be killed.
HOARDER = """
import sys, time
from stanch import sampler
def hoard():
    return [b"x" * 1000 + str(number).encode() for number in range(16 * 1024)]
sampler.start(interval_bytes=16384, table=sys.argv[1], service="hoarder")
kept = hoard()
print("kept", flush=True)
time.sleep(600)
"""


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    """Every service on paper: nothing is built or started."""
    workplace = Workplace(keep=False)
    services = cast(with_go=True)
    nodes = [node for service in services for node in service.node_names()]
    yield Deployment(
        services=services,
        workplace=workplace,
        addresses={node: f"127.0.0.1:{1000 + number}" for number, node in enumerate(nodes)},
        profiles={node: f"127.0.0.1:{2000 + number}" for number, node in enumerate(nodes)},
        left_out=None,
    )
    workplace.close()


def console() -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, width=150), written


def test_the_autopsy_of_a_killed_process_names_its_line(tmp_path: Path) -> None:
    """The table of a process that was killed by SIGKILL shows where its memory came from."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOARDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "kept\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -9
    process.stdout.close()
    (tmp_path / "torn.stanch").write_bytes(b"STANCH")
    found = autopsy("hoarder", "hoarder-1", tmp_path)
    assert found is not None
    assert found.pid == process.pid
    assert found.place.function.startswith("hoard")
    assert found.place.line == 5
    assert 14 * MIB < found.place_bytes <= found.live_bytes < 30 * MIB


def test_no_table_gives_no_autopsy(tmp_path: Path) -> None:
    """A process that left no table, or a torn one, has no autopsy, and that is no error."""
    assert autopsy("shop", "shop-1", tmp_path) is None
    (tmp_path / "9.stanch").write_bytes(b"")
    assert autopsy("shop", "shop-1", tmp_path) is None


def test_news_is_told_once(deployment: Deployment) -> None:
    """A finding is news when it is new or has become surer, not at each step."""
    logbook = Logbook(deployment, SMALL)
    confirmed = replace(FINDING, stage="confirmed")
    assert logbook.note_findings(10.0, [FINDING]) == [FINDING]
    assert logbook.note_findings(12.0, [FINDING]) == []
    assert logbook.note_findings(20.0, [confirmed]) == [confirmed]
    assert logbook.note_findings(25.0, [confirmed, FINDING]) == []
    sightings = logbook.record().sightings
    assert [(one.at_s, one.stage) for one in sightings] == [(10.0, "probable"), (20.0, "confirmed")]


def test_a_suspicion_is_noted_not_told(deployment: Deployment) -> None:
    """What is only suspected is no news, and neither is its going away."""
    logbook = Logbook(deployment, SMALL)
    assert logbook.note_findings(10.0, [replace(FINDING, stage="suspect")]) == []
    assert logbook.note_findings(12.0, [replace(FINDING, kind="load", stage="suspect")]) == []
    assert len(logbook.record().sightings) == 2


def test_a_leak_that_was_told_of_is_cleared_once(deployment: Deployment) -> None:
    """What was told as a probable leak and turns out a cache is news again, once."""
    logbook = Logbook(deployment, SMALL)
    cache = replace(FINDING, kind="filling cache", stage="suspect")
    assert logbook.note_findings(10.0, [FINDING]) == [FINDING]
    assert logbook.note_findings(20.0, [cache]) == [cache]
    assert logbook.note_findings(30.0, [cache]) == []
    out, written = console()
    Timeline(out).finding(20.0, cache)
    assert "cleared  shop: shop/sessions.py:41 remember no longer looks like a leak but like " in (
        written.getvalue()
    )


def test_a_forecast_is_held_against_the_first_death_alone(deployment: Deployment) -> None:
    """The first confirmed finding's forecast is given for a service's first death, not again."""
    logbook = Logbook(deployment, SMALL)
    assert logbook.take_forecast("notify") is None
    logbook.note_findings(10.0, [FINDING])
    logbook.note_findings(20.0, [replace(FINDING, stage="confirmed")])
    logbook.note_findings(25.0, [replace(FINDING, stage="confirmed")])
    forecast = logbook.take_forecast("shop")
    assert forecast is not None
    assert (forecast.said_at_s, forecast.likely_s) == (20.0, 80.0)
    logbook.note_findings(90.0, [replace(FINDING, stage="confirmed")])
    assert logbook.take_forecast("shop") is None


def test_tables_go_unless_they_are_kept(deployment: Deployment) -> None:
    """The tables of the life before the dead one are removed; with --keep they stay."""
    logbook = Logbook(deployment, SMALL)
    died = Died("shop-1", "shop", 2, 85.0, 95.0, True, "killed", 160 * MIB)
    before, kept = deployment.tables("shop-1", 1), deployment.tables("shop-1", 2)
    assert logbook.note_death(80.0, died, keep_tables=True) is None
    assert before.exists()
    logbook.note_death(80.0, died, keep_tables=False)
    assert not before.exists()
    assert kept.exists()


def test_only_first_lives_are_reckoned(deployment: Deployment) -> None:
    """A node that has died once no longer adds to its trace, for its new life began elsewhere."""
    logbook = Logbook(deployment, SMALL)
    used = dict.fromkeys(deployment.addresses, 40 * MIB)
    for at_s in range(10):
        logbook.note_memory(float(at_s), {**used, "pricing": (40 + at_s) * MIB})
    life = logbook.record().lives["pricing"]
    assert not life.measured
    assert life.seconds == pytest.approx(SMALL.limits["pricing"] / MIB - 40)  # at 1 MiB/s
    logbook.note_death(
        10.0, Died("pricing", "pricing", 1, 20.0, 20.0, True, "", 1), keep_tables=False
    )
    for at_s in range(10, 20):
        logbook.note_memory(float(at_s), used)
    assert logbook.record().lives["pricing"].measured


def test_python_services_run_under_stanch_unchanged(deployment: Deployment) -> None:
    """Each Python node is `stanch run ... -- its own command`; Go is started as it is."""
    specs = {spec.name: spec for spec in node_specs(deployment, SMALL, fixed=False)}
    shop = specs["shop-2"].command(3)
    split = shop.index("--")
    assert shop[1:6] == ["-m", "stanch.cli.main", "run", "--service", "shop"]
    assert shop[split + 2 : split + 4] == ["-m", "gunicorn"]
    assert shop[shop.index("--table") + 1].endswith("tables/shop-2/3")
    assert "stanch.cli.main" not in specs["ledger"].command(1)
    assert specs["shop-2"].environment["STANCH_DEMO_FIXED"] == "0"
    fixed = node_specs(deployment, SMALL, fixed=True)
    assert {spec.environment["STANCH_DEMO_FIXED"] for spec in fixed} == {"1"}


def test_settings_of_the_user_do_not_reach_the_nodes(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STANCH_* variables of whoever runs the demo are not the nodes' settings."""
    monkeypatch.setenv("STANCH_INTERVAL", "1")
    spec = node_specs(deployment, SMALL, fixed=False)[0]
    assert {name for name in spec.environment if name.startswith("STANCH_")} == {
        "STANCH_DEMO_FIXED"
    }


def test_the_watcher_is_told_the_limit_only_without_cgroups(deployment: Deployment) -> None:
    """Limits come from the cgroup, as in life; only where there is none are they told."""
    known = targets(deployment, SMALL, tell_limits=False)
    assert {target.limit_bytes for target in known} == {None}
    assert known[0].base_url == f"http://{deployment.profiles['shop-1']}"
    told = {t.service: t.limit_bytes for t in targets(deployment, SMALL, tell_limits=True)}
    assert told == dict(SMALL.limits)


@pytest.mark.parametrize("with_go", [True, False])
def test_the_load_is_ten_thousand_a_minute(with_go: bool) -> None:
    """The services that take part get 10,000 requests a minute between them, Go or not."""
    services = cast(with_go=with_go)
    nodes = {node: "h:1" for service in services for node in service.node_names()}
    plan = load_plan(services, nodes, dict.fromkeys(nodes, 40 * MIB), SMALL)
    assert plan.per_minute == REQUESTS_PER_MINUTE
    assert len(services) == (5 if with_go else 4)


def test_requests_are_sized_to_the_life_of_a_node() -> None:
    """What a node keeps of its requests fills the room that it has left in the time planned."""
    shop = SERVICES[0]
    units = units_per_request(shop, 160 * MIB, 60 * MIB, life_s=85.0)
    kept_per_second = units * shop.unit_bytes * shop.per_minute / 60 / shop.nodes
    assert 100 * MIB / kept_per_second == pytest.approx(85.0, rel=0.02)


def test_the_timeline_is_one_plain_line_per_event() -> None:
    """Without a terminal each event is one line of plain text, however long it is."""
    out, written = console()
    timeline = Timeline(out)
    load = LoadMeasure(10.0, {"shop": 1600}, {"shop": 7}, 2.0, 31.0, 90.0)
    timeline.load(20.0, load, [MemoryGauge("shop", 50 * MIB, 52 * MIB, 160 * MIB)])
    timeline.finding(30.0, replace(FINDING, stage="confirmed"))
    timeline.finding(31.0, replace(FINDING, kind="native leak", file="", taken_by="\x1b[31mbad"))
    lines = written.getvalue().splitlines()
    assert len(lines) == 3
    assert "0:20  load" in lines[0]
    assert "9,642/min, p50 2 ms, p99 31 ms, 7 failed; MiB: shop 50-52/160" in lines[0]
    assert (
        "FOUND    shop: leak at shop/sessions.py:41 remember (confirmed, confidence 0.90)"
        in lines[1]
    )
    assert "1.50 MiB/s in each of 2, 46.9 KiB per request" in lines[1]
    assert "shop-3 dies in 1:00 (0:50 to 1:15)" in lines[1]
    assert "native memory" in lines[2]
    assert "\x1b" not in written.getvalue()


def test_a_death_is_told_with_its_forecast(deployment: Deployment) -> None:
    """The line of a first death carries what had been foretold, and when."""
    logbook = Logbook(deployment, SMALL)
    logbook.note_findings(30.0, [replace(FINDING, stage="confirmed")])
    out, written = console()
    died = Died("shop-3", "shop", 1, 100.0, 95.0, True, "killed by the kernel", 160 * MIB)
    Timeline(out).death(88.0, died, 88.0, logbook.take_forecast("shop"))
    text = written.getvalue()
    assert "KILLED   shop-3: killed by the kernel, 1:28 under load" in text
    assert "at 0:30 Stanch had foretold the first death of shop for 1:30 (1:20 to 1:45)" in text


def test_gauges_span_the_nodes_of_a_service() -> None:
    """A service's gauge goes from its emptiest to its fullest node."""
    found = gauges({"shop": ("a", "b")}, {"a": 3, "b": 5}, {"shop": 9})
    assert found == [MemoryGauge("shop", 3, 5, 9)]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3661, "1:01:01"), (-5, "0:00")]
)
def test_durations_read_as_clocks(seconds: float, text: str) -> None:
    """Durations are written as m:ss, with hours when there are any."""
    assert duration(seconds) == text


def test_the_outcome_reads_as_table_and_as_json(deployment: Deployment) -> None:
    """The last page names each service with its verdict; the same values are there as JSON."""
    logbook = Logbook(deployment, SMALL)
    record = logbook.record()
    row = Row("shop", "sessions never expire", "leak, here", 30.0, None, None, False, "why")
    load = LoadMeasure(10.0, {"shop": 1600}, {}, 2.0, 31.0, 90.0)
    outcome = Outcome(False, "cgroups", load, record, (), Verdict((row,), ("shop: why",)))
    out, written = console()
    print_outcome(out, outcome)
    text = written.getvalue()
    assert "sessions never expire" in text
    assert "MISS: shop: why" in text
    assert "Not solved: 1 problem(s)" in text
    values = outcome_to_dict(outcome)
    assert values["ok"] is False
    assert values["rows"][0]["service"] == "shop"
    assert values["load"]["per_minute"] == pytest.approx(9600)


def test_places_are_short() -> None:
    """A place is written with the last two parts of its path, and without a path as no line."""
    assert str(Place("/tmp/x/services/shop/sessions.py", 4, "remember")) == (
        "shop/sessions.py:4 remember"
    )
    assert str(Place()) == "no line"

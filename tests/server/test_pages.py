"""The pages over a real store with a leak in it, served by a real server."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from stanch.collect import FixedTargets
from stanch.collect.exposition import parse_exposition
from stanch.collect.received import Receiver
from stanch.profile import parse
from stanch.server.configuration import ServerConfiguration
from stanch.server.fleet import Fleet
from stanch.server.pages.application import make_application
from stanch.server.tokens import Tokens
from stanch.store import Look, ProcessLook
from stanch.store.history import TargetRow as TargetHealth
from stanch.store.sqlstore import Extra, SqlStore, Taken, open_store
from tests.server.serving import serving_application
from tests.store.pprofs import heap_bytes

MIB = 1024 * 1024
STEPS = 60
EVERY_S = 15.0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    """A quarter of an hour of two replicas that keep what they remember, and a life before."""
    with open_store("chdb", tmp_path_factory.mktemp("store")) as opened:
        began_s = time.time() - STEPS * EVERY_S
        for step in range(STEPS):
            at_s = step * EVERY_S
            for number, instance in enumerate(("shop-1", "shop-2")):
                life_s = at_s if number or at_s < 300 else at_s - 300
                kept = int((8 + 0.25 * life_s) * MIB)
                data = heap_bytes(
                    {"remember": kept, "steady": 20 * MIB},
                    age_s=life_s + 5,
                    time_s=began_s + at_s,
                )
                pid = 11 if number or at_s < 300 else 12
                process = ProcessLook(
                    pid, life_s + 5, rss_bytes=kept + 60.0 * MIB, requests=10 * life_s
                )
                look = Look(
                    "shop", instance, at_s, began_s + at_s, "python", (process,), 512.0 * MIB
                )
                look = replace(look, release="v2" if pid == 12 else "v1")
                opened.take(look, [Taken("heap", data)], Extra(0.05 + at_s / 9000))
        opened.flush()
        Fleet(opened, FixedTargets(())).detect_once()
        yield opened


@pytest.fixture(scope="module")
def url(store: SqlStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The pages on loopback, without tokens."""
    configuration = ServerConfiguration(tmp_path_factory.mktemp("data"))
    application = make_application(store, Receiver(store, time.time), configuration, None)
    with serving_application(application) as base:
        yield base


def test_a_finding_is_reached_from_the_overview(store: SqlStore, url: str) -> None:
    """The overview links to the finding, whose page names the line, its path and the evidence."""
    (row,) = store.history.findings()
    overview = httpx.get(url).text
    assert f'href="/findings/{row.finding}"' in overview
    page = httpx.get(f"{url}/findings/{row.finding}").text
    assert "remember" in page
    assert f"{row.file}:{row.line}" in page
    assert row.document["evidence"][0].split(" ")[0] in page


@pytest.mark.parametrize("path", ["/", "/services/shop", "/profiles/shop", "/targets", "/settings"])
def test_pages_answer(url: str, path: str) -> None:
    """Each page answers with its own title, under a policy that allows nothing inline."""
    answer = httpx.get(url + path)
    assert answer.status_code == 200
    assert "- Stanch</title>" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_load_and_latency_are_drawn_below_memory(url: str) -> None:
    """Three charts of one width and one time axis, with the same deploy in each; a service that
    tells no latency has no chart of it."""
    page = httpx.get(f"{url}/services/shop").text
    charts = re.findall(r'<svg class="chart".*?</svg>', page, re.S)
    labels = [re.search(r'aria-label="([^"]*)"', chart)[1] for chart in charts]  # type: ignore[index]
    assert labels == [
        "memory of shop",
        "requests a second to shop",
        "mean time of a request to shop",
    ]
    times = [
        re.findall(r'<text class="tick mid" x="([\d.]+)"[^>]*>([\d:]+)<', one) for one in charts
    ]
    assert times[0] == times[1] == times[2] != []
    deploys = [re.findall(r'class="mark deploy"><line x1="([\d.]+)"', one) for one in charts]
    assert deploys[0] == deploys[1] == deploys[2]
    assert len(deploys[0]) == 1
    assert "ms</text>" in charts[2]


@pytest.mark.parametrize("path", ["/services/none", "/profiles/none", "/findings/0", "/deaths/0"])
def test_unknown_things(url: str, path: str) -> None:
    """What is not known is a 404 in a sentence."""
    answer = httpx.get(url + path)
    assert answer.status_code == 404
    assert "<h1>Not found</h1>" in answer.text


def test_what_keeps_a_leak_is_shown(store: SqlStore, url: str) -> None:
    """The heaviest path of an answer stands in the page, whatever else a target put into it."""
    (row,) = store.history.findings()
    deep = {"reference": "kept <b>list</b>", "bytes": 9, "length": 1234, "holds": "no list"}
    paths = [{"bytes": 1, "type": "lighter"}, {"bytes": 5, "type": "dict", "holds": [deep]}, 7]
    store.write_findings([replace(row, retention={"paths": paths})])
    page = httpx.get(f"{url}/findings/{row.finding}").text
    assert "kept &lt;b&gt;list&lt;/b&gt;" in page
    assert "1,234 entries" in page
    assert "lighter" not in page
    store.write_findings([row])


def flame_of(text: str) -> dict[str, Any]:
    """The data of the flame graph in a page."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)
    assert found is not None
    loaded: dict[str, Any] = json.loads(found[1])
    return loaded


def test_two_times_are_compared(url: str) -> None:
    """A time in UTC and a base draw what grew; the table tells the change."""
    now = int(time.time())
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    plain = httpx.get(f"{url}/profiles/shop?at={at}").text
    assert not flame_of(plain)["compares"]
    page = httpx.get(f"{url}/profiles/shop?at={at}&base_at={now - 600}").text
    assert flame_of(page)["compares"]
    assert "Compared with shop" in page
    change = httpx.get(f"{url}/download/shop?at={at}&base_at={now - 600}")
    values = {
        sample.locations[0].lines[0].function.name: sample.values[3]
        for sample in parse(change.content).samples
    }
    assert values["remember"] > 0
    assert values.get("steady", 0) == 0


def test_a_release_is_shown_alone(url: str) -> None:
    """Only the process of the new release is in its profile."""
    names = [
        sum(
            sample.values[3]
            for sample in parse(httpx.get(f"{url}/download/shop{q}").content).samples
        )
        for q in ("", "?release=v2", "?instance=shop-2")
    ]
    assert names[0] == names[1] + names[2]
    assert httpx.get(f"{url}/profiles/shop?release=v9").status_code == 404


@pytest.mark.parametrize(
    ("view", "frames"),
    [("callees", ["all", "main", "remember", "steady"]), ("callers", ["all", "main"])],
)
def test_a_function_is_looked_at(url: str, view: str, frames: list[str]) -> None:
    """What a function calls and who calls it are drawn from that function on."""
    page = httpx.get(f"{url}/profiles/shop?function=main&view={view}").text
    assert sorted(frame["name"] for frame in flame_of(page)["frames"]) == frames


@pytest.mark.parametrize(
    "query",
    ["at=yesterday", "at=99999999999999", "label==", "kind=x&view=y", "function=%00<script>"],
)
def test_odd_questions(url: str, query: str) -> None:
    """What an address asks for in vain gives the default or a sentence, and never an error."""
    answer = httpx.get(f"{url}/profiles/shop?{query}")
    assert answer.status_code in (200, 404)
    assert "<script>" not in answer.text


def test_other_names_and_sites_are_refused(url: str) -> None:
    """On loopback a name that was rebound, and a form of another site, are refused."""
    assert httpx.get(url, headers={"host": "evil.example"}).status_code == 421
    refused = httpx.post(f"{url}/api/v1/push", headers={"origin": "https://evil.example"})
    assert refused.status_code == 403


def test_tokens_are_asked_for(store: SqlStore, tmp_path: Path) -> None:
    """With tokens, each role may do what it is for and nothing else."""
    tokens = Tokens(tmp_path)
    push, view = tokens.make("p", "push"), tokens.make("v", "view")
    configuration = ServerConfiguration(tmp_path, require_tokens=True)
    application = make_application(store, Receiver(store, time.time), configuration, tokens)
    with serving_application(application) as base:

        def status(method: str, path: str, token: str) -> int:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            return httpx.request(method, base + path, headers=headers).status_code

        assert status("GET", "/healthz", "") == 200
        assert status("GET", "/", "") == 401
        assert status("GET", "/", view[:-1]) == 401
        assert status("GET", "/", push) == 403
        assert status("GET", "/", view) == 200
        assert status("POST", "/api/v1/push", view) == 403
        with httpx.Client(base_url=base, headers={"accept": "text/html"}) as browser:
            assert browser.get("/").headers["location"] == "/sign-in"
            wrong = browser.post("/sign-in", data={"token": view + "x"})
            assert wrong.headers["location"] == "/sign-in?wrong"
            right = browser.post("/sign-in", data={"token": view})
            assert "httponly" in right.headers["set-cookie"].lower()
            assert "samesite=strict" in right.headers["set-cookie"].lower()
            assert browser.get("/").status_code == 200
        assert status("POST", "/api/v1/push", push) == 400


def test_who_asks_too_often_is_told_when_to_come_back(store: SqlStore, tmp_path: Path) -> None:
    """429 with Retry-After for an address and for a token; the log names both, and no secret."""
    tokens = Tokens(tmp_path)
    push = tokens.make("shop", "push")
    receiver = Receiver(store, time.time)
    headers = {"authorization": f"Bearer {push}"}
    for rates, whose in (
        ({"sender_rate": 0.001, "token_rate": 0.0}, "requests from this address"),
        ({"sender_rate": 0.0, "token_rate": 0.001}, "pushes with the token shop"),
    ):
        configuration = ServerConfiguration(tmp_path, **rates)
        application = make_application(store, receiver, configuration, tokens)
        with serving_application(application) as base:
            answers = [httpx.post(f"{base}/api/v1/push", headers=headers) for _ in range(3)]
            assert all(httpx.get(f"{base}/healthz").status_code == 200 for _ in range(5))
        assert [answer.status_code for answer in answers] == [400, 429, 429]
        assert whose in answers[1].text
        assert 500 < int(answers[1].headers["retry-after"]) <= 1000
        with serving_application(application) as base:
            broken = {"authorization": "Bearer " + push.replace("_shop_", "_")}
            assert httpx.get(base, headers=broken).status_code in (401, 429)
    log = (tmp_path / "audit.jsonl").read_text()
    assert '"token": "shop"' in log and '"status": "429"' in log
    assert push not in log and push.rpartition("_")[2] not in log


def test_the_server_tells_of_itself(store: SqlStore, tmp_path: Path) -> None:
    """Its metrics are what Prometheus reads: targets, pushes, the store and its own memory."""
    store.write_targets(
        [TargetHealth('a"b', "i", "http://h:1", "scrape", "down", "gone", 0.25, time.time(), None)]
    )
    application = make_application(
        store, Receiver(store, time.time), ServerConfiguration(tmp_path), None
    )
    with serving_application(application) as base:
        body = heap_bytes({"f": 1000}, time_s=time.time())
        for content in (body, body, b"nonsense"):
            httpx.post(f"{base}/api/v1/push", content=content, headers={"X-Stanch-Service": "s"})
        httpx.post(f"{base}/api/v1/push", headers={"origin": "https://evil.example"})
        answer = httpx.get(f"{base}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    told = parse_exposition(answer.content)
    outcomes = {
        metric.labels["outcome"]: metric.value
        for metric in told.metrics["stanch_server_pushes_total"]
    }
    assert outcomes == {"taken": 1.0, "again": 1.0, "refused": 2.0, "full": 0.0}
    (down,) = [
        metric
        for metric in told.metrics["stanch_server_target_up"]
        if metric.labels["service"] == 'a"b'
    ]
    assert down.value == 0.0
    assert told.total("stanch_server_scrape_duration_seconds") == 0.25
    assert (told.total("process_resident_memory_bytes") or 0) > 1e7
    assert (told.total("stanch_server_store_rows") or 0) >= 0
    assert told.total("process_open_fds")

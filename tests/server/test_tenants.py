"""Limits by service, and of how many services a sender may name: in the small and over HTTP."""

import json
import time
from pathlib import Path

import httpx
import pytest

from stanch.collect.received import Receiver
from stanch.server.audit import AuditLog
from stanch.server.configuration import ServerConfiguration
from stanch.server.limits import BURST_S
from stanch.server.pages.application import make_application
from stanch.server.telemetry import Counters
from stanch.server.tenants import MOST_NAMES, WINDOW_S, TenantError, Tenants
from stanch.server.tokens import Tokens
from stanch.store.sqlstore import open_store
from tests.server.serving import serving_application
from tests.store.pprofs import heap_bytes


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def limited(tmp_path: Path) -> list[dict[str, str]]:
    """What the audit log tells of limits."""
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == "limited"]


def test_one_service_does_not_take_what_others_need(tmp_path: Path) -> None:
    """Whoever pushes for it, a service has its rate; another has its own."""
    clock, counters = Clock(), Counters()
    tenants = Tenants(5.0, 0, AuditLog(tmp_path), counters, clock)
    for number in range(int(BURST_S * 5)):
        tenants.admit(f"token {number}", "shop")
    for _ in range(3):
        with pytest.raises(TenantError, match=r"too many profiles for the service 'shop'") as full:
            tenants.admit("token new", "shop")
    assert full.value.wait_s == 1
    tenants.admit("token new", "cart")
    clock.now_s += 1.0
    tenants.admit("token new", "shop")
    assert counters.refusals() == {"address": 0, "token": 0, "service": 3, "services": 0}
    assert [(line["limit"], line["service"]) for line in limited(tmp_path)] == [("service", "shop")]


def test_endless_names_are_refused_and_known_ones_go_on(tmp_path: Path) -> None:
    """A sender has its number of names for a day; one that it has left for a day makes room."""
    clock, counters = Clock(), Counters()
    tenants = Tenants(0.0, 3, AuditLog(tmp_path), counters, clock)
    for name in ("a", "b", "c"):
        tenants.admit("token x", name)
    for number in range(1000):
        clock.now_s += 1.0
        with pytest.raises(TenantError, match="has named 3 services in a day") as full:
            tenants.admit("token x", f"invented {number}")
    assert 1 <= full.value.wait_s <= 3600
    tenants.admit("token x", "a")
    tenants.admit("token y", "d")
    assert counters.refusals()["services"] == 1000
    assert [line["sender"] for line in limited(tmp_path)] == ["token x"]
    clock.now_s = WINDOW_S + 1
    tenants.admit("token x", "d")
    tenants.admit("token x", "a")


def test_many_senders_are_remembered_within_a_bound(tmp_path: Path) -> None:
    """Beyond it the one that was not heard of for the longest time is forgotten."""
    tenants = Tenants(0.0, MOST_NAMES, AuditLog(tmp_path), Counters(), Clock())
    tenants.admit("token old", "a")
    tenants.admit("token old", "b")
    for number in range(MOST_NAMES):
        tenants.admit(f"token {number % 7}", f"service {number}")
    assert sum(map(len, tenants._named.values())) <= MOST_NAMES
    assert "token old" not in tenants._named


def test_each_way_in_has_the_limits(tmp_path: Path) -> None:
    """A service beyond its rate, or one too many, is a 429 with a sentence on each route, of which
    the metrics tell; no trace of it is in the store. Another token has names of its own."""
    tokens = Tokens(tmp_path)
    one, other = tokens.make("one", "push"), tokens.make("other", "push")
    admin = tokens.make("boss", "admin")
    configuration = ServerConfiguration(
        tmp_path, service_rate=0.001, sender_services=2, require_tokens=True
    )
    with open_store("chdb", tmp_path / "store") as store:
        application = make_application(store, Receiver(store, time.time), configuration, tokens)
        with (
            serving_application(application) as base,
            httpx.Client(base_url=base, timeout=60.0) as client,
        ):

            def push(path: str, text: str, service: str = "", token: str = one) -> httpx.Response:
                headers = {"Authorization": f"Bearer {token}", "X-Stanch-Service": service}
                body = heap_bytes({text: 1000}, time_s=time.time(), comments=("service=said",))
                return client.post(path, content=body, headers=headers)

            assert push("/api/v1/push", "first", "shop").status_code == 200
            again = push("/api/v1/push", "second", "shop", other)
            assert (again.status_code, int(again.headers["retry-after"]) > 1) == (429, True)
            assert "too many profiles for the service 'shop'" in again.text
            assert push("/api/v1/push", "third").json()["service"] == "said"
            for path, service in (("/api/v1/push", "new"), ("/ingest?name=newer", "")):
                refused = push(path, path, service)
                assert (refused.status_code, "named 2 services" in refused.text) == (429, True)
            alloy = client.post(
                "/push.v1.PusherService/Push",
                headers={"Authorization": f"Bearer {one}"},
                json={
                    "series": [
                        {
                            "labels": [{"name": "service_name", "value": "newest"}],
                            "samples": [{"rawProfile": "AAAA"}],
                        }
                    ]
                },
            )
            assert (alloy.status_code, alloy.json()["code"]) == (429, "resource_exhausted")
            assert push("/api/v1/push", "fourth", "new", other).status_code == 200
            told = client.get("/metrics", headers={"Authorization": f"Bearer {admin}"}).text
        assert 'stanch_server_limited_total{limit="services"} 3\n' in told
        assert 'stanch_server_limited_total{limit="service"} 1\n' in told
        store.flush()
        assert store.history.service_names() == ("new", "said", "shop")
    assert [(line["limit"], line["sender"]) for line in limited(tmp_path)] == [
        ("service", "token other"),
        ("services", "token one"),
    ]

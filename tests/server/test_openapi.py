"""The OpenAPI document: it names each route for programs, and each answer is one it tells of."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from stanch.collect.received import Receiver
from stanch.server.configuration import ServerConfiguration
from stanch.server.openapi import document
from stanch.server.pages.application import make_application
from stanch.store.sqlstore import SqlStore, open_store
from tests.server.serving import serving_application
from tests.store.pprofs import heap_bytes

PAGES = {
    *("/", "/services/{service}", "/findings/{finding}", "/profiles/{service}"),
    *("/deaths/{death}", "/targets", "/settings", "/sign-in"),
}
"""For people, not for programs."""
ODD = ("", "x", "é\n\0", "2026-01-01T00:00:00", "-1", "9" * 400, "../../etc/passwd", "a=b", "heap")
TRIES = 40


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    """A store of chDB."""
    with open_store("chdb", tmp_path_factory.mktemp("store")) as opened:
        yield opened


def test_each_route_for_programs_is_in_it(store: SqlStore, tmp_path: Path) -> None:
    """And nothing that is not there."""
    application = make_application(
        store, Receiver(store, time.time), ServerConfiguration(tmp_path), None
    )
    served = {
        (route.path_format, method.lower())
        for route in application.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD" and route.path_format not in PAGES
    }
    told = {(path, method) for path, methods in document()["paths"].items() for method in methods}
    assert served == told


def test_what_is_answered_is_what_it_says(store: SqlStore, tmp_path: Path) -> None:
    """Status and type of each answer, for right, wrong and odd parameters and bodies."""
    configuration = ServerConfiguration(tmp_path, sender_rate=0.0)
    application = make_application(store, Receiver(store, time.time), configuration, None)
    chance = random.Random(5)
    seen: dict[str, set[int]] = {}
    with serving_application(application) as base, httpx.Client(base_url=base) as client:
        body = heap_bytes({"f": 1000}, time_s=time.time())
        good = {"X-Stanch-Service": "shop"}
        client.post("/api/v1/push", content=body, headers=good).raise_for_status()
        store.flush()
        told: dict[str, Any] = client.get("/openapi.json").json()
        for path, methods in told["paths"].items():
            for method, operation in methods.items():
                for number in range(TRIES):
                    answer = _ask(client, method, path, operation, body, number, chance)
                    _check(operation, answer)
                    seen.setdefault(path, set()).add(answer.status_code)
    assert seen["/api/v1/push"] == {200, 400}
    assert seen["/download/{service}"] >= {200, 404}
    assert seen["/healthz"] == seen["/readyz"] == seen["/metrics"] == {200}


def _ask(
    client: httpx.Client,
    method: str,
    path: str,
    operation: dict[str, Any],
    body: bytes,
    number: int,
    chance: random.Random,
) -> httpx.Response:
    """One request: the first is a good one, the others are odd in some of their parts."""
    query: dict[str, str] = {}
    headers: dict[str, bytes] = {}
    for parameter in operation.get("parameters", ()):
        if number == 0 or chance.random() < 0.5:
            continue
        odd = chance.choice(ODD)
        if parameter["in"] == "query":
            query[parameter["name"]] = odd
        elif parameter["in"] == "header":
            headers[parameter["name"]] = odd.replace("\n\0", "").encode()
    service = "shop" if number % 2 == 0 else chance.choice(("nobody", "a b", "%2e%2e%2f", "é"))
    content = None
    if "requestBody" in operation:
        content = body if number == 0 else chance.choice((body, body[:50], b"", b"<html>", b"{}"))
        media = chance.choice(list(operation["requestBody"]["content"]))
        headers["Content-Type"] = media.encode()
    return client.request(
        method,
        path.format(service=service, death="0"),
        params=query,
        headers=headers,
        content=content,
    )


def _check(operation: dict[str, Any], answer: httpx.Response) -> None:
    """The status is one of those that are told, its type too; none is the server's own fault."""
    assert answer.status_code < 500, answer.text
    told = operation["responses"][str(answer.status_code)]
    media = answer.headers.get("content-type", "").partition(";")[0]
    if "content" in told:
        assert media in told["content"], (answer.status_code, media)
    if media == "application/json":
        required = told.get("content", {}).get(media, {}).get("schema", {}).get("required", ())
        assert set(required) <= set(answer.json())

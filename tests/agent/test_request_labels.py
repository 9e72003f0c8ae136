"""The label of a request: from its path, from its router, and where it holds."""

import asyncio
import gc
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from stanch.agent import requestlabels
from stanch.agent.metrics import RequestMeter
from stanch.agent.middleware import StanchASGI, StanchWSGI
from stanch.sampler import _core, label

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="routes are read from contexts of CPython 3.11 to 3.13"
)


@pytest.fixture(autouse=True)
def switched_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Label requests, with none known yet."""
    monkeypatch.setattr(requestlabels, "_paths", set())
    requestlabels.switch(True)
    yield
    requestlabels.switch(False)


def route() -> str:
    """Return the route of a sample taken now."""
    return _core.label_now()[1]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("", "/"),
        ("/orders/12345", "/orders/{}"),
        ("/orders/12345/lines/", "/orders/{}/lines"),
        ("/v2/users", "/v2/users"),
        ("/users/0b9f2f0e-7d1c-4b52-9f43-0e8f4f4b1a77/x", "/users/{}/x"),
        ("/files/deadbeef01", "/files/{}"),
        ("/reset/eyJhbGciOiJIUzI1NiIsInR5cCI6", "/reset/{}"),
        ("/users/jo@shop.example/orders", "/users/{}/orders"),
        ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/..."),
        (f"/{'x' * 50}", "/{}"),
        ("/a\nb\x1b", "/a\\nb\\x1b"),
        ("/größe", "/größe"),
        ("/half\ud800", "/half\\ud800"),
    ],
)
def test_paths_without_identities(path: str, expected: str) -> None:
    """What looks like an identity, a token or an address is left out of a path."""
    assert requestlabels.path_label(path) == expected


def test_paths_and_methods_are_bounded() -> None:
    """A scanner that asks for everything, by any method, makes 200 labels and one more."""
    for number in range(1000):
        requestlabels.path_label(f"/x{number}y")
    assert requestlabels.path_label("/x1y") == "/x1y"
    assert requestlabels.path_label("/x900y") == "[other paths]"
    mark = requestlabels.request_label("BREW" * 1000, "/new")
    assert mark is not None
    assert mark.route == "OTHER [other paths]"


def test_routed_and_mounted() -> None:
    """A router renames the label in place; what it is mounted at comes before."""
    mark = requestlabels.request_label("GET", "/api/v1/users/7")
    assert mark is not None
    assert mark.route == "GET /api/v1/users/{}"
    mark.mounted("/")
    assert mark.route == "GET /api/v1/users/{}"
    mark.mounted("/api")
    assert mark.route == "GET /api/..."
    mark.routed("users/<int:id>")
    assert mark.route == "GET /api/users/<int:id>"


def serve(app: Any, environ: dict[str, Any]) -> list[bytes]:
    """Call an application in the middleware as a server does."""
    body: Any = StanchWSGI(app, RequestMeter())(environ, lambda *_: None)
    try:
        parts = []
        for part in body:
            assert route() == ""  # the server's own time between parts
            parts.append(part)
        return parts
    finally:
        if hasattr(body, "close"):
            body.close()


def test_wsgi_label_holds_in_call_body_and_close() -> None:
    """It is there while the application, its body and its close run, and at no other time."""
    seen = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            seen.append(route())
            yield b"a"
            with label("by the host"):
                seen.append(route())
            yield b"b"

        def close(self) -> None:
            seen.append(route())

    def app(environ: object, start: object) -> Iterable[bytes]:
        seen.append(route())
        mark = requestlabels.current()
        assert mark is not None
        mark.routed("/orders/<int:id>")
        return Body()

    environ = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/shop",
        "PATH_INFO": "/gr\xc3\xb6\xc3\x9fe/1",
    }
    assert serve(app, environ) == [b"a", b"b"]
    routed = "POST /orders/<int:id>"
    assert seen == ["POST /shop/größe/{}", routed, "by the host", routed]
    assert route() == ""


def test_wsgi_errors_end_the_label() -> None:
    """After an exception of the application or its body the context is as before."""

    def raising(environ: object, start: object) -> Iterable[bytes]:
        raise KeyError

    def breaking(environ: object, start: object) -> Iterator[bytes]:
        yield b"a"
        raise KeyError

    for app in (raising, breaking):
        with pytest.raises(KeyError):
            serve(app, {"PATH_INFO": "/x"})
        assert route() == ""
    abandoned: Any = StanchWSGI(breaking, RequestMeter())({"PATH_INFO": "/x"}, lambda *_: None)
    next(iter(abandoned))
    del abandoned
    gc.collect()
    assert route() == ""


@pytest.mark.parametrize(("kind", "method"), [("http", "PUT"), ("websocket", "WEBSOCKET")])
def test_asgi_label_reaches_child_tasks(kind: str, method: str) -> None:
    """A task begun before the route is known sees the template once it is; others have none."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        known = asyncio.Event()

        async def child() -> None:
            seen.append(route())
            await known.wait()
            seen.append(route())

        task = asyncio.create_task(child())
        await asyncio.sleep(0)
        mark = requestlabels.current()
        assert mark is not None
        mark.routed("/rooms/{room}")
        known.set()
        await task

    async def main() -> None:
        scope = {"type": kind, "path": "/rooms/7"} | ({"method": "PUT"} if kind == "http" else {})
        other = asyncio.create_task(asyncio.to_thread(route))
        await StanchASGI(app, RequestMeter())(scope, None, None)  # type: ignore[arg-type]
        assert await other == ""
        assert route() == ""

    asyncio.run(main())
    assert seen == [f"{method} /rooms/{{}}", f"{method} /rooms/{{room}}"]


def test_off_means_no_label() -> None:
    """Switched off, requests have none."""
    requestlabels.switch(False)

    def app(environ: object, start: object) -> Iterable[bytes]:
        return [route().encode()]

    assert serve(app, {"PATH_INFO": "/x"}) == [b""]

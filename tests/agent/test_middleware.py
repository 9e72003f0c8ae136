"""The middleware: what is counted, and that the host's own behaviour passes through."""

import asyncio
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper

import pytest

from stanch.agent.metrics import RequestMeter
from stanch.agent.middleware import StanchASGI, StanchWSGI


def counts(meter: RequestMeter) -> tuple[int, int, int]:
    """Return what is finished, failed and in flight."""
    return meter.total, meter.failed, meter.in_flight


def call(app: Callable[..., Any], environ: dict[str, Any] | None = None) -> Any:
    return StanchWSGI(app)(environ if environ is not None else {}, lambda *_: None)


class Stream:
    """A body that streams and knows whether it was closed."""

    def __init__(self, error: Exception | None = None) -> None:
        self.closed = False
        self.error = error

    def __iter__(self) -> Iterator[bytes]:
        yield b"a"
        if self.error:
            raise self.error
        yield b"b"

    def close(self) -> None:
        self.closed = True


def test_streamed_response_ends_with_its_body() -> None:
    """A request is in flight until its body is exhausted; it is counted once, and closed."""
    meter, stream = RequestMeter(), Stream()
    body: Any = StanchWSGI(lambda environ, start: stream, meter)({}, lambda *_: None)
    assert counts(meter) == (0, 0, 1)
    parts = iter(body)
    assert next(parts) == b"a"
    assert counts(meter) == (0, 0, 1)
    assert list(parts) == [b"b"]
    body.close()
    assert stream.closed
    assert counts(meter) == (1, 0, 0)


def test_response_that_is_closed_early() -> None:
    """A body that the server gives up on ends its request, and is closed."""
    meter, stream = RequestMeter(), Stream()
    body: Any = StanchWSGI(lambda environ, start: stream, meter)({}, lambda *_: None)
    body.close()
    assert stream.closed
    assert counts(meter) == (1, 0, 0)


def test_body_that_is_its_own_iterator() -> None:
    """It stays one: a server may take the first part by `next` and the rest by `for`."""
    meter = RequestMeter()
    app = StanchWSGI(lambda environ, start: iter([b"a", b"b", b"c"]), meter)
    body: Any = app({}, lambda *_: None)
    assert next(body) == b"a"
    assert iter(body) is body
    assert counts(meter) == (0, 0, 1)
    assert list(body) == [b"b", b"c"]
    assert counts(meter) == (1, 0, 0)


def test_body_that_can_be_read_again() -> None:
    """A list gives its parts to each iteration, as it would without Stanch; it is one request."""
    meter = RequestMeter()
    body = StanchWSGI(lambda environ, start: [b"a", b"b"], meter)({}, lambda *_: None)
    assert list(body) == list(body) == [b"a", b"b"]
    assert counts(meter) == (1, 0, 0)


def test_body_that_a_server_forgets() -> None:
    """A body that is neither exhausted nor closed ends its request when it is let go."""
    meter = RequestMeter()
    body: Any = StanchWSGI(lambda environ, start: Stream(), meter)({}, lambda *_: None)
    parts = iter(body)
    assert next(parts) == b"a"
    assert counts(meter) == (0, 0, 1)
    del parts, body
    assert counts(meter) == (1, 0, 0)


def test_errors_of_the_application() -> None:
    """Its exceptions pass through, from the call and from the body, and are counted as failed."""
    meter, error = RequestMeter(), KeyError("mine")

    def raising(environ: object, start: object) -> Iterable[bytes]:
        raise error

    with pytest.raises(KeyError) as caught:
        StanchWSGI(raising, meter)({}, lambda *_: None)
    assert caught.value is error
    assert counts(meter) == (1, 1, 0)
    with pytest.raises(KeyError):
        list(StanchWSGI(lambda environ, start: Stream(error), meter)({}, lambda *_: None))
    assert counts(meter) == (2, 2, 0)


def test_server_error_counts_as_failed() -> None:
    """An answer of 5xx has failed, one of 4xx has not; start_response gets what it was given."""
    meter, started = RequestMeter(), []

    def app(status: str) -> Callable[..., Iterable[bytes]]:
        def answer(environ: object, start: Callable[..., object]) -> Iterable[bytes]:
            assert start(status, [("A", "b")], None) == "write"
            return [b""]

        return answer

    def start_response(*arguments: object) -> str:
        started.append(arguments)
        return "write"

    for status in ("404 Not Found", "503 Busy"):
        list(StanchWSGI(app(status), meter)({}, start_response))
    assert counts(meter) == (2, 1, 0)
    assert started == [("404 Not Found", [("A", "b")], None), ("503 Busy", [("A", "b")], None)]


def test_file_wrapper_stays_what_it_is() -> None:
    """A server's own file_wrapper comes back as it was; its close ends the request."""
    meter, file = RequestMeter(), io.BytesIO(b"data")
    made = FileWrapper(file)
    environ = {"wsgi.file_wrapper": FileWrapper}
    body: Any = StanchWSGI(lambda environ, start: made, meter)(environ, lambda *_: None)
    assert body is made
    assert counts(meter) == (0, 0, 1)
    body.close()
    assert file.closed
    assert counts(meter) == (1, 0, 0)


def test_nested_middleware_counts_once() -> None:
    """A request that passes two of them, as under `stanch run` and in code, is one request."""
    meter = RequestMeter()
    app = StanchWSGI(StanchWSGI(lambda environ, start: [b"x"], meter), meter)
    assert list(app({}, lambda *_: None)) == [b"x"]
    assert counts(meter) == (1, 0, 0)


def test_transparent_wrapper() -> None:
    """Sized bodies keep their size, and the application's attributes stay in reach."""

    class App:
        name = "mine"

        def __call__(self, environ: object, start: object) -> list[bytes]:
            return [b"x", b"y"]

    wrapped = StanchWSGI(App(), RequestMeter())
    assert wrapped.name == "mine"
    with pytest.raises(AttributeError, match="absent"):
        _ = wrapped.absent
    body: Any = wrapped({}, lambda *_: None)
    assert len(body) == 2
    body.close()
    assert not hasattr(call(lambda environ, start: iter([b"x"])), "__len__")


def test_broken_meter_is_not_the_hosts_problem() -> None:
    """When counting raises, the response is as it would be without."""

    class Broken(RequestMeter):
        def begin(self) -> None:
            raise RuntimeError

        def end(self, seconds: float, failed: bool) -> None:
            raise RuntimeError

    assert list(StanchWSGI(lambda environ, start: [b"x"], Broken())({}, lambda *_: None)) == [b"x"]


Sent = list[dict[str, Any]]


def serve(app: Callable[..., Any], meter: RequestMeter, scope: dict[str, Any]) -> Sent:
    """Call an ASGI application in the middleware; return what it sent."""
    sent: Sent = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(dict(message) | {"in_flight": meter.in_flight})

    asyncio.run(StanchASGI(app, meter)(scope, receive, send))
    return sent


def test_asgi_request_ends_with_its_last_part() -> None:
    """A streamed response is in flight to its last part; work after it is not timed."""
    meter = RequestMeter()
    after: list[tuple[int, int, int]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        after.append(counts(meter))
        await send({"type": "http.response.body", "body": b"b"})
        after.append(counts(meter))

    assert len(serve(app, meter, {"type": "http"})) == 3
    assert after == [(0, 0, 1), (1, 0, 0)]
    assert counts(meter) == (1, 0, 0)


def test_asgi_errors() -> None:
    """An exception passes through and has failed, and so has an answer of 5xx."""
    meter = RequestMeter()

    async def raising(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("mine")

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500})
        await send({"type": "http.response.body"})

    with pytest.raises(KeyError, match="mine"):
        serve(raising, meter, {"type": "http"})
    serve(failing, meter, {"type": "http"})
    assert counts(meter) == (2, 2, 0)


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_asgi_passes_the_rest_through(kind: str) -> None:
    """Lifespan and websocket connections reach the application untouched and uncounted."""
    meter = RequestMeter()
    scope: dict[str, Any] = {"type": kind}
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send({"type": f"{kind}.done"})

    assert [message["type"] for message in serve(app, meter, scope)] == [f"{kind}.done"]
    assert seen == [{"type": kind}]
    assert seen[0] is scope
    assert counts(meter) == (0, 0, 0)


def test_asgi_nested_counts_once() -> None:
    """Two middlewares around one application count one request."""
    meter = RequestMeter()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.body"})

    serve(StanchASGI(app, meter), meter, {"type": "http"})
    assert counts(meter) == (1, 0, 0)

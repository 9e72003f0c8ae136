"""WSGI and ASGI middleware that counts the requests of the host and times them.

A request begins when the application is called and ends with its response: when a WSGI body is
exhausted or closed, when an ASGI application sends the last part of its body. It has failed when
the application raised or answered 5xx. Everything of the host passes through as it is, streaming,
file_wrapper, lifespan and websockets included; an error of the meter is never the host's. A
request that passes several of these is counted once.
"""

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stanch.agent.metrics import RequestMeter

COUNTED = "stanch.counted"
"""The key in a WSGI environ or ASGI scope that says that the request is being counted."""

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


def _meter_of_process() -> "RequestMeter":
    from stanch.agent.control import meter

    return meter()


class _Request:
    """One request from its begin to its end; ends once, whatever happens."""

    __slots__ = ("_began", "_ended", "_meter", "failed")

    def __init__(self, meter: "RequestMeter") -> None:
        self._meter = meter
        self._ended = False
        self.failed = False
        self._began = time.perf_counter()
        with contextlib.suppress(Exception):
            meter.begin()

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            with contextlib.suppress(Exception):
                self._meter.end(time.perf_counter() - self._began, self.failed)


class StanchWSGI:
    """Wraps a WSGI application; its other attributes stay those of the application."""

    def __init__(self, app: Callable[..., Iterable[bytes]], meter: "RequestMeter | None" = None):
        self._stanch_app = app
        self._stanch_meter = meter or _meter_of_process()

    def __call__(self, *args: Any, **kwargs: Any) -> Iterable[bytes]:
        """Answer a request as the application does."""
        environ = args[0] if len(args) == 2 and not kwargs else None
        if not isinstance(environ, dict) or COUNTED in environ:
            return self._stanch_app(*args, **kwargs)
        environ[COUNTED] = True
        request = _Request(self._stanch_meter)
        try:
            body = self._stanch_app(environ, _watched_start(args[1], request))
        except BaseException as error:
            request.failed = isinstance(error, Exception)
            request.end()
            raise
        return _watched_body(body, environ.get("wsgi.file_wrapper"), request)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_stanch_"):  # a copy that is not initialised yet
            raise AttributeError(name)
        return getattr(self._stanch_app, name)


def _watched_start(start_response: Callable[..., Any], request: _Request) -> Callable[..., Any]:
    def start(*args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], str) and args[0].startswith("5"):
            request.failed = True
        return start_response(*args, **kwargs)

    return start


def _watched_body(body: Any, file_wrapper: object, request: _Request) -> Iterable[bytes]:
    """Return a body that ends the request; a server must find its own file_wrapper as it was."""
    if isinstance(file_wrapper, type) and isinstance(body, file_wrapper):
        return _watch_close(body, request)
    return _SizedBody(body, request) if hasattr(body, "__len__") else _Body(body, request)


def _watch_close(body: Any, request: _Request) -> Iterable[bytes]:
    close = getattr(body, "close", None)

    def close_and_end() -> None:
        try:
            if close is not None:
                close()
        finally:
            request.end()

    try:
        body.close = close_and_end
    except Exception:  # a file_wrapper written in C: its transfer is not timed
        request.end()
    wrapped: Iterable[bytes] = body
    return wrapped


class _Body:
    """The body of a response on its way out."""

    def __init__(self, body: Any, request: _Request) -> None:
        self._body = body
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._body
        except Exception:
            self._request.failed = True
            raise
        finally:
            self._request.end()

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except Exception:
            self._request.failed = True
            raise
        finally:
            self._request.end()


class _SizedBody(_Body):
    """A body whose number of parts is known, from which servers derive Content-Length."""

    def __len__(self) -> int:
        return len(self._body)


class StanchASGI:
    """Wraps an ASGI 3 application; its other attributes stay those of the application."""

    def __init__(
        self, app: Callable[..., Awaitable[None]], meter: "RequestMeter | None" = None
    ) -> None:
        self._stanch_app = app
        self._stanch_meter = meter or _meter_of_process()

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Serve a connection as the application does; only `http` ones are counted."""
        if scope.get("type") != "http" or COUNTED in scope:
            await self._stanch_app(scope, receive, send)
            return
        scope[COUNTED] = True
        request = _Request(self._stanch_meter)

        async def watched_send(message: _Message) -> None:
            kind = message.get("type")
            if kind == "http.response.start" and _is_failure(message.get("status")):
                request.failed = True
            await send(message)
            if kind == "http.response.body" and not message.get("more_body"):
                request.end()

        try:
            await self._stanch_app(scope, receive, watched_send)
        except Exception:
            request.failed = True
            raise
        finally:
            request.end()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_stanch_"):
            raise AttributeError(name)
        return getattr(self._stanch_app, name)


def _is_failure(status: object) -> bool:
    return isinstance(status, int) and status >= 500

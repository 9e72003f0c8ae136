"""WSGI and ASGI middleware that counts and times the host's requests and labels their memory.

A request begins when the application is called and ends with its response: when a WSGI body is
exhausted or closed, when an ASGI application sends the last part of its body. It has failed when
the application raised or answered 5xx. Everything of the host passes through as it is, streaming,
file_wrapper, lifespan and websockets included; an error of the meter is never the host's. A
request that passes several of these is counted once. The label holds while the application runs and
while its body is iterated.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from stanch.agent.requestlabels import environ_label, request_label
from stanch.sampler import labels

if TYPE_CHECKING:
    from stanch.agent.metrics import RequestMeter
    from stanch.agent.requestlabels import RequestLabel

_core = labels.core
"""None where there are no samples; a request then has no label."""

COUNTED = "stanch.counted"
"""The key in a WSGI environ or ASGI scope that says that the request is being counted."""

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


def _meter_of_process() -> "RequestMeter":
    from stanch.agent.control import meter

    return meter()


class _Request:
    """One request from its begin to its end; ends once, whatever happens.

    Every request of the host pays for what is here and below: no `contextlib.suppress`, and labels
    are entered and left without a context manager.
    """

    __slots__ = ("_began", "_meter", "failed", "label")

    def __init__(self, meter: "RequestMeter", mark: "RequestLabel | None") -> None:
        self.label = mark
        self._meter: RequestMeter | None = meter
        self.failed = False
        try:
            meter.begin()
        except Exception:
            self._meter = None
        self._began = time.perf_counter()

    def end(self) -> None:
        meter = self._meter
        if meter is not None:
            self._meter = None
            try:
                meter.end(time.perf_counter() - self._began, self.failed)
            except Exception:
                return  # An error of the meter is never the host's.


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
        request = _Request(self._stanch_meter, environ_label(environ))
        mark = request.label
        before = None if mark is None else _core.enter(mark)
        try:
            body = self._stanch_app(environ, _watched_start(args[1], request))
        except BaseException as error:
            request.failed = isinstance(error, Exception)
            request.end()
            raise
        finally:
            if mark is not None:
                _core.leave(mark, before)
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
    if hasattr(body, "__len__"):
        return _SizedBody(body, request)
    return _Parts(body, request) if hasattr(body, "__next__") else _Body(body, request)


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
    """The body of a response on its way out; each iteration of it begins anew, as the body's."""

    __slots__ = ("_body", "_request")

    def __init__(self, body: Any, request: _Request) -> None:
        self._body = body
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        request = self._request
        mark = request.label
        before = None if mark is None else _core.enter(mark)
        try:
            return _Parts(iter(self._body), request)
        except Exception:
            request.failed = True
            request.end()
            raise
        finally:
            if mark is not None:
                _core.leave(mark, before)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        request = self._request
        mark = request.label
        before = None if mark is None else _core.enter(mark)
        try:
            if close is not None:
                close()
        except Exception:
            request.failed = True
            raise
        finally:
            if mark is not None:
                _core.leave(mark, before)
            request.end()


class _SizedBody(_Body):
    """A body whose number of parts is known, from which servers derive Content-Length."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._body)


class _Parts(_Body):
    """A body that is its own iterator, or the iterator of one."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        request = self._request
        mark = request.label
        before = None if mark is None else _core.enter(mark)
        try:
            part: bytes = next(self._body)
        except StopIteration:
            request.end()
            raise
        except BaseException as error:
            request.failed = isinstance(error, Exception)
            request.end()
            raise
        finally:
            if mark is not None:
                _core.leave(mark, before)
        return part

    def __del__(self) -> None:
        self._request.end()  # For a server that neither exhausts nor closes it.


class StanchASGI:
    """Wraps an ASGI 3 application; its other attributes stay those of the application."""

    def __init__(
        self, app: Callable[..., Awaitable[None]], meter: "RequestMeter | None" = None
    ) -> None:
        self._stanch_app = app
        self._stanch_meter = meter or _meter_of_process()

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Serve a connection as the application does; only `http` ones are counted."""
        if scope.get("type") == "websocket":
            mark = request_label("WEBSOCKET", scope.get("path"))
            before = None if mark is None else _core.enter(mark)
            try:
                await self._stanch_app(scope, receive, send)
            finally:
                if mark is not None:
                    _core.leave(mark, before)
            return
        if scope.get("type") != "http" or COUNTED in scope:
            await self._stanch_app(scope, receive, send)
            return
        scope[COUNTED] = True
        request = _Request(
            self._stanch_meter, request_label(scope.get("method"), scope.get("path"))
        )

        async def watched_send(message: _Message) -> None:
            kind = message.get("type")
            if kind == "http.response.start" and _is_failure(message.get("status")):
                request.failed = True
            await send(message)
            if kind == "http.response.body" and not message.get("more_body"):
                request.end()

        mark = request.label
        before = None if mark is None else _core.enter(mark)
        try:
            await self._stanch_app(scope, receive, watched_send)
        except Exception:
            request.failed = True
            raise
        finally:
            if mark is not None:
                _core.leave(mark, before)
            request.end()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_stanch_"):
            raise AttributeError(name)
        return getattr(self._stanch_app, name)


def _is_failure(status: object) -> bool:
    return isinstance(status, int) and status >= 500

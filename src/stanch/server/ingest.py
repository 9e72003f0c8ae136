"""The routes by which profiles come in: Stanch's own push and Pyroscope's two.

Every answer of 2xx says that the profile is on the disk. What cannot be kept now is a 503 with
Retry-After, what can never be is a 400, each with one sentence. Who may push, and how often, is
decided in front of these routes.
"""

import json
from collections.abc import Awaitable, Callable, Mapping

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from stanch.collect.pyroscope import IngestQuery, read_ingest, read_push
from stanch.collect.received import Push, Received, Receiver
from stanch.profile import Limits, ProfileError
from stanch.profile.inflate import inflate
from stanch.server.telemetry import Counters
from stanch.server.tenants import TenantError
from stanch.store.errors import StoreError, StoreFullError

MAX_BODY_BYTES = 32 * 1024 * 1024
RETRY_AFTER_S = 30
_MOST_AT_ONCE = 16
"""Pushes that are decoded or wait for the disk; the threads of pages are others."""
_UNPACKED = Limits(compressed_bytes=MAX_BODY_BYTES, decompressed_bytes=2 * MAX_BODY_BYTES)

Handler = Callable[[Request], Awaitable[Response]]


class BodyError(Exception):
    """A body that is not taken, with the status to say so."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


Admit = Callable[[Request, str], None]
"""Lets a request push for a service. Raises TenantError."""


def ingest_routes(
    receiver: Receiver,
    counters: Counters | None = None,
    admit: Admit = lambda request, service: None,
) -> list[Route]:
    """The routes, to be put into an application behind what checks tokens and rates.

    counters: told what became of each push.
    """
    counted = counters or Counters()
    limiter = CapacityLimiter(_MOST_AT_ONCE)

    def keep(request: Request, one: Push) -> Received:
        received = receiver.receive(one, lambda service: admit(request, service))
        counted.note("taken" if received.taken else "again", len(one.data))
        return received

    async def push(request: Request) -> Response:
        """A heap profile as agents and `stanch push` send it; see docs/settings.md."""
        body = await read_body(request)
        one = push_of(request.headers, body)
        return _taken(await run_sync(keep, request, one, limiter=limiter))

    async def ingest(request: Request) -> Response:
        """Pyroscope's SDKs."""
        body = await read_body(request)
        query = IngestQuery.of(request.query_params)
        content_type = request.headers.get("content-type", "")

        def receive() -> Received:
            return keep(request, read_ingest(query, content_type, body))

        await run_sync(receive, limiter=limiter)
        return Response(status_code=200)

    async def push_v1(request: Request) -> Response:
        """Grafana Alloy and Pyroscope's newer SDKs, by Connect's unary protocol."""
        body = await read_body(request)
        content_type = request.headers.get("content-type", "")

        def receive() -> None:
            plain = body
            if request.headers.get("content-encoding", "").lower() == "gzip":
                plain = inflate(body, _UNPACKED)
            for one in read_push(content_type, plain):
                keep(request, one)

        await run_sync(receive, limiter=limiter)
        if content_type.partition(";")[0].strip().lower() == "application/json":
            return JSONResponse({})
        return Response(b"", media_type="application/proto")

    return [
        Route("/api/v1/push", _answering(push, _plain, counted), methods=["POST"], name="push"),
        Route(
            "/ingest",
            _answering(ingest, _plain, counted),
            methods=["POST"],
            name="pyroscope_ingest",
        ),
        Route(
            "/push.v1.PusherService/Push",
            _answering(push_v1, _connect, counted),
            methods=["POST"],
            name="pyroscope_push",
        ),
    ]


def push_of(headers: Mapping[str, str], body: bytes) -> Push:
    """The push that a request's headers describe. Raises ProfileError for wrong numbers."""
    memory = dict(
        part.partition("=")[::2] for part in headers.get("x-stanch-memory", "").split() if part
    )
    pid = headers.get("x-stanch-pid", "")
    return Push(
        data=body,
        service=_utf8(headers.get("x-stanch-service", "")),
        instance=_utf8(headers.get("x-stanch-instance", "")),
        release=_utf8(headers.get("x-stanch-release", "")),
        pid=int(pid) if pid.isascii() and pid.isdigit() and len(pid) < 10 else None,
        rss_bytes=_number(memory.get("rss", "")),
        limit_bytes=_number(memory.get("limit", "")),
        working_set_bytes=_number(memory.get("working_set", "")),
        in_flight=_number(memory.get("in_flight", "")),
    )


async def read_body(request: Request, most_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The whole body. Raises BodyError when it is too long or its sender has gone."""
    too_large = BodyError(413, f"the body is larger than {most_bytes:,} bytes; send less")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most_bytes:
        raise too_large
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > most_bytes:
                raise too_large
            parts.append(part)
    except ClientDisconnect:
        raise BodyError(400, "the sender has gone before the end of its body") from None
    return b"".join(parts)


def _taken(received: Received) -> Response:
    return JSONResponse(
        {
            "service": received.service,
            "instance": received.instance,
            "kind": received.kind,
            "taken": received.taken,
        }
    )


Refusal = Callable[[int, str], Response]


def _plain(status: int, sentence: str) -> Response:
    return PlainTextResponse(f"{sentence}\n", status)


_CODES = {
    400: "invalid_argument",
    413: "resource_exhausted",
    429: "resource_exhausted",
    503: "unavailable",
}


def _connect(status: int, sentence: str) -> Response:
    body = json.dumps({"code": _CODES.get(status, "internal"), "message": sentence})
    return Response(body, status, media_type="application/json")


def _answering(handler: Handler, refusal: Refusal, counters: Counters) -> Handler:
    """The handler, with each error as an answer."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except BodyError as error:
            counters.note("refused")
            return refusal(error.status, str(error))
        except ProfileError as error:
            counters.note("refused")
            return refusal(400, str(error))
        except TenantError as error:
            counters.note("refused")
            refused = refusal(429, str(error))
            refused.headers["Retry-After"] = str(error.wait_s)
            return refused
        except (StoreFullError, StoreError) as error:
            counters.note("full")
            refused = refusal(503, str(error))
            refused.headers["Retry-After"] = str(RETRY_AFTER_S)
            return refused

    return answer


def _utf8(text: str) -> str:
    """A header's text: UTF-8 that came through Latin-1."""
    return text.encode("latin-1", "replace").decode("utf-8", "replace")


def _number(text: str) -> float | None:
    return float(text[:18]) if text.isascii() and text.isdigit() else None

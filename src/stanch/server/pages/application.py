"""The application: pages, ingest, health and metrics behind the gate."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from stanch.agent.exposition import CONTENT_TYPE
from stanch.collect.received import Receiver
from stanch.deaths.storebook import death_of
from stanch.deaths.telling import cause_text
from stanch.detect import finding_facts, finding_title, size_text, time_text
from stanch.server.audit import AuditLog
from stanch.server.configuration import ServerConfiguration
from stanch.server.division import Division
from stanch.server.ingest import BodyError, ingest_routes, read_body
from stanch.server.ledger import finding_of
from stanch.server.limits import Buckets
from stanch.server.openapi import PATH as OPENAPI_PATH
from stanch.server.openapi import document
from stanch.server.pages.charts import memory_chart, rate_chart, spark
from stanch.server.pages.composition import composition_of
from stanch.server.pages.deaths import DeathPage, death_routes
from stanch.server.pages.errors import NotFoundError
from stanch.server.pages.explorer import Explorer, moment
from stanch.server.pages.finding import FindingPage
from stanch.server.pages.gate import COOKIE, Gate, sender_of
from stanch.server.pages.marks import marks_of
from stanch.server.pages.source import Sources
from stanch.server.selfwatch import SERVICE
from stanch.server.telemetry import Counters, exposition
from stanch.server.tenants import Tenants
from stanch.server.tokens import Tokens
from stanch.store.errors import StoreError
from stanch.store.history import History, TimeRange
from stanch.store.sqlstore import SqlStore

RANGES = {"15m": 900, "1h": 3600, "6h": 6 * 3600, "24h": 86400, "7d": 7 * 86400}
_MOST_FORM_BYTES = 4096
_COOKIE_S = 7 * 86400


def _short_time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


_RATES = (
    ("requests_per_s", "Requests a second", "requests a second to", lambda rate: f"{rate:.3g}"),
    ("latency_s", "Mean time of a request", "mean time of a request to", _short_time),
)


Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


def make_application(
    store: SqlStore,
    receiver: Receiver,
    configuration: ServerConfiguration,
    tokens: Tokens | None,
    lifespan: Lifespan | None = None,
    wall: Callable[[], float] = time.time,
    division: Division | None = None,
) -> Starlette:
    """The ASGI application. tokens: None when none is asked for. division: where several servers
    may share the store."""
    audit, counters = AuditLog(configuration.data, wall), Counters()
    tenants = Tenants(configuration.service_rate, configuration.sender_services, audit, counters)
    pages = _Pages(store, configuration, tokens, audit, counters, wall, division)
    sources = Sources(configuration.source)
    explorer = Explorer(store.history, sources, wall)
    routes: list[BaseRoute] = [
        Route("/", pages.route(pages.overview)),
        Route("/services/{service:path}", pages.route(pages.service)),
        Route("/findings/{finding}", pages.route(FindingPage(store.history, sources).page)),
        Route("/profiles/{service:path}", pages.route(explorer.page)),
        Route("/deaths/{death}", pages.route(DeathPage(store.history).page)),
        Route("/targets", pages.route(pages.targets)),
        Route("/settings", pages.route(pages.settings)),
        Route("/sign-in", pages.route(pages.sign_in), methods=["GET"]),
        Route("/sign-in", pages.signed_in, methods=["POST"]),
        Route("/download/{service:path}", explorer.download),
        Route("/healthz", pages.healthz),
        Route("/readyz", pages.readyz),
        Route("/metrics", pages.metrics),
        Route(OPENAPI_PATH, pages.openapi),
        Mount("/flame", StaticFiles(packages=[("stanch.flame", "static")])),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
        *death_routes(store.history, wall),
        *ingest_routes(
            receiver,
            counters,
            lambda request, service: tenants.admit(sender_of(request), service),
        ),
    ]
    gate = Middleware(
        Gate,
        tokens,
        Buckets(configuration.sender_rate),
        Buckets(configuration.token_rate),
        audit,
        counters,
    )
    return Starlette(routes=routes, middleware=[gate], lifespan=lifespan)


class _Pages:
    """Each method but `route` gives a template's name and its values; it runs in a thread."""

    def __init__(
        self,
        store: SqlStore,
        configuration: ServerConfiguration,
        tokens: Tokens | None,
        audit: AuditLog,
        counters: Counters,
        wall: Callable[[], float],
        division: Division | None,
    ) -> None:
        self._store = store
        self._division = division or Division(store)
        self._history: History = store.history
        self._configuration = configuration
        self._tokens = tokens
        self._audit = audit
        self._counters = counters
        self._started_unix = wall()
        self._wall = wall
        self._templates = Environment(
            loader=PackageLoader("stanch.server.pages"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters |= {
            "size": size_text,
            "duration": time_text,
            "moment": moment,
            "of": lambda number, name: f"{number:,} {name}{'' if number == 1 else 's'}",
            "ago": lambda unix_s: f"{time_text(max(0.0, wall() - unix_s))} ago",
        }
        for name in self._templates.list_templates():
            self._templates.get_template(name)  # Compiled now, not while somebody waits.

    def route(
        self, page: Callable[[Request], tuple[str, dict[str, Any]]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """The page as a handler."""

        def render(request: Request) -> Response:
            status = 200
            try:
                name, values = page(request)
            except NotFoundError as error:
                status, name, values = 404, "error.html", {"title": "Not found", "text": str(error)}
            except StoreError as error:
                status, name = 503, "error.html"
                values = {"title": "The store does not answer", "text": str(error)}
            text = self._templates.get_template(name).render(**values, path=request.url.path)
            return HTMLResponse(text, status, {"cache-control": "no-store"})

        async def handle(request: Request) -> Response:
            return await run_in_threadpool(render, request)

        return handle

    def overview(self, request: Request) -> tuple[str, dict[str, Any]]:
        """All services."""
        rows = [
            (one, Markup(spark(one.time_unix_s, one.memory_share, f"memory of {one.service}")))
            for one in self._history.service_summaries(self._wall())
        ]
        firing = [
            (row, finding_title(finding_of(row)), finding_facts(finding_of(row)))
            for row in self._history.findings(status="firing", most=20)
        ]
        others = [one for one, _ in rows if one.service != SERVICE]
        values = {
            "rows": rows,
            "firing": firing,
            "own": SERVICE,
            "others": len(others),
            "deaths": sum(one.deaths for one in others),
            "listen": self._configuration.listen,
        }
        return "overview.html", values

    def service(self, request: Request) -> tuple[str, dict[str, Any]]:
        """One service: memory of all replicas on one axis, findings, lives."""
        service = request.path_params["service"]
        within, chosen = self._range(request)
        memory = self._history.memory(service, within)
        lives = self._history.lives(service, within)
        findings = self._history.findings(service)
        if not memory and not findings and service not in self._history.service_names():
            raise NotFoundError(f"Nothing was ever heard of a service called {service}.")
        deaths = self._history.deaths(within, service)
        marks = marks_of(lives, within, deaths)
        chart = memory_chart(memory, within, marks, f"memory of {service}")
        told = [(row, death_of(row)) for row in deaths]
        values = {
            "service": service,
            "chart": Markup(chart) if memory else None,
            "rates": [
                (title, Markup(rate_chart(memory, name, within, marks, f"{label} {service}", form)))
                for name, title, label, form in _RATES
                if any(np.isfinite(getattr(one, name)).any() for one in memory)
            ],
            "composition": composition_of(memory),
            "names": sorted({one.life.instance for one in memory}),
            "lives": lives,
            "deaths": [(row.death, cause_text(one), one) for row, one in told],
            "findings": [(row, finding_title(finding_of(row))) for row in findings],
            "ranges": RANGES,
            "chosen": chosen,
        }
        return "service.html", values

    def targets(self, request: Request) -> tuple[str, dict[str, Any]]:
        """The health of every target."""
        rows = self._history.targets()
        owners = self._division.owners({row.service for row in rows})
        return "targets.html", {"rows": rows, "owners": owners}

    def settings(self, request: Request) -> tuple[str, dict[str, Any]]:
        """The settings as they were read, and how the store is."""
        values = {
            "one": self._configuration,
            "storage": self._history.storage(),
            "own": SERVICE,
            "sharing": self._division.standing(),
            "owned": len(self._division.owned),
        }
        return "settings.html", values

    def sign_in(self, request: Request) -> tuple[str, dict[str, Any]]:
        """Where a token is given."""
        wrong = "wrong" in request.query_params
        return "sign_in.html", {"trouble": "This token is not known." if wrong else ""}

    async def signed_in(self, request: Request) -> Response:
        """Keep a token that is good in a cookie; the gate has seen where the form came from."""
        try:
            body = await read_body(request, _MOST_FORM_BYTES)
        except BodyError as error:
            return PlainTextResponse(f"{error}\n", error.status)
        text = "".join(parse_qs(body.decode("utf-8", "replace")).get("token", [])).strip()
        token = await run_in_threadpool(self._tokens.find, text) if self._tokens else None
        sender = request.client.host if request.client is not None else ""
        name = token.name if token is not None else ""
        self._audit.note("signed in" if token else "sign-in refused", sender=sender, token=name)
        if token is None:
            return RedirectResponse("/sign-in?wrong", 303)
        answer = RedirectResponse("/", 303)
        is_secure = request.url.scheme == "https"
        answer.set_cookie(
            COOKIE, text, max_age=_COOKIE_S, secure=is_secure, httponly=True, samesite="strict"
        )
        return answer

    async def healthz(self, request: Request) -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """The store answers."""
        try:
            await run_in_threadpool(self._history.storage)
        except StoreError as error:
            return JSONResponse({"status": "not ready", "why": str(error)}, 503)
        return JSONResponse({"status": "ready"})

    async def openapi(self, request: Request) -> Response:
        """The interface for programs."""
        return JSONResponse(document())

    async def metrics(self, request: Request) -> Response:
        """What Prometheus asks for."""
        try:
            text = await run_in_threadpool(
                exposition, self._history, self._counters, self._started_unix, self._division
            )
        except StoreError as error:
            return PlainTextResponse(f"{error}\n", 503)
        return Response(text, media_type=CONTENT_TYPE)

    def _range(self, request: Request) -> tuple[TimeRange, str]:
        chosen = request.query_params.get("range", "1h")
        chosen = chosen if chosen in RANGES else "1h"
        now_s = self._wall()
        return TimeRange(now_s - RANGES[chosen], now_s), chosen

"""Deaths as pages and for programs: from the one record of them, in the store."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from stanch.deaths.death import Death
from stanch.deaths.storebook import death_of
from stanch.deaths.telling import cause_text, death_title, forecast_text
from stanch.server.pages.charts import Mark, memory_chart
from stanch.server.pages.errors import NotFoundError
from stanch.store.errors import StoreError
from stanch.store.history import DeathRow, History, TimeRange

LIST_PATH = "/api/v1/deaths"
_MOST = 1000
_AROUND_S = 60.0
_LONGEST_S = 7 * 86400.0
_SOURCES = {"table": "the live table that it left", "scrape": "the last look before"}


class DeathPage:
    """The page of one death."""

    def __init__(self, history: History) -> None:
        self._history = history

    def page(self, request: Request) -> tuple[str, dict[str, Any]]:
        """All that is written down of it, and memory until then."""
        name = request.path_params["death"]
        row = self._history.death(name)
        if row is None:
            raise NotFoundError("There is no record of this death.")
        death = death_of(row)
        has_profile = self._history.has_death_profile(row)
        values = {
            "name": name,
            "death": death,
            "cause": cause_text(death),
            "title": death_title(death),
            "forecast": forecast_text(death),
            "source": _SOURCES.get(death.profile_from, "") if has_profile else "",
            "chart": self._chart(death),
        }
        return "death.html", values

    def _chart(self, death: Death) -> Markup | None:
        """Memory of the instance from the start of the dead process until a little after."""
        age_s = min(death.uptime_s or 3600.0, _LONGEST_S) + _AROUND_S
        within = TimeRange(death.died_unix - age_s, death.died_unix + _AROUND_S)
        memory = [
            one
            for one in self._history.memory(death.service, within)
            if one.life.instance == death.instance
        ]
        if not memory:
            return None
        mark = Mark(death.died_unix, "death", cause_text(death))
        return Markup(memory_chart(memory, within, [mark], f"memory of {death.instance}"))


def death_routes(history: History, wall: Callable[[], float]) -> list[Route]:
    """What programs ask for: the list, one death, and what it held."""

    def listed(request: Request) -> Response:
        service = request.query_params.get("service", "")
        most = request.query_params.get("most", "100")
        if not (most.isascii() and most.isdigit() and 1 <= int(most[:9]) <= _MOST):
            return PlainTextResponse(f"most: expected a number from 1 to {_MOST}\n", 400)
        within = TimeRange(0.0, wall() + 86400.0)
        rows = history.deaths(within, service, most=int(most))
        return JSONResponse({"deaths": [_as_json(row) for row in rows]})

    def one(request: Request) -> Response:
        row = history.death(request.path_params["death"])
        return JSONResponse(_as_json(row)) if row is not None else _no_death()

    def profile(request: Request) -> Response:
        data = history.death_profile(request.path_params["death"])
        if data is None:
            return PlainTextResponse("there is no profile of this death\n", 404)
        name = f"death-{request.path_params['death']}.pb.gz"
        disposition = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(data, media_type="application/octet-stream", headers=disposition)

    return [
        Route(LIST_PATH, _in_thread(listed)),
        Route(f"{LIST_PATH}/{{death}}", _in_thread(one)),
        Route(f"{LIST_PATH}/{{death}}/profile", _in_thread(profile)),
    ]


def _in_thread(answer: Callable[[Request], Response]) -> Callable[[Request], Any]:
    async def handle(request: Request) -> Response:
        try:
            return await run_in_threadpool(answer, request)
        except StoreError as error:
            return PlainTextResponse(f"{error}\n", 503, {"retry-after": "5"})

    return handle


def _as_json(row: DeathRow) -> Mapping[str, Any]:
    return {"death": row.death} | asdict(death_of(row))


def _no_death() -> Response:
    return PlainTextResponse("there is no record of this death\n", 404)

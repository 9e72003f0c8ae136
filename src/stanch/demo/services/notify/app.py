"""notify as an ASGI application: `uvicorn --factory notify.app:create_app`."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from .deliveries import Deliveries


def create_app() -> Starlette:
    """Return the application."""
    deliveries = Deliveries()

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "delivered": deliveries.delivered})

    async def send(request: Request) -> JSONResponse:
        body = await request.json()
        message_id = deliveries.dispatch(str(body["to"]), list(body["paragraphs"]))
        return JSONResponse({"message": message_id}, status_code=202)

    async def receipt(request: Request) -> JSONResponse:
        known = deliveries.acknowledge(request.path_params["message_id"])
        return JSONResponse({"known": known}, status_code=200 if known else 404)

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/messages", send, methods=["POST"]),
            Route("/receipts/{message_id}", receipt, methods=["POST"]),
        ]
    )

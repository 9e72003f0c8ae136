"""A real server on loopback for the tests of routes: uvicorn in a thread, stopped at the end."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from stanch.server.head import BoundedHead

PATIENCE_S = 60.0


@contextmanager
def serving(routes: list[BaseRoute]) -> Iterator[str]:
    """Serve the routes; gives the base URL."""
    with serving_application(Starlette(routes=routes)) as base:
        yield base


@contextmanager
def serving_application(application: Starlette) -> Iterator[str]:
    """Serve an application; gives the base URL."""
    config = uvicorn.Config(
        application, port=0, http=BoundedHead, log_level="error", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + PATIENCE_S
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < until
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)

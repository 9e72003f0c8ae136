"""Counts requests under gunicorn and uvicorn without a change of the host's code.

Both have one place where the application has been loaded and every connection will take it from:
gunicorn's Worker.load_wsgi leaves it in `wsgi` (its ASGI worker in `asgi`), uvicorn's Config.load
in `loaded_app`. There it is wrapped in the middleware. Whatever does not look as expected stays as
it is.
"""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from stanch.agent.imports import when_imported
from stanch.agent.middleware import StanchASGI, StanchWSGI

if TYPE_CHECKING:
    from stanch.agent.metrics import RequestMeter

# Only these call `wsgi` as WSGI: uvicorn's worker keeps an ASGI application there, tornado's its
# own kind.
_WSGI_WORKERS = frozenset(
    {"gunicorn.workers.sync", "gunicorn.workers.gthread", "gunicorn.workers.base_async"}
)


def install(meter: "RequestMeter") -> None:
    """Have the applications of these servers counted by `meter` from the next load on."""
    when_imported("gunicorn.workers.base", lambda module: _after_load_wsgi(module, meter))
    when_imported("gunicorn.workers.gasgi", lambda module: _after_load_asgi(module, meter))
    when_imported("uvicorn.config", lambda module: _after_config_load(module, meter))


def _after_load_wsgi(module: ModuleType, meter: "RequestMeter") -> None:
    def wrap(worker: Any) -> None:
        modules = {base.__module__ for base in type(worker).__mro__}
        if not modules.isdisjoint(_WSGI_WORKERS) and not isinstance(worker.wsgi, StanchWSGI):
            worker.wsgi = StanchWSGI(worker.wsgi, meter)

    _call_after(module.Worker, "load_wsgi", wrap)


def _after_load_asgi(module: ModuleType, meter: "RequestMeter") -> None:
    def wrap(worker: Any) -> None:
        if not isinstance(worker.asgi, StanchASGI):
            worker.asgi = StanchASGI(worker.asgi, meter)

    _call_after(module.ASGIWorker, "load_wsgi", wrap)


def _after_config_load(module: ModuleType, meter: "RequestMeter") -> None:
    def wrap(config: Any) -> None:
        if not isinstance(config.loaded_app, StanchASGI):
            config.loaded_app = StanchASGI(config.loaded_app, meter)

    _call_after(module.Config, "load", wrap)


def _call_after(owner: type, name: str, wrap: Callable[[Any], None]) -> None:
    """Replace a method by itself followed by `wrap(self)`, whose errors end here."""
    original = getattr(owner, name)
    if getattr(original, "_stanch", False):
        return

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, *args, **kwargs)
        try:
            wrap(self)
        except Exception:
            return answer  # a version with other attributes: its requests are not counted
        return answer

    method._stanch = True  # type: ignore[attr-defined] # marks it, to wrap it once
    setattr(owner, name, method)

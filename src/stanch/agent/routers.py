"""Learns the template of a request's route from the router of the host's framework.

Each framework has one place where a request has found its route: werkzeug's (so Flask's)
MapAdapter.match, Django's BaseHandler.resolve_request, the `handle` of Starlette's and FastAPI's
routes. The wrappers here call on and leave no frame of their own on a handler's stack. celery says
by signals when a task runs. Whatever does not look as expected stays as it is.
"""

import contextlib
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from stanch.agent import requestlabels
from stanch.agent.imports import when_imported
from stanch.sampler import label

_installed = False


def install() -> None:
    """Follow the routers that the host has imported or will import. Idempotent; stays."""
    global _installed
    if _installed:
        return
    _installed = True
    when_imported("werkzeug.routing.map", _follow_werkzeug)
    when_imported("django.core.handlers.base", _follow_django)
    when_imported("starlette.routing", _follow_starlette)
    when_imported("fastapi.routing", _follow_fastapi)
    when_imported("celery.signals", _follow_celery)


def _follow_werkzeug(module: ModuleType) -> None:
    def matched(adapter: Any, args: tuple[Any, ...], kwargs: dict[str, Any], found: Any) -> None:
        # Only a match of the request's own path; a host may ask for others.
        asked = args[0] if args else kwargs.get("path_info")
        mark = requestlabels.current()
        if mark is None or asked is not None or not isinstance(found, tuple):
            return
        rule = found[0]
        if hasattr(rule, "rule"):
            mark.routed(adapter.script_name.rstrip("/") + rule.rule)

    _after(module.MapAdapter, "match", matched)


def _follow_django(module: ModuleType) -> None:
    def resolved(handler: Any, args: tuple[Any, ...], kwargs: dict[str, Any], found: Any) -> None:
        mark = requestlabels.current()
        request = args[0] if args else kwargs.get("request")
        route = getattr(getattr(request, "resolver_match", None), "route", None)
        if mark is not None and isinstance(route, str):
            mark.routed(route)

    _after(module.BaseHandler, "resolve_request", resolved)


def _follow_starlette(module: ModuleType) -> None:
    def routed(route: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mark = requestlabels.current()
        if mark is not None:
            mark.routed(route.path)

    def mounted(mount: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mark = requestlabels.current()
        if mark is not None:
            mark.mounted(mount.path)

    _before(module.Route, "handle", routed)
    _before(module.WebSocketRoute, "handle", routed)
    _before(module.Mount, "handle", mounted)


def _follow_fastapi(module: ModuleType) -> None:
    def routed(route: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mark = requestlabels.current()
        if mark is None:
            return
        # A route of an included router is shared; its whole path is then in the scope.
        scope = args[0] if args else kwargs["scope"]
        included = scope.get("fastapi", {}).get("effective_route_context")
        is_this = getattr(included, "original_route", None) is route
        mark.routed(included.path_format if is_this else route.path)

    _before(module.APIRoute, "handle", routed)


def _follow_celery(module: Any) -> None:
    def begin(task: Any = None, **others: Any) -> None:
        with contextlib.suppress(Exception):
            mark = label(task.name)
            mark.__enter__()
            # The request is that of this one run, also of a task inside a task.
            task.request.stanch_label = mark

    def end(task: Any = None, **others: Any) -> None:
        with contextlib.suppress(Exception):
            mark = task.request.__dict__.pop("stanch_label", None)
            if mark is not None:
                mark.__exit__(None, None, None)

    module.task_prerun.connect(begin, weak=False, dispatch_uid="stanch.label.begin")
    module.task_postrun.connect(end, weak=False, dispatch_uid="stanch.label.end")


_Seen = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]
_Called = Callable[[Any, tuple[Any, ...], dict[str, Any]], None]


def _after(owner: type, name: str, look: _Seen) -> None:
    """Have `look` see what a method was given and returned; its errors end here."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, *args, **kwargs)
        _quietly(look, self, args, kwargs, answer)
        return answer

    setattr(owner, name, method)


def _before(owner: type, name: str, look: _Called) -> None:
    """Have `look` see what a method is given; a coroutine function's frame is then gone again."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        _quietly(look, self, args, kwargs)
        return original(self, *args, **kwargs)

    setattr(owner, name, method)


def _quietly(look: Callable[..., None], *seen: Any) -> None:
    """Errors end here; not by `contextlib.suppress`, which costs each request more."""
    try:
        look(*seen)
    except Exception:
        return

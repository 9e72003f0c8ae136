"""The profile explorer: what holds the memory of a service, drawn and as a table.

What is shown follows from the address alone, so every view has a link that can be sent: which
service, time, instance, release, label and kind, what it is compared with, and, for a function,
what it calls or who calls it.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from stanch.flame import (
    FlameOptions,
    FlameSource,
    flame_graph,
    flame_json,
    speedscope_json,
)
from stanch.profile import (
    Granularity,
    Profile,
    ProfileError,
    Sample,
    call_graph,
    call_tree,
    callees,
    callers,
    diff,
    encode,
    format_value,
    require_same_types,
    sample_index,
)
from stanch.server.pages.errors import NotFoundError
from stanch.server.pages.source import Sources
from stanch.store.errors import StoreError
from stanch.store.history import HEAP, History, Selection, TimeRange

KINDS = {HEAP: "Live heap", "goroutine": "Goroutines", "thread": "Threads", "task": "Tasks"}
VIEWS = {"": "all", "callees": "what it calls", "callers": "who calls it"}
_MOST_LINES = 100
_MARGIN_LINES = 4
_MOST_TEXT = 300
_NODE_FRACTION = 0.001
_DAY_S = 86400.0
_LABELS_S = 300.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What an address asks for, as text; "" where it says nothing."""

    service: str
    at: str = ""
    instance: str = ""
    release: str = ""
    label: str = ""
    kind: str = HEAP
    base: str = ""
    base_at: str = ""
    base_release: str = ""
    function: str = ""
    view: str = ""

    @classmethod
    def of(cls, service: str, query: Mapping[str, str]) -> "Asked":
        """What a query says; unknown kinds and views are the default's."""
        names = [name for name in cls.__dataclass_fields__ if name != "service"]
        given = {name: query[name][:_MOST_TEXT] for name in names if query.get(name)}
        if given.get("kind") not in KINDS:
            given.pop("kind", None)
        if given.get("view") not in VIEWS:
            given.pop("view", None)
        return cls(service, **given)

    @property
    def compares(self) -> bool:
        """Whether there is something to compare with."""
        return bool(self.base or self.base_at or self.base_release)

    def link(self, **changes: str) -> str:
        """The query of this view with some of it changed."""
        names = [name for name in self.__dataclass_fields__ if name != "service"]
        values = {name: changes.get(name, getattr(self, name)) for name in names}
        if values["kind"] == HEAP:
            del values["kind"]
        return "?" + urlencode({name: value for name, value in values.items() if value})


class Explorer:
    """The page of a profile and its download."""

    def __init__(self, history: History, sources: Sources, wall: Callable[[], float]) -> None:
        self._history = history
        self._sources = sources
        self._wall = wall

    def page(self, request: Request) -> tuple[str, dict[str, Any]]:
        """What is held, drawn and by function."""
        asked = Asked.of(request.path_params["service"], request.query_params)
        at_s = seconds_of(asked.at, self._wall())
        within, day = TimeRange(at_s - _LABELS_S, at_s + 1), TimeRange(at_s - _DAY_S, at_s + 1)
        # The engine answers several questions side by side.
        with ThreadPoolExecutor(2, "stanch-page") as asking:
            services = asking.submit(self._history.service_names)
            releases = asking.submit(self._history.releases, asked.service, day)
            labels = asking.submit(self._history.labels, asked.service, within, 50)
            new, base = self._profiles(asked, with_labels=False)
        lines = function_lines(new, base, asked.function, self._sources) if asked.function else []
        shown = {"callees": callees, "callers": callers}.get(asked.view)
        if shown is not None and asked.function:
            new = shown(new, asked.function)
            base = shown(base, asked.function) if base is not None else None
        source = FlameSource(asked.service, new, asked.base or asked.service, base)
        search = "" if asked.view else quoted(asked.function)
        options = FlameOptions(node_fraction=_NODE_FRACTION)
        return "profile.html", {
            "asked": asked,
            "title": KINDS[asked.kind],
            "at_s": at_s,
            "base_s": seconds_of(asked.base_at, at_s),
            "flame": Markup(flame_graph(flame_json(source, options), search)),
            "table": _table(new, base),
            "lines": lines,
            "kinds": KINDS,
            "views": VIEWS,
            "services": services.result(),
            "releases": releases.result(),
            "labels": labels.result(),
            "input_time": input_time,
        }

    async def download(self, request: Request) -> Response:
        """The same as a pprof profile, or for speedscope; of a comparison, the difference."""
        asked = Asked.of(request.path_params["service"], request.query_params)
        is_speedscope = request.query_params.get("format") == "speedscope"

        def data() -> bytes:
            new, base = self._profiles(asked, with_labels=not is_speedscope)
            shown = diff(base, new) if base is not None else new
            return (
                speedscope_json(shown, asked.service).encode() if is_speedscope else encode(shown)
            )

        try:
            body = await run_in_threadpool(data)
        except NotFoundError as error:
            return PlainTextResponse(f"{error}\n", 404)
        except StoreError as error:
            return PlainTextResponse(f"{error}\n", 503)
        ending, media_type = "pb.gz", "application/octet-stream"
        if is_speedscope:
            ending, media_type = "speedscope.json", "application/json"
        headers = {"content-disposition": f'attachment; filename="{asked.kind}.{ending}"'}
        return Response(body, media_type=media_type, headers=headers)

    def _profiles(self, asked: Asked, with_labels: bool = True) -> tuple[Profile, Profile | None]:
        """The profile asked for and its base. Raises NotFoundError."""
        at_s = seconds_of(asked.at, self._wall())
        key, _, value = asked.label.partition("=")
        labels = {key: value} if key and value else {}
        instances = (asked.instance,) if asked.instance else ()
        new = Selection(
            asked.service,
            at_s,
            instances,
            asked.release,
            labels,
            asked.kind,
            with_labels=with_labels,
        )
        if not asked.compares:
            return self._found(new), None
        base_s = seconds_of(asked.base_at, at_s)
        same = not asked.base or asked.base == asked.service
        base = Selection(
            asked.base or asked.service,
            base_s,
            instances if same else (),
            asked.base_release,
            labels,
            asked.kind,
            with_labels=with_labels,
        )
        with ThreadPoolExecutor(1, "stanch-page") as asking:
            found_base = asking.submit(self._found, base)
            return self._found(new), found_base.result()

    def _found(self, selection: Selection) -> Profile:
        profile = self._history.profile(selection)
        if profile is None:
            raise NotFoundError(
                f"There is no {KINDS[selection.kind].lower()} of {selection.service} from the five"
                f" minutes before {moment(selection.at_unix_s)} that fits."
            )
        return profile


def _table(new: Profile, base: Profile | None) -> list[dict[str, Any]]:
    """The largest functions: texts of flat, cum and share; with a base, how they changed."""
    try:
        index = sample_index(new, "")
        shown = _grown(base, new) if base is not None else new
    except ProfileError as error:
        raise NotFoundError(f"These two cannot be compared: {error}.") from error
    unit = new.sample_types[index].unit
    total = sum(abs(sample.values[index]) for sample in new.samples)
    graph = call_graph(call_tree(shown, (index,)))
    return [
        {
            "name": node.frame.name,
            "flat": format_value(node.flat, unit),
            "cum": format_value(node.cum, unit),
            "share": f"{100 * node.flat / total:.1f} %" if total else "-",
        }
        for node in graph.nodes[:_MOST_LINES]
    ]


def function_lines(
    new: Profile, base: Profile | None, function: str, sources: Sources
) -> list[dict[str, Any]]:
    """The lines of a function by file: number, texts of flat and cum, and of the source, where it
    is to be had; with a base, how they changed."""
    index = sample_index(new, "")
    unit = new.sample_types[index].unit
    shown = _grown(base, new) if base is not None else new
    through = (sample for sample in shown.samples if _is_through(sample, function))
    shown = replace(shown, samples=tuple(through))
    nodes = [
        node
        for node in call_graph(call_tree(shown, (index,), Granularity.LINES)).nodes
        if node.frame.name == function and node.frame.line
    ]
    found = []
    for file in sorted({node.frame.file for node in nodes}):
        values = {node.frame.line: node for node in nodes if node.frame.file == file}
        first, last = min(values) - _MARGIN_LINES, max(values) + _MARGIN_LINES
        text = {line.number: line.text for line in sources.lines(file, first, last)}
        numbers = sorted(values.keys() | text.keys())[:_MOST_LINES]
        rows = [
            {
                "number": number,
                "flat": format_value(values[number].flat, unit) if number in values else "",
                "cum": format_value(values[number].cum, unit) if number in values else "",
                "text": text.get(number, ""),
            }
            for number in numbers
        ]
        found.append({"file": file, "rows": rows, "has_text": bool(text)})
    return found


def _is_through(sample: Sample, function: str) -> bool:
    return any(line.function.name == function for place in sample.locations for line in place.lines)


def _grown(base: Profile, new: Profile) -> Profile:
    """What grew, for a call tree, which adds up what is not merged."""
    require_same_types(base, new)
    less = (replace(each, values=tuple(-value for value in each.values)) for each in base.samples)
    return replace(new, samples=(*new.samples, *less))


def quoted(text: str) -> str:
    """A regular expression of the page's script that finds this text alone."""
    special = r"\.*+?^${}()|[]"
    return "".join(f"\\{letter}" if letter in special else letter for letter in text)


def seconds_of(text: str, default_s: float) -> float:
    """Unix seconds of digits or of a time in UTC such as 2026-03-01T12:30; else the default."""
    if text.isascii() and text.isdigit() and len(text) < 12:
        return float(text)
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return default_s


def input_time(unix_s: float) -> str:
    """A time as browsers' fields for times have it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix_s))


def moment(unix_s: float) -> str:
    """A time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_s))

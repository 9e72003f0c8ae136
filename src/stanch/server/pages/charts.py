"""Charts as SVG: memory against its limit, load and latency, on one time axis. Pure.

Presentation is by class only, so that the strict content security policy holds and themes apply.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

import numpy as np

from stanch.detect import size_text
from stanch.store.history import MemorySeries, TimeRange
from stanch.store.series import Births, Floats

SPARK_WIDTH, SPARK_HEIGHT = 160, 36
WIDTH, HEIGHT, LOW = 960, 260, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 14, 26
_COLOURS = 8
_Scale: TypeAlias = Callable[[Floats], Floats]
_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment on the time axis. kind: "death", "restart" or "deploy"."""

    unix_s: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """Where memory is heading: from a point to its limit, between two times."""

    unix_s: float
    memory_bytes: float
    limit_bytes: float
    soonest_unix_s: float
    latest_unix_s: float


def spark(unix_s: Floats, share: Floats, label: str) -> str:
    """A small chart of memory as a share of its limit; the line on top is the limit."""
    if share.size == 0 or not np.isfinite(share).any():
        return '<span class="none">no limit known</span>'
    span = float(unix_s[-1] - unix_s[0]) or 1.0
    x = (unix_s - unix_s[0]) / span * SPARK_WIDTH
    y = 4 + (1 - np.clip(share, 0, 1)) * (SPARK_HEIGHT - 6)
    last = float(share[np.isfinite(share)][-1])
    level = "bad" if last >= 0.9 else "warn" if last >= 0.75 else "good"
    return (
        f'<svg class="spark {level}" viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}" role="img"'
        f' aria-label="{escape(label)}">'
        f'<line class="limit" x1="0" y1="4" x2="{SPARK_WIDTH}" y2="4"/>'
        f'<path class="line" d="{_path(x, y)}"/></svg>'
    )


def memory_chart(
    lives: Sequence[MemorySeries],
    within: TimeRange,
    marks: Iterable[Mark],
    label: str,
    forecast: Forecast | None = None,
) -> str:
    """Memory of all lives with limits, marks and a forecast over a range."""
    tops = [_largest(one.memory_bytes) for one in lives] + [
        _largest(one.limit_bytes) for one in lives
    ]
    top = max(tops, default=0.0) * 1.06 or 1.0
    across = _across(within)

    def up(size_bytes: Floats) -> Floats:
        return _TOP + (1 - size_bytes / top) * (HEIGHT - _TOP - _BOTTOM)

    parts = [_grid(top, up, size_text), _time_axis(within, across, HEIGHT)]
    for limit in sorted({_largest(one.limit_bytes) for one in lives} - {0.0}):
        y = float(up(np.array(limit)))
        parts.append(
            f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
    if forecast is not None:
        xs = across(np.array([forecast.unix_s, forecast.soonest_unix_s, forecast.latest_unix_s]))
        ys = up(np.array([forecast.memory_bytes, forecast.limit_bytes, forecast.limit_bytes]))
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        parts.append(
            f'<polygon class="forecast" points="{points}"><title>forecast</title></polygon>'
        )
    parts += _lines(lives, "memory_bytes", across, up)
    parts += _marks(marks, across, HEIGHT)
    return _svg(parts, HEIGHT, label)


def rate_chart(
    lives: Sequence[MemorySeries],
    name: str,
    within: TimeRange,
    marks: Iterable[Mark],
    label: str,
    form: Callable[[float], str],
) -> str:
    """One of the numbers of a series, each life a line, below the chart of memory.

    name: "requests_per_s" or "latency_s". form: writes a value of the axis.
    """
    top = max((_largest(getattr(one, name)) for one in lives), default=0.0) * 1.06 or 1.0
    across = _across(within)

    def up(value: Floats) -> Floats:
        return _TOP + (1 - value / top) * (LOW - _TOP - _BOTTOM)

    parts = [_grid(top, up, form), _time_axis(within, across, LOW)]
    parts += _lines(lives, name, across, up)
    parts += _marks(marks, across, LOW)
    return _svg(parts, LOW, label)


def _across(within: TimeRange) -> _Scale:
    span = max(within.until_unix_s - within.since_unix_s, 1.0)

    def across(unix_s: Floats) -> Floats:
        return _LEFT + (unix_s - within.since_unix_s) / span * (WIDTH - _LEFT - _RIGHT)

    return across


def _lines(lives: Sequence[MemorySeries], name: str, across: _Scale, up: _Scale) -> Iterator[str]:
    colours = {one: at for at, one in enumerate(sorted({one.life.instance for one in lives}))}
    for one in lives:
        colour = colours[one.life.instance] % _COLOURS
        path = _path(across(one.unix_s), up(getattr(one, name)))
        title = escape(one.life.instance)
        yield f'<path class="line k{colour}" d="{path}"><title>{title}</title></path>'


def _marks(marks: Iterable[Mark], across: _Scale, height: int) -> Iterator[str]:
    for mark in marks:
        x = float(across(np.array(mark.unix_s)))
        yield (
            f'<g class="mark {escape(mark.kind)}"><line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}"'
            f' y2="{height - _BOTTOM}"/><circle cx="{x:.1f}" cy="{_TOP}" r="4"/>'
            f"<title>{escape(mark.text)}</title></g>"
        )


def _svg(parts: Iterable[str], height: int, label: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def births_chart(births: Births, label: str) -> str:
    """Bytes by time of birth: what was alive once settled, and what of it is alive now."""
    live = np.nan_to_num(births.live_bytes.sum(axis=0))
    settled = np.nan_to_num(births.settled_bytes.sum(axis=0))
    top = max(_largest(live), _largest(settled)) * 1.06 or 1.0
    first, last = float(births.edges_s[0]), float(births.edges_s[-1])
    within = TimeRange(first, max(last, first + 1))

    across = _across(within)

    def up(size_bytes: Floats) -> Floats:
        return _TOP + (1 - size_bytes / top) * (LOW - _TOP - _BOTTOM)

    floor = LOW - _BOTTOM
    parts = [_grid(top, up, size_text)]
    edges = across(births.edges_s)
    for band, (now, then) in enumerate(zip(up(live), up(settled), strict=True)):
        left, width = float(edges[band]), max(float(edges[band + 1] - edges[band]) - 1, 0.5)
        for name, y in (("settled", float(then)), ("alive", float(now))):
            parts.append(
                f'<rect class="{name}" x="{left:.1f}" y="{y:.1f}" width="{width:.1f}"'
                f' height="{max(floor - y, 0):.1f}"/>'
            )
    for text, x, anchor in (("the start", _LEFT, ""), ("now", WIDTH - _RIGHT, " end")):
        parts.append(f'<text class="tick{anchor}" x="{x}" y="{LOW - 8}">{text}</text>')
    return _svg(parts, LOW, label)


def _grid(top: float, up: _Scale, form: Callable[[float], str]) -> str:
    lines = []
    for part in range(4):
        size = top / 1.06 * part / 3
        y = float(up(np.array(size)))
        lines.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick end" x="{_LEFT - 8}" y="{y + 4:.1f}">{form(size)}</text>'
        )
    return "".join(lines)


def _time_axis(within: TimeRange, across: _Scale, height: int) -> str:
    span = within.until_unix_s - within.since_unix_s
    step = next((step for step in _TICKS if span / step <= 8), _TICKS[-1])
    form = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86400 else "%b %d"
    ticks = []
    first = int(within.since_unix_s // step + 1) * step
    for unix_s in range(first, int(within.until_unix_s), step):
        x = float(across(np.array(float(unix_s))))
        text = time.strftime(form, time.gmtime(unix_s))
        ticks.append(f'<text class="tick mid" x="{x:.1f}" y="{height - 8}">{text}</text>')
    return "".join(ticks)


def _path(x: Floats, y: Floats) -> str:
    """A path through the points that are known; a gap where they are not."""
    parts, pen = [], "M"
    for one, other in zip(x.tolist(), y.tolist(), strict=True):
        if one != one or other != other:
            pen = "M"
            continue
        parts.append(f"{pen}{one:.1f},{other:.1f}")
        pen = "L"
    return "".join(parts)


def _largest(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 0.0

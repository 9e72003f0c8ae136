"""A chart as PNG, for messages: the memory of the instance that dies first, limit and forecast.

Drawn point by point into an array and packed with zlib, so that no drawing package is needed; words
and numbers are in the message beside it.
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 480, 160
_MARGIN = 10
_BACKGROUND = (255, 255, 255)
_GRID = (230, 230, 230)
_MEMORY = (31, 78, 160)
_LIMIT = (200, 30, 30)
_FORECAST = (230, 140, 30)
_AHEAD_SHARE = 0.35
"""At most so much of the width is left for the future."""

Floats = NDArray[np.float64]
_Pixels = NDArray[np.uint8]


def memory_chart(
    time_s: Floats, memory_bytes: Floats, limit_bytes: float | None, death_s: float | None
) -> bytes | None:
    """Return a PNG of WIDTH by HEIGHT points; None with fewer than two known points.

    time_s rises; memory_bytes may hold NaN. death_s: when the limit is likely to be met, in the
    same time as time_s.
    """
    known = np.isfinite(memory_bytes) & np.isfinite(time_s)
    time_s, memory_bytes = time_s[known], memory_bytes[known]
    if time_s.size < 2 or not time_s[-1] > time_s[0]:
        return None
    begin, now = float(time_s[0]), float(time_s[-1])
    end = now
    if death_s is not None and death_s > now:
        end = min(death_s, now + (now - begin) * _AHEAD_SHARE / (1 - _AHEAD_SHARE))
    top = 1.1 * max(float(memory_bytes.max()), limit_bytes or 0.0, 1.0)
    pixels = np.full((HEIGHT, WIDTH, 3), _BACKGROUND, dtype=np.uint8)

    def across(second: float) -> float:
        return _MARGIN + (WIDTH - 1 - 2 * _MARGIN) * (second - begin) / (end - begin)

    def down(size: float) -> float:
        return HEIGHT - 1 - _MARGIN - (HEIGHT - 1 - 2 * _MARGIN) * size / top

    for quarter in range(5):
        _line(
            pixels,
            across(begin),
            down(top * quarter / 4),
            across(end),
            down(top * quarter / 4),
            _GRID,
        )
    if limit_bytes:
        _line(pixels, across(begin), down(limit_bytes), across(end), down(limit_bytes), _LIMIT)
    if end > now and death_s is not None and limit_bytes:
        rise = (limit_bytes - memory_bytes[-1]) * (end - now) / (death_s - now)
        there = down(float(memory_bytes[-1] + rise))
        _line(pixels, across(now), down(float(memory_bytes[-1])), across(end), there, _FORECAST, 4)
    for start in range(time_s.size - 1):
        _line(
            pixels,
            across(float(time_s[start])),
            down(float(memory_bytes[start])),
            across(float(time_s[start + 1])),
            down(float(memory_bytes[start + 1])),
            _MEMORY,
        )
    return png(pixels)


def png(pixels: _Pixels) -> bytes:
    """Return an RGB image, (height, width, 3), as PNG."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)  # each row begins with filter 0
    rows[:, 1:] = pixels.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")]
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def _line(
    pixels: _Pixels,
    from_x: float,
    from_y: float,
    to_x: float,
    to_y: float,
    colour: tuple[int, int, int],
    dash: int = 0,
) -> None:
    """Draw a line two points thick; dash: points drawn and left out in turn, 0 for none."""
    points = int(max(abs(to_x - from_x), abs(to_y - from_y))) + 2
    steps = np.arange(points)
    if dash:
        steps = steps[steps // dash % 2 == 0]
    x = np.rint(from_x + (to_x - from_x) * steps / (points - 1)).astype(int)
    y = np.rint(from_y + (to_y - from_y) * steps / (points - 1)).astype(int)
    inside = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT - 1)
    pixels[y[inside], x[inside]] = colour
    pixels[y[inside] + 1, x[inside]] = colour

"""The flame graph: data, script and style, as a page of its own or as part of another page."""

from stanch.flame.page import flame_graph, flame_page
from stanch.flame.speedscope import speedscope_json
from stanch.flame.tree import FlameOptions, FlameSource, flame_json

__all__ = [
    "FlameOptions",
    "FlameSource",
    "flame_graph",
    "flame_json",
    "flame_page",
    "speedscope_json",
]

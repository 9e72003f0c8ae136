"""The pprof model: parse, encode, merge, scale, diff, call tree. Pure; imports nothing of ours."""

from importlib import import_module
from typing import TYPE_CHECKING

from stanch.profile.combine import diff, merge, require_same_types, scale
from stanch.profile.decoding import parse
from stanch.profile.encoding import encode
from stanch.profile.errors import ProfileError
from stanch.profile.limits import Limits
from stanch.profile.model import (
    Function,
    Line,
    Location,
    Mapping,
    Profile,
    Sample,
    ValueType,
    sample_index,
)

if TYPE_CHECKING:
    from stanch.profile.callgraph import CallGraph, Edge, GraphNode, Trim, call_graph, heaviest
    from stanch.profile.calltree import CallNode, Frame, Granularity, call_tree, frame_label
    from stanch.profile.filters import Filtered, Filters, apply_filters
    from stanch.profile.sandwich import callees, callers
    from stanch.profile.tags import TagFilter, TagTotals, tag_totals, tags_as_roots
    from stanch.profile.units import format_percentage, format_value, report_unit, scale_value

__all__ = [
    "CallGraph",
    "CallNode",
    "Edge",
    "Filtered",
    "Filters",
    "Frame",
    "Function",
    "Granularity",
    "GraphNode",
    "Limits",
    "Line",
    "Location",
    "Mapping",
    "Profile",
    "ProfileError",
    "Sample",
    "TagFilter",
    "TagTotals",
    "Trim",
    "ValueType",
    "apply_filters",
    "call_graph",
    "call_tree",
    "callees",
    "callers",
    "diff",
    "encode",
    "format_percentage",
    "format_value",
    "frame_label",
    "heaviest",
    "merge",
    "parse",
    "report_unit",
    "require_same_types",
    "sample_index",
    "scale",
    "scale_value",
    "tag_totals",
    "tags_as_roots",
]

_FOR_REPORTS = ("callgraph", "calltree", "filters", "sandwich", "tags", "units")


def __getattr__(name: str) -> object:
    """Import what only reports need when that is first asked for: in a watched process, never."""
    if name in __all__:
        for module in _FOR_REPORTS:
            found: object = getattr(import_module(f"{__name__}.{module}"), name, None)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

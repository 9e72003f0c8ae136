"""A profile as speedscope reads it, see https://www.speedscope.app."""

import json
from typing import Any

from stanch.profile import Frame, Granularity, Profile, call_tree, sample_index
from stanch.profile.calltree import CallNode

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_UNITS = ("none", "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes")


def speedscope_json(profile: Profile, name: str) -> str:
    """The file's text: each sample type as one of its profiles, shown first is the default type.

    Of a difference it has what grew, as its format knows no negative weights.
    """
    frames: dict[int, int] = {}  # positions by the frame's identity
    told: list[Frame] = []
    ending: list[tuple[list[int], tuple[int, ...]]] = []  # paths, root first, and flat values
    tree = call_tree(profile, range(len(profile.sample_types)), Granularity.LINES)
    pending: list[tuple[CallNode, list[int]]] = [(tree, [])]
    while pending:
        node, path = pending.pop()
        if any(node.flat):
            ending.append((path, node.flat))
        for child in node.children.values():
            if id(child.frame) not in frames:
                frames[id(child.frame)] = len(told)
                told.append(child.frame)
            pending.append((child, [*path, frames[id(child.frame)]]))
    profiles = []
    for index, kind in enumerate(profile.sample_types):
        grown = [(path, flat[index]) for path, flat in ending if flat[index] > 0]
        samples, weights = [path for path, _ in grown], [value for _, value in grown]
        profiles.append(_sampled(f"{name} {kind.type}", kind.unit, samples, weights))
    document = {
        "$schema": _SCHEMA,
        "name": name,
        "exporter": "stanch",
        "activeProfileIndex": sample_index(profile, ""),
        "shared": {"frames": [_frame(one) for one in told]},
        "profiles": profiles,
    }
    return json.dumps(document, separators=(",", ":"))


def _sampled(name: str, unit: str, samples: list[list[int]], weights: list[int]) -> dict[str, Any]:
    return {
        "type": "sampled",
        "name": name,
        "unit": unit if unit in _UNITS else "none",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }


def _frame(frame: Frame) -> dict[str, Any]:
    told: dict[str, Any] = {"name": frame.name or frame.binary or frame.file or "<unknown>"}
    if frame.file:
        told["file"] = frame.file
    if frame.line:
        told["line"] = frame.line
    return told

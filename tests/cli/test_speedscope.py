"""Profiles for speedscope: its format, checked by hand against its published schema."""

import json

from stanch.flame import speedscope_json
from stanch.profile import diff
from tests.store.pprofs import heap_profile


def test_each_sample_type_is_a_profile_of_paths_from_the_root() -> None:
    """Weights add up to the total, frames are told once, the default type is shown first."""
    profile = heap_profile({"kept": 5000, "steady": 700})
    told = json.loads(speedscope_json(profile, "shop"))
    assert told["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = told["shared"]["frames"]
    assert {"name": "kept", "file": "/srv/app/kept.py", "line": 10} in frames
    assert len(frames) == len({json.dumps(frame) for frame in frames}) == 3
    live = told["profiles"][told["activeProfileIndex"]]
    assert (live["type"], live["name"], live["unit"]) == ("sampled", "shop inuse_space", "bytes")
    paths = {
        tuple(frames[at]["name"] for at in path): weight
        for path, weight in zip(live["samples"], live["weights"], strict=True)
    }
    assert paths == {("main", "kept"): 5000, ("main", "steady"): 700}
    assert (live["startValue"], live["endValue"]) == (0, 5700)
    assert [one["unit"] for one in told["profiles"]] == ["none", "bytes", "none", "bytes"]


def test_of_a_difference_it_has_what_grew() -> None:
    """Its format knows no negative weights."""
    grown = diff(heap_profile({"a": 900, "b": 100}), heap_profile({"a": 100, "b": 400}))
    told = json.loads(speedscope_json(grown, "shop"))
    live = told["profiles"][told["activeProfileIndex"]]
    assert live["weights"] == [300]

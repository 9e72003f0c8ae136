"""The call tree of a profile, or of two, as the data that `graph.js` draws.

Nodes stand depth first, each with its own values by sample type. With a base its values stand
beside, so that colours tell what grew and what shrank.
"""

import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from stanch.flame.groups import group_of, is_plumbing, short_name
from stanch.profile import (
    CallNode,
    Filters,
    Frame,
    Granularity,
    Profile,
    Sample,
    ValueType,
    apply_filters,
    call_tree,
    require_same_types,
    sample_index,
)

_MAX_NODES = 100_000
_SHADES = 3


@dataclass(frozen=True, slots=True)
class FlameSource:
    """What to draw: a profile, and what to compare it with, each with a name for the title."""

    name: str
    profile: Profile
    base_name: str = ""
    base: Profile | None = None


@dataclass(frozen=True, slots=True)
class FlameOptions:
    """sample_index: a name, a number or "" for the default. node_fraction: of the total in every
    sample type, below which frames are put together."""

    sample_index: str = ""
    granularity: Granularity = Granularity.FILEFUNCTIONS
    node_fraction: float = 0.0
    filters: Filters = field(default_factory=Filters)


def flame_json(source: FlameSource, options: FlameOptions) -> str:
    """The data as JSON that cannot end the script element it stands in.

    Raises ProfileError when base and profile do not fit or have no such type.
    """
    selected = sample_index(source.profile, options.sample_index)
    columns = _Columns.of(source, options)
    tree = call_tree(columns.samples, range(columns.count), options.granularity)
    data = _data(tree, columns, selected, options.node_fraction)
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@dataclass(frozen=True, slots=True)
class _Columns:
    """The values to draw: those of the profile by sample type, then those of the base likewise."""

    samples: Profile
    types: tuple[ValueType, ...]
    compares: bool

    @property
    def count(self) -> int:
        return len(self.samples.sample_types)

    @classmethod
    def of(cls, source: FlameSource, options: FlameOptions) -> "_Columns":
        """Put both side by side. What is negative, as in a difference, counts as the base's."""
        types = source.profile.sample_types
        new = apply_filters(source.profile, options.filters).profile.samples
        old: tuple[Sample, ...] = ()
        if source.base is not None:
            require_same_types(source.base, source.profile)
            old = apply_filters(source.base, options.filters).profile.samples
        compares = source.base is not None or any(min(sample.values) < 0 for sample in new)
        if not compares:
            return cls(replace(source.profile, samples=new), types, False)
        samples = [_beside(sample, sample.values) for sample in new]
        samples += [_beside(sample, tuple(-value for value in sample.values)) for sample in old]
        return cls(Profile(types + types, tuple(samples)), types, True)


def _beside(sample: Sample, values: tuple[int, ...]) -> Sample:
    """Give positive values to the profile's columns, negative ones to the base's."""
    now = tuple(max(value, 0) for value in values)
    before = tuple(max(-value, 0) for value in values)
    return replace(sample, values=now + before)


def _data(tree: CallNode, columns: _Columns, selected: int, fraction: float) -> dict[str, object]:
    drawn = _drawn(tree, fraction)
    frames = {id(each.frame): each for each in drawn}
    positions = {key: position for position, key in enumerate(frames)}
    groups = _groups(drawn, selected)
    return {
        "types": [{"type": each.type, "unit": each.unit} for each in columns.types],
        "selected": selected,
        "compares": columns.compares,
        "groups": list(groups),
        "frames": [_frame_data(each, groups) for each in frames.values()],
        "depths": [each.depth for each in drawn],
        "frameOf": [positions[id(each.frame)] for each in drawn],
        "values": [[each.flat[column] for each in drawn] for column in range(columns.count)],
    }


@dataclass(frozen=True, slots=True)
class _Drawn:
    """One node of the data, which lists them depth first, parents before children.

    group: the colour's, "" for what is no function: the root and small frames put together.
    """

    depth: int
    frame: Frame
    group: str
    flat: tuple[int, ...]


def _drawn(tree: CallNode, fraction: float) -> list[_Drawn]:
    """Choose what to draw, with a larger fraction where that is more than a page bears."""
    while True:
        cutoffs = [max(total * fraction, 1) for total in tree.cum]
        drawn: list[_Drawn] = []
        for each in _walk(tree, cutoffs):
            drawn.append(each)
            if len(drawn) > _MAX_NODES:
                break
        else:
            return drawn
        fraction = max(fraction * 2, 1e-6)


def _walk(tree: CallNode, cutoffs: list[float]) -> Iterator[_Drawn]:
    yield _Drawn(0, Frame("all"), "", tree.flat)
    pending: list[tuple[int, CallNode] | _Drawn] = _children(tree, 1, cutoffs)
    while pending:
        entry = pending.pop()
        if isinstance(entry, _Drawn):
            yield entry
            continue
        depth, node = entry
        yield _Drawn(depth, node.frame, group_of(node.frame), node.flat)
        pending += _children(node, depth + 1, cutoffs)


def _children(
    parent: CallNode, depth: int, cutoffs: list[float]
) -> list[tuple[int, CallNode] | _Drawn]:
    """Give the children that are large enough in some column, and the others as one."""
    large: list[tuple[int, CallNode] | _Drawn] = []
    small: list[tuple[int, ...]] = []
    for child in parent.children.values():
        if any(value >= least for value, least in zip(child.cum, cutoffs, strict=True)):
            large.append((depth, child))
        else:
            small.append(child.cum)
    if small:
        together = tuple(sum(values) for values in zip(*small, strict=True))
        large.append(_Drawn(depth, Frame(f"({len(small)} smaller)"), "", together))
    return large


def _groups(drawn: list[_Drawn], selected: int) -> dict[str, int]:
    """Number the groups that get a colour by what they hold themselves, the largest first."""
    weights: Counter[str] = Counter()
    for each in drawn:
        if each.group and not is_plumbing(each.group):
            weights[each.group] += each.flat[selected]
    ranked = sorted(weights, key=lambda group: (-weights[group], group))
    return {group: rank for rank, group in enumerate(ranked)}


def _frame_data(drawn: _Drawn, groups: dict[str, int]) -> dict[str, object]:
    frame = drawn.frame
    return {
        "name": frame.name or short_name(frame),
        "short": short_name(frame),
        "file": frame.file,
        "line": frame.line,
        "group": groups.get(drawn.group),
        "shade": zlib.crc32(frame.name.encode("utf-8", "replace")) % _SHADES,
    }

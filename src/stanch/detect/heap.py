"""Causes in the sampled heap: functions whose memory grows."""

from dataclasses import replace

import numpy as np

from stanch.detect.blame import is_in_request
from stanch.detect.cause import Cause, shape_of
from stanch.detect.finding import Kind
from stanch.detect.groups import Group, Place, flow_beneath, group_by_place, main_line, main_native
from stanch.detect.growth import Growth, Requests, growth_by_birth, growth_by_level
from stanch.detect.settings import Settings
from stanch.detect.significance import noise_bound, weight_variance
from stanch.store.series import Floats, LifeSeries

_LARGE_OBJECT_BYTES = 64 * 1024.0
"""A container that grows by reallocation is born again each time, so its births are always young;
it is known by its few large blocks, and its level tells."""

_TRIFLE = 0.25
"""All stacks that are left out hold at most this share of what is judged at all."""

_NEXT_TO_ALL = 0.95
"""Of the growth that requests allocate; the rest may be of a start-up before the first of them."""

_BENEATH = 0.9
_OWN_PART = 0.15


def heap_causes(
    life: LifeSeries, requests: Requests | None, floor_bytes: float, settings: Settings
) -> list[Cause]:
    """The functions whose live bytes are above the floor and have grown beyond noise.

    Those of one leak are joined: a function whose growth flows through another one's.
    """
    if not life.stacks or life.time_s.size < 2:
        return []
    last = life.live_bytes[:, -1]
    rows = _rows_that_matter(last, floor_bytes)
    groups = group_by_place(life.stacks, rows)
    weight = weight_variance(life.object_bytes, life.period_bytes)
    # What was left out counts as looked at: noise could as well have made it large.
    alpha = settings.alpha / max(len(groups) + len(life.stacks) - len(rows), 1)
    found: list[Cause] = []
    growing: dict[Place, Group] = {}
    held = _held_by(groups, last)
    for group, held_bytes in zip(groups, held.tolist(), strict=True):
        if held_bytes < floor_bytes:
            continue
        growth = _growth(life, group, weight, requests, settings)
        if growth is None:
            continue
        bound = noise_bound(growth.variance, life.period_bytes, alpha)
        cause = _cause(life, group, growth, bound, settings)
        found.append(cause)
        if cause.leaks:
            growing[group.place] = group
    return _join(life, found, growing, weight, requests, alpha, settings)


def _rows_that_matter(last: Floats, floor_bytes: float) -> list[int]:
    """The stacks without those, the smallest, that together hold next to nothing."""
    order = np.argsort(last, kind="stable")
    trifles = int(np.searchsorted(np.cumsum(last[order]), _TRIFLE * floor_bytes, side="right"))
    return sorted(order[trifles:].tolist())


def _held_by(groups: list[Group], last: Floats) -> Floats:
    """The bytes of each group: (groups,). One sum for all, as there are hundreds."""
    rows = np.array([row for group in groups for row in group.rows], dtype=np.intp)
    of = np.repeat(np.arange(len(groups)), [len(group.rows) for group in groups])
    return np.bincount(of, weights=last[rows], minlength=len(groups)).astype(np.float64)


def _growth(
    life: LifeSeries,
    group: Group,
    weight: Floats,
    requests: Requests | None,
    settings: Settings,
) -> Growth | None:
    if life.births is None:
        return _growth_by_level(life, group, weight, requests)
    by_birth = growth_by_birth(
        life.births,
        group.rows,
        weight[group.rows],
        look_times_s=life.time_s,
        requests=requests,
    )
    if by_birth is not None and shape_of(by_birth, settings) == "steady":
        return by_birth
    large = np.nan_to_num(life.object_bytes[group.rows]) >= _LARGE_OBJECT_BYTES
    live = life.live_bytes[group.rows, -1]
    if live[large].sum() > 0.5 * live.sum():
        return _growth_by_level(life, group, weight, requests)
    return by_birth


def _growth_by_level(
    life: LifeSeries, group: Group, weight: Floats, requests: Requests | None
) -> Growth | None:
    fresh = life.heap_fresh
    level = life.live_bytes[group.rows].sum(axis=0)
    growth = growth_by_level(life.time_s[fresh], level[fresh], requests=requests)
    if growth is None:
        return None
    since = int(np.searchsorted(life.time_s, growth.onset_s))
    born = life.allocated_bytes[group.rows, -1] - life.allocated_bytes[group.rows, since]
    rise = life.live_bytes[group.rows, -1] - life.live_bytes[group.rows, since]
    # Born plus died is born twice less what stayed; it cannot be less than the change itself.
    turnover = np.maximum(2 * np.maximum(born, 0.0) - rise, np.abs(rise))
    return replace(growth, variance=float((turnover * weight[group.rows]).sum()))


def _cause(
    life: LifeSeries, group: Group, growth: Growth, bound: float, settings: Settings
) -> Cause:
    by_row = _growth_by_row(life, growth, group.rows)
    frame, stack = main_line(life.stacks, group.rows, by_row)
    shape = shape_of(growth, settings)
    native = main_native(life.stacks, group.rows, by_row)
    return Cause(
        kind=_kind(growth, shape, is_native=native is not None),
        place=group.place,
        places=(group.place,),
        frame=frame,
        stack=stack,
        growth=growth,
        shape=shape,
        bound=bound,
        taken_by=native,
        in_requests=_in_requests(life, group, by_row),
    )


def _in_requests(life: LifeSeries, group: Group, by_row: Floats) -> bool:
    asked = [row for row in group.rows if is_in_request(life.stacks[row])]
    total = float(by_row[group.rows].sum())
    return total > 0 and float(by_row[asked].sum()) >= _NEXT_TO_ALL * total


def _kind(growth: Growth, shape: str, *, is_native: bool) -> Kind:
    match shape:
        case "steady":
            return "native leak" if is_native else "leak"
        case "ended":
            return "warm-up"
        case "young":
            return "load"
    first, _, last = growth.rates
    return "warm-up" if shape == "slowing" and last < 0.25 * first else "filling cache"


def _growth_by_row(life: LifeSeries, growth: Growth, rows: list[int]) -> Floats:
    """What of the growth each of these rows has, in bytes; 0 of the others: (stacks,)."""
    grown = np.zeros(len(life.stacks))
    if growth.by_birth and life.births is not None:
        since = int(np.searchsorted(life.births.edges_s[:-1], growth.onset_s))
        grown[rows] = life.births.live_bytes[rows, since:].sum(axis=1)
    else:
        look = int(np.searchsorted(life.time_s, growth.onset_s))
        grown[rows] = np.maximum(life.live_bytes[rows, -1] - life.live_bytes[rows, look], 0.0)
    return grown


def _join(
    life: LifeSeries,
    found: list[Cause],
    growing: dict[Place, Group],
    weight: Floats,
    requests: Requests | None,
    alpha: float,
    settings: Settings,
) -> list[Cause]:
    """Make one cause of those leaks of which one flows through the other's function."""
    leaks = {cause.place: cause for cause in found if cause.leaks}
    by_row = {
        place: _growth_by_row(life, cause.growth, growing[place].rows)
        for place, cause in leaks.items()
    }
    family = {place: place for place in leaks}

    def head(place: Place) -> Place:
        while family[place] != place:
            place = family[place]
        return place

    for child in leaks:
        for parent in leaks:
            if head(child) == head(parent):
                continue
            rows = growing[child].rows
            if flow_beneath(life.stacks, rows, by_row[child], parent) >= _BENEATH:
                family[head(child)] = head(parent)
    families: dict[Place, list[Place]] = {}
    for place in leaks:
        families.setdefault(head(place), []).append(place)
    joined = [cause for cause in found if not cause.leaks]
    for members in families.values():
        if len(members) == 1:
            joined.append(leaks[members[0]])
            continue
        named = _namesake(life, members, leaks, growing, by_row)
        rows = [row for place in members for row in growing[place].rows]
        group = Group(named, rows)
        growth = _growth(life, group, weight, requests, settings)
        if growth is None:
            joined += [leaks[place] for place in members]
            continue
        bound = noise_bound(growth.variance, life.period_bytes, alpha)
        whole = _cause(life, group, growth, bound, settings)
        own = leaks[named]
        joined.append(
            Cause(
                kind=whole.kind,
                place=named,
                places=tuple(members),
                frame=own.frame,
                stack=own.stack,
                growth=growth,
                shape=whole.shape,
                bound=bound,
                taken_by=whole.taken_by,
                in_requests=whole.in_requests,
            )
        )
    return joined


def _namesake(
    life: LifeSeries,
    members: list[Place],
    leaks: dict[Place, Cause],
    growing: dict[Place, Group],
    by_row: dict[Place, Floats],
) -> Place:
    """The function to name for several: one that allocates a good part and that all flows through.

    Of several such, the one that allocates most; without any, likewise of all.
    """
    grown = {place: float(by_row[place][growing[place].rows].sum()) for place in members}
    total = sum(grown.values())
    above = [
        place
        for place in members
        if grown[place] >= _OWN_PART * total
        and all(
            other == place
            or flow_beneath(life.stacks, growing[other].rows, by_row[other], place) >= _BENEATH
            for other in members
        )
    ]
    return max(above or members, key=lambda place: grown[place])

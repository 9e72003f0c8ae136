"""Which growths of a service are one leak: what is kept by the same container or the same tasks.

Assumption: whatever one container without a bound keeps has one cause, wherever it was allocated,
and what tasks or threads that are never done refer to is kept by them.
"""

from collections.abc import Hashable, Mapping
from typing import TypeVar

from stanch.detect.cause import Cause
from stanch.detect.finding import LEAKS, STAGES

K = TypeVar("K", bound=Hashable)


def one_leak_each(causes: Mapping[K, Cause]) -> list[list[K]]:
    """Group the keys of the gravest causes by the leak they are of, its namesake first.

    What is no leak stands alone. The namesake is the number of tasks, threads or goroutines where
    there is one, for it says more; else what is surest, and of that the largest.
    """
    groups: list[list[K]] = []
    for key, cause in causes.items():
        kin = [group for group in groups if any(_are_kin(causes[each], cause) for each in group)]
        groups = [group for group in groups if group not in kin]
        groups.append([*(each for group in kin for each in group), key])
    return [sorted(group, key=lambda key: _weight(causes[key]), reverse=True) for group in groups]


def _weight(cause: Cause) -> tuple[bool, int, float]:
    return (cause.is_count, STAGES.index(cause.stage), cause.growth.grown_until_now)


def _are_kin(one: Cause, other: Cause) -> bool:
    if not (one.leaks and other.leaks and one.kind in LEAKS and other.kind in LEAKS):
        return False
    if one.is_count is other.is_count:
        return not one.is_count and _have_one_holder(one, other)
    counted, heap = (one, other) if one.is_count else (other, one)
    if counted.place == heap.place:
        return counted.stage != "suspect"
    through = heap.holder.through if heap.holder is not None else frozenset[str]()
    return counted.place.function in through


def _have_one_holder(one: Cause, other: Cause) -> bool:
    first, second = one.holder, other.holder
    if first is None or second is None:
        return False
    if {"lost", "uncollected", "unknown"} & {first.behaviour, second.behaviour}:
        return False
    return bool(first.name) and first.name == second.name

"""What is known of a node: whether it is short of memory. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Node:
    """A node. pressed: the kubelet says MemoryPressure, and evicts pods that use most."""

    name: str
    pressed: bool


def node_of(value: Mapping[str, Any]) -> Node:
    """Read a node's object."""
    conditions = (value.get("status") or {}).get("conditions") or ()
    pressed = any(
        each.get("type") == "MemoryPressure" and each.get("status") == "True" for each in conditions
    )
    return Node(str((value.get("metadata") or {}).get("name", "")), pressed)

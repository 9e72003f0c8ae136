"""The retention search: what keeps the live samples of some stacks alive.

Takes numbers of stacks of the live table, gives the nodes of the paths from the roots to the
samples. The search itself is C (core/retain*.c) and runs in a snapshot of the process, so the host
stands still only while the kernel copies its page tables; `in_process` runs it in place instead,
and the host stands still for all of it.
"""

import struct
import sys
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from stanch.sampler.cgroup import group_account, memory_group
from stanch.sampler.control import _core
from stanch.sampler.errors import SamplerError, SearchError

MAX_TARGETS = 16384
SNAPSHOT_S = 3.0
IN_PROCESS_S = 0.25
MIN_OWN_BYTES = 8 << 20
_OWN_BYTES = 32 << 20
_MAGIC = 0x4E494152
_NONE = 0xFFFFFFFF

# core/retain.h
_ANSWER = struct.Struct("<IIQQQQQQQIIII")
_NODE = struct.Struct("<QqqIIIIIBBBx")
_FOUND = struct.Struct("<QQIIIIII")


class Root(IntEnum):
    """What holds the first object of a path."""

    MODULE = 0
    FRAME = 1
    THREAD = 2
    CONTEXT = 3
    INTERPRETER = 4
    NATIVE = 5
    GARBAGE = 6
    LATE = 7
    NONE = 8


class Edge(IntEnum):
    """How an object is held by the one before it."""

    PLAIN = 0
    ROOT = 1
    ATTRIBUTE = 2
    CLASS = 3
    GLOBAL = 4
    DICT = 5
    ITEM = 6
    CELL = 7
    LOCAL = 8
    CONTEXT = 9
    DEFAULT = 10
    TYPE = 11
    SKIPPED = 12
    KEY = 13


class Shape(IntEnum):
    """What an object is, as far as the words for it differ."""

    OTHER = 0
    NAMESPACE = 1
    FUNCTION = 2
    CLASS = 3
    COROUTINE = 4
    CONTAINER = 5
    LRU = 6


class Limit(IntFlag):
    """Why a search is not complete."""

    TIME = 1
    MEMORY = 2
    COLLECTING = 4
    ANSWER = 8


class How(IntEnum):
    """What of a sampled block was found."""

    NOT_FOUND = 0
    OBJECT = 1
    BUFFER = 2


@dataclass(frozen=True, slots=True)
class Node:
    """One object on a path, and how the one before it holds it.

    parent: number of the node before it, None at a root. identity: tells the object from others
    while it lives. length: items of a container, bound: the most it may have, None when unknown.
    name: of the attribute, variable, key or module. label: the qualified name of a function or
    class; for a local "function\\tfile", with its line; for a module its file.
    """

    identity: int
    length: int | None
    bound: int | None
    parent: int | None
    type: str
    name: str
    label: str
    line: int
    edge: Edge
    root: Root
    shape: Shape


@dataclass(frozen=True, slots=True)
class Found:
    """A live sample and the node that is its object, or whose own storage it is."""

    size_bytes: int
    birth_ns: int
    stack: int
    interval_bytes: int
    domain: int
    how: How
    node: int | None


@dataclass(frozen=True, slots=True)
class Search:
    """A finished search.

    matched: live samples of the stacks, of which `found` has at most MAX_TARGETS, a fair part.
    limits: why it is not complete, 0 when it is. visited: objects looked at. pause_ns: how long
    the host stood still. own_bytes: memory of the search. garbage: objects in cycles that nothing
    refers to, where they were counted.
    """

    nodes: tuple[Node, ...]
    found: tuple[Found, ...]
    matched: int
    limits: Limit
    visited: int
    edges: int
    walk_ns: int
    pause_ns: int
    own_bytes: int
    garbage: int


def search(
    stacks: Collection[int],
    *,
    files: tuple[str, ...] = (),
    late: tuple[object, ...] = (),
    resident_bytes: int = 0,
    max_targets: int = MAX_TARGETS,
    in_process: bool = False,
    values: bool = False,
    seconds: float | None = None,
) -> Search:
    """Search for what keeps the live samples of these stacks alive.

    files: modules of these files give their names first where an object has several.
    late: different objects that hold others for the moment only; paths through them are told
    where there is no other. resident_bytes: of this process; the search takes at most a quarter of
    it, or 32 MiB.
    values: show the keys of containers too. seconds: the longest the search may run.
    Raises SamplerError when sampling does not run, SearchError when a search is not possible.
    """
    if _core is None or not _core.running():
        raise SamplerError("sampling does not run in this process; call stanch.start() first")
    if not hasattr(_core, "retain"):
        raise SearchError(
            "the retention search knows the objects of CPython 3.11 to 3.13, and this is "
            f"{sys.version_info.major}.{sys.version_info.minor}"
        )
    own_bytes, usage_path, ceiling = _room(max(_OWN_BYTES, resident_bytes // 4))
    numpy = sys.modules.get("numpy")
    wanted = bytearray(max(stacks, default=-1) + 1)
    for number in stacks:
        wanted[number] = 1
    longest_s = seconds or (IN_PROCESS_S if in_process else SNAPSHOT_S)
    try:
        answer = _core.retain(
            stacks=bytes(wanted),
            max_targets=max_targets,
            time_ns=int(longest_s * 1e9),
            memory_bytes=own_bytes,
            files=files,
            late=late,
            ndarray=vars(numpy).get("ndarray") if type(numpy) is type(sys) else None,
            values=values,
            in_process=in_process,
            usage_path=usage_path,
            usage_ceiling=ceiling,
        )
    except OSError as error:
        raise SearchError(f"{error}; a search inside the process may be possible") from error
    except MemoryError as error:
        raise SearchError("there is no memory for the search") from error
    return decode(answer)


def _room(wanted_bytes: int) -> tuple[int, str | None, int]:
    """Return how much memory the search may take, and the file and value at which it is ended.

    Raises SearchError when the memory cgroup is too near its limit.
    """
    group, account = memory_group(), group_account()
    if group is None or account is None:
        return wanted_bytes, None, 0
    memory = account.memory
    used = memory.working_set_bytes
    if memory.limit_bytes is None or memory.usage_bytes is None or used is None:
        return wanted_bytes, None, 0
    left = max(memory.limit_bytes - used, 0)
    if left // 2 < MIN_OWN_BYTES:
        raise SearchError(
            f"only {left >> 20} MiB are left below the memory limit of "
            f"{memory.limit_bytes >> 20} MiB, and a search needs {2 * MIN_OWN_BYTES >> 20}"
        )
    name = "memory.usage_in_bytes" if group.version == 1 else "memory.current"
    ceiling = memory.usage_bytes + left * 3 // 4
    return min(wanted_bytes, left // 2), str(group.directory / name), ceiling


def decode(answer: bytes) -> Search:
    """Read the answer of the C core."""
    head = _ANSWER.unpack_from(answer)
    magic, limits, length, visited, edges, walk_ns, pause_ns, own_bytes, matched = head[:9]
    node_count, found_count, text_bytes, garbage = head[9:]
    nodes_at = _ANSWER.size
    found_at = nodes_at + node_count * _NODE.size
    texts_at = found_at + found_count * _FOUND.size
    if magic != _MAGIC or length != len(answer) or texts_at + text_bytes != length:
        raise SearchError("the snapshot's answer is damaged")
    texts = answer[texts_at:]
    known: dict[int, str] = {}

    def text(at: int) -> str:
        if at not in known:
            known[at] = texts[at : texts.index(0, at)].decode("utf-8", "replace")
        return known[at]

    nodes = tuple(
        Node(
            identity,
            None if items < 0 else items,
            None if bound < 0 else bound,
            None if parent == _NONE else parent,
            text(type_at),
            text(name_at),
            text(label_at),
            line,
            Edge(edge),
            Root(root),
            Shape(shape),
        )
        for identity, items, bound, parent, type_at, name_at, label_at, line, edge, root, shape in (
            _NODE.iter_unpack(answer[nodes_at:found_at])
        )
    )
    found = tuple(
        Found(
            size,
            birth,
            stack,
            interval,
            domain,
            How(how),
            None if node == _NONE else node,
        )
        for size, birth, stack, interval, domain, how, node, _ in (
            _FOUND.iter_unpack(answer[found_at:texts_at])
        )
    )
    return Search(
        nodes, found, matched, Limit(limits), visited, edges, walk_ns, pause_ns, own_bytes, garbage
    )

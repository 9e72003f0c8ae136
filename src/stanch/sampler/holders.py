"""From a search to a tree of references as a person would name them, merged over all samples.

Pure. Objects that are held in the same way are one reference: a thousand sessions in one dict are
one line, with how many samples and about how many bytes go through it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stanch.sampler.heap import sample_weight
from stanch.sampler.retention import Edge, How, Limit, Node, Root, Search, Shape
from stanch.sampler.tablefile import Domain

MAX_DEPTH = 100
_REPEATS = 3
NATIVE = "reference held only from C (native reference, or a missing decref)"
NOWHERE = "not reachable from any Python object: native reference, or a missing decref"
OF_C = "native memory of C code or of the interpreter itself, held by no Python object"
UNFINISHED = "not found before the search had to stop"
GARBAGE = "reference cycle waiting for the collector"
UNCOLLECTABLE = "uncollectable cycle, in gc.garbage"


@dataclass(slots=True)
class Reference:
    """One way in which objects are held, and what goes through it.

    text: how, as "app/session.py module global SESSIONS". type: of what is held; "" where the
    text says it. sizes: length and bound of each container that is held so, by its identity.
    samples, bytes, objects: live samples through it, and what they stand for. kept: those samples
    that are these objects themselves.
    """

    text: str
    type: str
    depth: int
    sizes: dict[int, tuple[int, int | None]] = field(default_factory=dict)
    identities: set[int] = field(default_factory=set)
    samples: int = 0
    bytes: float = 0.0
    objects: float = 0.0
    kept: int = 0
    held: dict[tuple[str, str], "Reference"] = field(default_factory=dict)

    def child(self, text: str, kind: str) -> "Reference":
        """Return the reference of that name and type below this one, made if need be."""
        found = self.held.get((text, kind))
        if found is None:
            found = self.held[text, kind] = Reference(text, kind, self.depth + 1)
        return found

    def heaviest_first(self) -> list["Reference"]:
        """Return what is held below, the most bytes first."""
        return sorted(self.held.values(), key=lambda each: each.bytes, reverse=True)


def merge_paths(search: Search, wanted: Callable[[str], bool] = lambda _: True) -> Reference:
    """Merge all paths of a search into a tree; its root stands for all samples.

    wanted: says for the type of a sampled object whether it counts.
    """
    top = Reference("", "", 0)
    places = _places(search.nodes, top)
    scale = search.matched / len(search.found) if search.found else 1.0
    for found in search.found:
        if found.node is None or found.how == How.NOT_FOUND:
            if not wanted(""):
                continue
            path = [top, top.child(_nowhere(search.limits, found.domain), "")]
        else:
            node = search.nodes[found.node]
            if not wanted(_short(node.type)):
                continue
            path = places[found.node]
            if found.how == How.BUFFER:
                what = "its own storage" if len(path) > 1 else f"the names of module {node.name}"
                path = [*path, path[-1].child(what, "")]
        weight = sample_weight(found.size_bytes, found.interval_bytes) * scale
        for reference in path:
            reference.samples += 1
            reference.objects += weight
            reference.bytes += weight * found.size_bytes
        path[-1].kept += 1
    return top


def _nowhere(limits: Limit, domain: int) -> str:
    """Return what is said of a sample that was not found.

    A block of RAW or of malloc is no Python object: of it nobody forgot a decref. CPython takes
    such blocks for itself too, its allocator's list of arenas for one.
    """
    if limits & ~Limit.COLLECTING:
        return UNFINISHED
    return OF_C if domain in (Domain.RAW, Domain.NATIVE) else NOWHERE


def _places(nodes: Sequence[Node], top: Reference) -> list[list[Reference]]:
    """Return for each node the references that lead to it; a parent stands before its children."""
    places: list[list[Reference]] = []
    for node in nodes:
        before = [top] if node.parent is None else places[node.parent]
        step = _step(nodes, node)
        if step is None:
            places.append(before)
            continue
        path = before if _repeats(before, step, node.edge) else [*before, before[-1].child(*step)]
        reference = path[-1]
        reference.identities.add(node.identity)
        if node.length is not None and node.shape != Shape.NAMESPACE:
            reference.sizes[node.identity] = (node.length, node.bound)
        places.append(path)
    return places


def _repeats(path: list[Reference], step: tuple[str, str], edge: Edge) -> bool:
    """Whether a step is folded into those before it: chains would be as long as they are."""
    same = 0
    for reference in reversed(path):
        if (reference.text, reference.type) != step:
            break
        same += 1
    return same >= (1 if edge in (Edge.ATTRIBUTE, Edge.SKIPPED) else _REPEATS) or (
        len(path) > MAX_DEPTH
    )


def _step(nodes: Sequence[Node], node: Node) -> tuple[str, str] | None:
    """Return how a node is held and its type; None where a person sees no step at all."""
    kind = _kind(node)
    if node.parent is None:
        return _root_step(node, kind)
    parent = nodes[node.parent]
    above = nodes[parent.parent] if parent.parent is not None else None
    match node.edge:
        case Edge.DICT:
            return None
        case Edge.GLOBAL:
            return _global(parent, above, node.name), kind
        case Edge.CLASS:
            owner = above.label if above is not None else "a class"
            return f"class attribute {owner}.{node.name}", kind
        case Edge.ATTRIBUTE:
            return _attribute(nodes, parent, node.name), kind
        case Edge.CELL:
            owner = above.label if above is not None else "a function"
            return f"closure cell {node.name} of {owner}", ""
        case Edge.LOCAL:
            return f"local {node.name} of {_place(node)}", kind
        case Edge.CONTEXT:
            return f"context variable {node.name}", kind
        case Edge.DEFAULT:
            return f"default argument of {parent.label}", kind
        case Edge.TYPE:
            return "its class", kind
        case Edge.SKIPPED:
            return "a long chain of objects", ""
        case Edge.KEY:
            return f"[{node.name!r}]", kind
    if _is_hidden(node, parent):
        return None
    return "", kind


def _is_hidden(node: Node, parent: Node) -> bool:
    """Whether an object is only the machinery of the one before it."""
    return (
        node.type.startswith("hamt")
        or (node.type == "tuple" and parent.shape == Shape.FUNCTION)
        or (node.type == "dict" and parent.shape in (Shape.LRU, Shape.NAMESPACE))
        or (node.type == "dict" and parent.type == "_thread._local")
    )


def _root_step(node: Node, kind: str) -> tuple[str, str] | None:
    match node.root:
        case Root.MODULE:
            return None  # What it holds says which module it is.
        case Root.FRAME if node.edge == Edge.LOCAL:
            what = f"local {node.name} of" if node.name else "held by"
            return f"{what} running {_place(node)}", kind
        case Root.CONTEXT:
            return "the current context of a thread", ""
        case Root.THREAD:
            return "the state of a thread", kind
        case Root.INTERPRETER:
            return "the interpreter itself (a cache of names, at exit, at fork)", kind
        case Root.LATE:
            return "a queue of what is about to run", kind
        case Root.NATIVE:
            return NATIVE, kind
        case Root.GARBAGE:
            return GARBAGE, kind
    return "", kind


def _global(parent: Node, above: Node | None, name: str) -> str:
    module = parent if parent.root == Root.MODULE else above
    file, title = (module.label, module.name) if module is not None else ("", "")
    if title == "gc" and name == "garbage":
        return UNCOLLECTABLE
    where = short_file(file) or title or "a module"
    return f"{where} module global {name}"


def _attribute(nodes: Sequence[Node], parent: Node, name: str) -> str:
    owner = parent
    while owner.type == "dict" and owner.parent is not None:
        owner = nodes[owner.parent]
    if owner.type == "_thread._local":
        return f"thread local {name}"
    if owner.shape in (Shape.FUNCTION, Shape.CLASS):
        return f"{owner.label}.{name}"
    return f"{_short(owner.type)}.{name}" if name else f"attribute of {_short(owner.type)}"


def _place(node: Node) -> str:
    function, _, file = node.label.partition("\t")
    return f"{function} ({short_file(file)}:{node.line})"


def _kind(node: Node) -> str:
    """Return the type as it is shown; of functions and coroutines also which."""
    if node.shape == Shape.LRU:
        return "functools.lru_cache"
    if node.shape == Shape.CLASS:
        return f"class {node.label or node.type}"
    kind = _short(node.type)
    if node.type == "_asyncio.Task":
        kind = "asyncio task"
    named = node.shape in (Shape.FUNCTION, Shape.COROUTINE) and node.label
    return f"{kind} {node.label}" if named and "\t" not in node.label else kind


def _short(type_name: str) -> str:
    return type_name.rpartition(".")[2] if not type_name.startswith("numpy.") else type_name


def short_file(path: str) -> str:
    """Return the last two parts of a path."""
    return "/".join(path.split("/")[-2:])

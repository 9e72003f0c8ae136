"""The call tree folded into a graph: one node per frame, with flat, cum, callers and callees.

What a frame calls itself, directly or not, counts once: cum is the value of the samples the frame
appears in, and an edge's weight that of the samples with a call from the one to the other.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from stanch.profile.calltree import CallNode, Frame, frame_label


@dataclass(slots=True, eq=False)
class Edge:
    """Calls from one frame to another; inlined when no sample has one that was not."""

    caller: "GraphNode"
    callee: "GraphNode"
    weight: int = 0
    inlined: bool = True


@dataclass(slots=True, eq=False)
class GraphNode:
    """A frame with its own value, that of the samples it appears in, and its edges. Read-only.

    callers and callees: by the identity of the other end's frame.
    """

    frame: Frame
    label: str
    flat: int = 0
    cum: int = 0
    callers: dict[int, Edge] = field(default_factory=dict)
    callees: dict[int, Edge] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trim:
    """What to leave out of a report; 0 leaves out nothing.

    node_count: how many nodes at most. node_fraction, edge_fraction: of the total, below which a
    node's cum or an edge's weight is too small to show.
    """

    node_count: int = 0
    node_fraction: float = 0.0
    edge_fraction: float = 0.0


@dataclass(frozen=True, slots=True)
class CallGraph:
    """Nodes in the order of the report.

    dropped: how many were below Trim.node_fraction. kept: how many there were above it, of which
    `nodes` are those that Trim.node_count allows.
    """

    nodes: tuple[GraphNode, ...]
    dropped: int
    kept: int


_UNTRIMMED = Trim()


def call_graph(tree: CallNode, trim: Trim = _UNTRIMMED, *, by_cum: bool = False) -> CallGraph:
    """Fold a tree, which holds one sample type, and sort by flat, or else cum, the largest first.

    Nodes and edges below `trim` are left out: callers of what a left-out node called call it
    directly, and the node's flat value is not shown.
    """
    nodes = _fold(tree, None)
    total = sum(node.flat for node in nodes)
    node_cutoff = abs(int(total * trim.node_fraction))
    large = [node for node in nodes if abs(node.cum) >= node_cutoff]
    dropped = len(nodes) - len(large)
    if dropped:
        nodes = _fold(tree, {id(node.frame) for node in large})
    kept = len(nodes)
    nodes.sort(key=_by_cum if by_cum else _by_flat)
    if 0 < trim.node_count < kept:
        nodes = _fold(tree, {id(node.frame) for node in nodes[: trim.node_count]})
        nodes.sort(key=_by_cum if by_cum else _by_flat)
    _drop_edges(nodes, abs(int(total * trim.edge_fraction)))
    return CallGraph(tuple(nodes), dropped, kept)


def heaviest(edges: Iterable[Edge]) -> list[Edge]:
    """Sort edges by weight, the heaviest first, then by name."""
    return sorted(edges, key=lambda edge: (-abs(edge.weight), edge.caller.label, edge.callee.label))


def _by_flat(node: GraphNode) -> tuple[int, str, int]:
    return -abs(node.flat), node.label, -abs(node.cum)


def _by_cum(node: GraphNode) -> tuple[int, str, int]:
    return -abs(node.cum), node.label, -abs(node.flat)


def _fold(tree: CallNode, keep: Container[int] | None) -> list[GraphNode]:
    """Fold the tree, of which only the frames with an identity in `keep` get a node."""
    folding = _Folding(keep)
    # Entries are a node to enter under a graph node, or, once it was entered, a step to leave.
    pending: list[tuple[CallNode, GraphNode | None] | _Step] = [
        (child, None) for child in tree.children.values()
    ]
    while pending:
        entry = pending.pop()
        if isinstance(entry, _Step):
            folding.leave(entry)
            continue
        node, parent = entry
        step = folding.enter(node, parent)
        pending.append(step)
        pending.extend((child, step.node) for child in node.children.values())
    return [node for node in folding.nodes.values() if node.flat or node.cum]


@dataclass(frozen=True, slots=True)
class _Step:
    """A tree node on the path being walked: its graph node, or its parent's where not kept."""

    node: GraphNode | None
    entered_node: bool = False
    entered_edge: Edge | None = None


class _Folding:
    """The graph so far, and how often each node and edge is on the path being walked."""

    def __init__(self, keep: Container[int] | None) -> None:
        self.nodes: dict[int, GraphNode] = {}
        self._keep = keep
        self._nodes_on_path: dict[GraphNode, int] = {}
        self._edges_on_path: dict[Edge, int] = {}

    def enter(self, tree_node: CallNode, parent: GraphNode | None) -> _Step:
        frame = tree_node.frame
        if self._keep is not None and id(frame) not in self._keep:
            return _Step(parent)
        node = self.nodes.get(id(frame))
        if node is None:
            node = self.nodes[id(frame)] = GraphNode(frame, frame_label(frame))
        (value,) = tree_node.cum
        node.flat += tree_node.flat[0]
        if not self._nodes_on_path.get(node):
            node.cum += value
        self._nodes_on_path[node] = self._nodes_on_path.get(node, 0) + 1
        edge = None
        if parent is not None and parent is not node:
            edge = self._edge(parent, node)
            if not self._edges_on_path.get(edge):
                edge.weight += value
                edge.inlined = edge.inlined and tree_node.inlined
            self._edges_on_path[edge] = self._edges_on_path.get(edge, 0) + 1
        return _Step(node, True, edge)

    def leave(self, step: _Step) -> None:
        if step.entered_node and step.node is not None:
            self._nodes_on_path[step.node] -= 1
        if step.entered_edge is not None:
            self._edges_on_path[step.entered_edge] -= 1

    @staticmethod
    def _edge(caller: GraphNode, callee: GraphNode) -> Edge:
        edge = callee.callers.get(id(caller.frame))
        if edge is None:
            edge = Edge(caller, callee)
            callee.callers[id(caller.frame)] = caller.callees[id(callee.frame)] = edge
        return edge


def _drop_edges(nodes: Iterable[GraphNode], cutoff: int) -> None:
    for node in nodes:
        for edge in list(node.callers.values()):
            if abs(edge.weight) < cutoff:
                del node.callers[id(edge.caller.frame)]
                del edge.caller.callees[id(node.frame)]

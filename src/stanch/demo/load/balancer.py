"""Who gets the next request: services by their share, nodes in turn, dead nodes left out a while.

Pure but for the clock readings it is given.
"""

from collections.abc import Sequence

from .plan import Traffic

EJECT_SECONDS = 1.0


class ShareWheel:
    """Deals out services by weight, spread evenly (smooth weighted round robin, as nginx does)."""

    def __init__(self, traffic: Sequence[Traffic]) -> None:
        self._traffic = tuple(traffic)
        self._total = sum(one.per_minute for one in self._traffic)
        self._credit = [0.0] * len(self._traffic)

    def next(self) -> Traffic:
        """Return whose turn it is."""
        for index, one in enumerate(self._traffic):
            self._credit[index] += one.per_minute
        winner = max(range(len(self._credit)), key=self._credit.__getitem__)
        self._credit[winner] -= self._total
        return self._traffic[winner]


class Ring:
    """The nodes of one service in turn.

    A node that refuses is left out for EJECT_SECONDS, one that is drained until it is restored.
    """

    def __init__(self, nodes: Sequence[str]) -> None:
        self._nodes = tuple(nodes)
        self._next = 0
        self._ejected_until: dict[str, float] = {}
        self._drained: set[str] = set()

    def candidates(self, now: float) -> list[str]:
        """Return the nodes to try for one request, best first.

        Nodes in service come first, in turn; when all are ejected they are tried all the same,
        as a load balancer does rather than to answer nobody.
        """
        start, self._next = self._next, (self._next + 1) % len(self._nodes)
        turn = self._nodes[start:] + self._nodes[:start]
        ready = [node for node in turn if node not in self._drained]
        in_service = [node for node in ready if self._ejected_until.get(node, now) <= now]
        return in_service or ready or list(turn)

    def drain(self, node: str) -> None:
        """Send no more requests to a node; nothing when it is not one of these."""
        self._drained |= {node} & {*self._nodes}

    def restore(self, node: str) -> None:
        """Send requests to a node again, at once."""
        self._drained.discard(node)
        self._ejected_until.pop(node, None)

    def eject(self, node: str, now: float) -> None:
        """Leave a node out of service until EJECT_SECONDS from now."""
        self._ejected_until[node] = now + EJECT_SECONDS

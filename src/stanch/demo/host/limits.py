"""Memory limits for nodes: by the kernel where it lets us, else by watching and killing.

`Limiter` is the seam. `choose_limiter` takes memory cgroups when they can be had and says in
words what it took and why.
"""

import contextlib
import os
from collections.abc import Sequence
from typing import Protocol

from .cgroup import Cgroup, CgroupError, CgroupTree, find_hierarchy, remove_leftovers
from .processes import kill_session, resident_bytes, session_pids

# Writes its own process id into a group's file, then becomes the command: the limit holds from
# the command's first instruction, and the process that is waited for is the command itself.
_JOIN = 'echo $$ > "$1" && shift && exec "$@"'


class Enclosure(Protocol):
    """The limit around one life of a node.

    Order of use: `wrap` the command, start it as the leader of a new session, `entered` with its
    process id, then `used_bytes` and `struck` at will, `kill` before that process is reaped,
    `remove` last. Nothing raises for a process that is gone.
    """

    def wrap(self, command: Sequence[str]) -> list[str]:
        """Return the command to run so that it starts inside."""

    def entered(self, session: int) -> None:
        """Note the process id of the node's first process, which is its session."""

    def used_bytes(self) -> int:
        """Return the memory in use, as the limit counts it."""

    def struck(self) -> bool:
        """Whether the limit was hit: some process was killed for it, or now must be."""

    def kill(self) -> None:
        """Kill every process inside; nothing when none has entered."""

    def remove(self) -> None:
        """Take the limit away."""


class Limiter(Protocol):
    """Makes limits. `by_kernel` tells whether the kernel itself does the killing."""

    by_kernel: bool
    description: str

    def enclose(self, name: str, limit_bytes: int) -> Enclosure:
        """Make a limit for one life of a node. OSError when it cannot be made."""

    def remove(self) -> None:
        """Take away everything this limiter made."""


class CgroupEnclosure:
    """A memory cgroup around a node."""

    def __init__(self, group: Cgroup) -> None:
        self._group = group
        self._session: int | None = None

    def wrap(self, command: Sequence[str]) -> list[str]:
        """See Enclosure."""
        return ["/bin/sh", "-c", _JOIN, "stanch-demo", str(self._group.procs_file), *command]

    def entered(self, session: int) -> None:
        """See Enclosure."""
        self._session = session

    def used_bytes(self) -> int:
        """See Enclosure: the group's working set."""
        return self._group.working_set_bytes()

    def struck(self) -> bool:
        """See Enclosure: the kernel counts its kills."""
        return self._group.oom_kills() > 0

    def kill(self) -> None:
        """See Enclosure."""
        self._group.kill()
        # The shell that is about to join the group is not in it yet.
        if self._session is not None:
            kill_session(self._session)

    def remove(self) -> None:
        """See Enclosure."""
        self._group.remove()


class WatchedEnclosure:
    """No kernel limit: the supervisor asks `struck` again and again, and kills."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._session: int | None = None

    def wrap(self, command: Sequence[str]) -> list[str]:
        """See Enclosure: nothing to enter."""
        return list(command)

    def entered(self, session: int) -> None:
        """See Enclosure."""
        self._session = session

    def used_bytes(self) -> int:
        """See Enclosure: the sum of resident memory."""
        if self._session is None:
            return 0
        return resident_bytes(session_pids(self._session))

    def struck(self) -> bool:
        """See Enclosure: more is in use than allowed."""
        return self.used_bytes() > self._limit_bytes

    def kill(self) -> None:
        """See Enclosure."""
        if self._session is not None:
            kill_session(self._session)

    def remove(self) -> None:
        """See Enclosure: there is nothing but the processes."""


class CgroupLimiter:
    """Limits by memory cgroups of this demo's own tree."""

    by_kernel = True

    def __init__(self, tree: CgroupTree) -> None:
        self._tree = tree
        self.description = f"memory cgroups (version {tree.version}), killed by the kernel"

    def enclose(self, name: str, limit_bytes: int) -> Enclosure:
        """See Limiter."""
        return CgroupEnclosure(self._tree.create(name, limit_bytes))

    def remove(self) -> None:
        """See Limiter."""
        self._tree.remove()


class WatchingLimiter:
    """Limits by a supervisor that kills."""

    by_kernel = False

    def __init__(self, why: str) -> None:
        self.description = f"watched and killed by the supervisor ({why})"

    def enclose(self, name: str, limit_bytes: int) -> Enclosure:
        """See Limiter."""
        return WatchedEnclosure(limit_bytes)

    def remove(self) -> None:
        """See Limiter: nothing outlives the processes."""


def choose_limiter() -> Limiter:
    """Return cgroups when this process may make them, else the watching limiter and why."""
    try:
        hierarchy = find_hierarchy()
        with contextlib.suppress(OSError):
            remove_leftovers(hierarchy)
        return CgroupLimiter(CgroupTree(hierarchy, os.getpid()))
    except CgroupError as problem:
        return WatchingLimiter(str(problem))

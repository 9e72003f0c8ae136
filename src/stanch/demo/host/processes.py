"""Processes by session, from /proc: each node is started as the leader of a session of its own."""

import contextlib
import os
import signal
import time
from pathlib import Path

KILL_SECONDS = 3.0
_PAUSE_SECONDS = 0.01
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def session_pids(session: int) -> list[int]:
    """Return the live processes whose session is `session`; zombies do not count."""
    pids = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        # A process may end while it is looked at, and its name may hold spaces and parentheses.
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[3]) == session:
                pids.append(int(directory.name))
    return pids


def resident_bytes(pids: list[int]) -> int:
    """Return the sum of the processes' resident memory; pages they share count for each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return total


def kill_session(session: int) -> None:
    """Send SIGKILL to every process of the session until none is left, for KILL_SECONDS at most.

    Call it while the session's first process is not yet reaped, so that its number cannot have
    become somebody else's. ValueError for a session that no process of ours can have begun:
    0 is that of the machine itself, and our own is not ours to kill.
    """
    if session <= 1 or session == os.getsid(0):
        raise ValueError(f"session {session} is not that of a node; nothing killed")
    deadline = time.monotonic() + KILL_SECONDS
    while (pids := session_pids(session)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_SECONDS)


def has_ended(pid: int) -> bool:
    """Whether a child has ended, without reaping it."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return ended is not None

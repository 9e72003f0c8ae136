"""A graceful end of one worker, asked for over the endpoint: `POST /debug/stanch/end?pid=N`.

Off unless the setting `recycle` says otherwise. A worker of gunicorn or uvicorn that gets SIGTERM
takes no more requests, finishes those that it has, and ends; its arbiter starts another. So only
a process of this run whose parent is such an arbiter can be asked: never the arbiter itself, a
server without one, or anything else. The question needs a header that no page of another site can
send, and GET does nothing.
"""

import contextlib
import os
import signal
from pathlib import Path

from stanch.agent.exchange import Answer, Request
from stanch.agent.relatives import Relatives

END = "/debug/stanch/end"
HEADER = "x-stanch-recycle"
_ARBITERS = (b"gunicorn", b"uvicorn")


def end_worker(request: Request, relatives: Relatives, *, allowed: bool) -> Answer:
    """Ask the worker that "pid=" names to end gracefully, and say so, or say why not."""
    if not allowed:
        return Answer.sentence(
            403, "ending workers is off; start the service with stanch run --recycle"
        )
    if request.method != "POST":
        return Answer.sentence(405, "ending a worker needs POST", {"Allow": "POST"})
    if request.headers.get(HEADER) != "1":
        return Answer.sentence(403, f"the header {HEADER}: 1 is missing")
    text = request.query.get("pid", "")
    pids = {os.getpid(), *relatives.pids()}
    if not (text.isascii() and text.isdigit() and int(text) in pids):
        known = ", ".join(map(str, sorted(pids)))
        return Answer.sentence(404, f"pid is {text[:20]!r}; this run has {known}")
    pid = int(text)
    refusal = _refusal(pid, pids)
    if refusal is not None:
        return Answer.sentence(409, refusal)
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.kill(pid, signal.SIGTERM)
    return Answer.json({"pid": pid, "asked": True})


def _refusal(pid: int, pids: set[int]) -> str | None:
    """Return why a process of the run must not be ended from here, None when it may be."""
    parent = _parent(pid)
    if parent is None:
        return f"process {pid} has just ended"
    if parent not in pids or not _is_arbiter(parent):
        return (
            f"process {pid} has no gunicorn or uvicorn above it that would start another; "
            "end it by what started it"
        )
    if any(_parent(other) == pid for other in pids):
        return f"process {pid} has processes of its own, which would lose it"
    return None


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return int(stat.rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _is_arbiter(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    names = {word.rpartition(b"/")[2] for word in words}
    return any(name in names for name in _ARBITERS) or any(
        word.startswith(b"gunicorn: master")
        for word in words  # as setproctitle has it
    )

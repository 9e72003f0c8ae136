"""From a pid to its agent, or to what /proc tells of a process without one.

The agent is found by its socket in the run directory that the process's own environment names, as
seen from the process's own root, so that it works into containers.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stanch.agent import rundir
from stanch.agent.breakdown import breakdown, to_json
from stanch.agent.memory import group_json
from stanch.cli.errors import CliError
from stanch.sampler.cgroup import group_account
from stanch.sampler.memory import process_memory

LISTEN_VARIABLE = "STANCH_LISTEN"


@dataclass(frozen=True, slots=True)
class Agent:
    """Where the agent of a process answers, and the pid it knows itself by.

    one_of_many: the process is not the first of its run, so that it alone is meant.
    """

    address: str
    pid: int
    one_of_many: bool


def agent_of(pid: int) -> Agent | None:
    """Find the agent of a process; None when it has none in sight. Raises CliError."""
    directory = Path(f"/proc/{pid}")
    if not directory.is_dir():
        raise CliError(f"there is no process {pid}; see ps, or name a URL", 2)
    environ = _environment(directory / "environ")
    own_pid = _pid_of_its_own(directory, pid)
    run = environ.get(rundir.RUN_VARIABLE)
    named = Path(run) if run else rundir.base_directory(environ) / str(own_pid)
    seen = _seen_from_here(named, directory)
    first = _first_pid(seen, environ)
    socket = seen / f"{own_pid}{rundir.SOCKET_SUFFIX}"
    if socket.is_socket():
        return Agent(f"unix:{socket}", own_pid, first not in (None, own_pid))
    listen = environ.get(LISTEN_VARIABLE, "")
    port = listen.rpartition(":")[2]
    if run and first == own_pid and port.isdigit():
        # The first process of a run listens at the address it was given, and there only.
        if int(port) == 0:
            raise CliError(f"process {pid} listens on a port that the system chose; name its URL")
        scheme = "https" if environ.get("STANCH_TLS_CERT") else "http"
        return Agent(f"{scheme}://{listen}", own_pid, False)
    return None


def _seen_from_here(path: Path, process: Path) -> Path:
    """Return a path of a process as this one sees it; `process` is its directory in /proc."""
    try:
        same_mounts = (process / "ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink()
        same = same_mounts and (process / "root").samefile("/")
    except OSError:
        same = True  # not ours to enter
    return path if same else process / "root" / path.relative_to("/")


def without_agent(pid: int) -> dict[str, Any]:
    """Return what /proc and the cgroup say, in the form of the agent's answer. Raises CliError."""
    account = process_memory(pid)
    if account is None:
        raise CliError(f"/proc/{pid}/status tells no memory; the process may have ended")
    name = _lines(Path(f"/proc/{pid}/comm"))
    described = {
        "pid": pid,
        "answered": True,
        "service": name[0] if name else "",
        "instance": "",
        "python": None,
        "sampling": False,
        **to_json(breakdown(account, None)),
    }
    return {"agent": False, "processes": [described], "cgroup": group_json(group_account(pid))}


def _environment(file: Path) -> Mapping[str, str]:
    """Read the environment that a process began with; empty when it is not ours to read."""
    try:
        entries = file.read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in entries)
    return {name: value for name, separator, value in pairs if separator}


def _pid_of_its_own(directory: Path, pid: int) -> int:
    """Return the pid that the process itself has, which in a container is another one."""
    for line in _lines(directory / "status"):
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return pid


def _first_pid(run: Path, environ: Mapping[str, str]) -> int | None:
    """Return the first process of a run: the one that has claimed it, or that began it."""
    try:
        name = (run / "first").readlink().name
    except OSError:
        name = environ.get(rundir.FIRST_VARIABLE, "")
    return int(name) if name.isascii() and name.isdigit() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []

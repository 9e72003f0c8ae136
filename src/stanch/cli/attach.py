"""`stanch attach PID [options]`: starts the agent in a process that runs already.

CPython 3.14 and later: sys.remote_exec has the process execute agent/attach_target.py, which
starts the agent and answers in a folder made for the two. Before 3.14 nothing of the kind is safe,
so the command only says so.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import stanch
from stanch.agent import attach_target
from stanch.cli.errors import CliError
from stanch.cli.run import add_settings, chosen_settings, resolved_settings

DEFAULT_WAIT_S = 30.0
LONGEST_WAIT_S = 3600.0
STARTS_WITHIN_S = 30.0
POLL_S = 0.02
LARGEST_ANSWER_BYTES = 1 << 16


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command; its options are those of `stanch run`."""
    parser = subparsers.add_parser(
        "attach",
        help="start the agent in a process that runs already (CPython 3.14 or later)",
        usage="stanch attach PID [options]",
        description="Start the agent in a running process of the same CPython, 3.14 or later. "
        "Children that it forks from then on have it too; those it has already do not.",
        epilog="Each option can also be set by its variable STANCH_NAME; the option wins.",
    )
    parser.add_argument("pid", metavar="PID", type=_pid, help="the process")
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=_wait,
        default=DEFAULT_WAIT_S,
        help="how long to wait for the process to run Python code in its main thread "
        f"(default: {DEFAULT_WAIT_S:.0f})",
    )
    add_settings(parser)
    parser.set_defaults(run=run)


def _pid(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is no process id; expected a positive number")
    return int(text)


def _wait(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) <= LONGEST_WAIT_S:
            return seconds
    raise argparse.ArgumentTypeError(
        f"{text!r} is no time to wait; expected seconds, at most {LONGEST_WAIT_S:.0f}"
    )


def run(arguments: argparse.Namespace) -> int:
    """Attach and say where the agent listens. Raises CliError when that cannot be."""
    remote_exec = getattr(sys, "remote_exec", None)
    if remote_exec is None:
        raise CliError(
            f"attaching needs CPython 3.14 or later, and this is {_version()}; "
            "restart the service with: stanch run -- COMMAND"
        )
    pid: int = arguments.pid
    settings = resolved_settings(chosen_settings(arguments), os.environ)
    if pid == os.getpid() or not Path(f"/proc/{pid}").is_dir():
        raise CliError(f"there is no process {pid} to attach to")
    request = json.dumps({"settings": settings, "home": str(Path(stanch.__file__).parent.parent)})
    script = Path(attach_target.__file__).read_text(encoding="utf-8")
    folder = _Folder(
        pid,
        lambda seen_there: {
            "claim": "",
            "request.json": request,
            "attach.py": f"{script}\n\nbegin({seen_there!r})\n",
        },
    )
    try:
        try:
            remote_exec(pid, f"{folder.seen_there}/attach.py")
        except (OSError, RuntimeError, ValueError) as error:
            raise CliError(_refusal(pid, error)) from None
        folder.is_known = True
        answer = _answer(folder, arguments.wait)
    finally:
        folder.close()
    if "error" in answer:
        raise CliError(f"no agent in process {pid}: {_printable(answer['error'])}")
    listen = _printable(answer.get("listen") or "")
    if listen and not listen.startswith("unix:"):
        listen = f"{'https' if 'tls_cert' in settings else 'http'}://{listen}"
    where = f"stanch watch {listen}" if listen else "without an endpoint; its stderr says why"
    print(f"stanch: the agent runs in process {pid}: {where}")
    return 0


def _printable(told: object) -> str:
    """Return what another process told, as one line that does nothing to a terminal."""
    return "".join(c if c.isprintable() else "?" for c in str(told))


def _version() -> str:
    return f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}"


class _Folder:
    """What `stanch attach` and the process share; see agent/attach_target.py for its files.

    The process may be another user's, who must not be able to make us touch other files: all goes
    by descriptors, no link is followed, and nothing is written once the folder is handed over.
    """

    def __init__(self, pid: int, files: Callable[[str], dict[str, str]]) -> None:
        """Make it with its files, a function of where the process finds it. Raises CliError."""
        self.pid = pid
        self.is_known = False  # to the process, which will look into it at some time
        self._withdrawn = False
        try:
            root = Path(f"/proc/{pid}/root")  # the process may be in another mount namespace
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            given = [os.fsdecode(entry[7:]) for entry in environ if entry.startswith(b"TMPDIR=/")]
            below = next((d for d in given if (root / d.lstrip("/")).is_dir()), "/tmp")
            # The descriptors outlive the process, and with it /proc/PID/root.
            self._above = os.open(root / below.lstrip("/"), os.O_PATH | os.O_DIRECTORY)
            made = tempfile.mkdtemp(prefix="stanch-attach-", dir=f"/proc/self/fd/{self._above}")
            self._name = Path(made).name
            self._folder = os.open(
                self._name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._above
            )
            self.seen_there = f"{below.rstrip('/')}/{self._name}"
            owner = _owner(pid)
            for name, text in files(self.seen_there).items():
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                with os.fdopen(os.open(name, flags, 0o600, dir_fd=self._folder), "wb") as file:
                    file.write(text.encode())
                    if owner[0] != os.geteuid():
                        os.fchown(file.fileno(), *owner)
            if owner[0] != os.geteuid():
                os.fchown(self._folder, *owner)
        except OSError as error:
            raise CliError(_refusal(pid, error)) from None

    def read(self) -> dict[str, Any] | None:
        """Return the answer, None while there is none."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            with os.fdopen(os.open("answer.json", flags, dir_fd=self._folder), "rb") as file:
                answer = json.loads(file.read(LARGEST_ANSWER_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            return {"error": f"its answer cannot be read: {error}"}
        return answer if isinstance(answer, dict) else {"error": "its answer is none"}

    def withdraw(self) -> bool:
        """Take the request back; False when the process has begun with it."""
        try:
            os.unlink("claim", dir_fd=self._folder)
        except OSError:
            return self._withdrawn
        self._withdrawn = True
        return True

    def close(self) -> None:
        """Remove the folder, or leave it to a process that will look into it later."""
        if self.is_known and self.withdraw() and _is_alive(self.pid):
            return
        with contextlib.suppress(OSError):
            for name in os.listdir(self._folder):  # noqa: PTH208 - of a descriptor
                os.unlink(name, dir_fd=self._folder)
            os.rmdir(self._name, dir_fd=self._above)


def _answer(folder: _Folder, wait_s: float) -> dict[str, Any]:
    """Wait for the answer. Raises CliError when the process ends or does not begin in time."""
    began_s = time.monotonic()
    while (answer := folder.read()) is None:
        if not _is_alive(folder.pid):
            raise CliError(f"process {folder.pid} ended before the agent had started")
        waited_s = time.monotonic() - began_s
        if waited_s > wait_s and folder.withdraw():
            raise CliError(
                f"process {folder.pid} ran no Python code in its main thread for {wait_s:g} s, so "
                "it stays without the agent; try again while it works, or with a longer --wait"
            )
        if waited_s > wait_s + STARTS_WITHIN_S:
            raise CliError(
                f"process {folder.pid} began to start the agent and has not said how that ended; "
                "its stderr may tell"
            )
        time.sleep(POLL_S)
    return answer


def _is_alive(pid: int) -> bool:
    try:
        # The name of the process, in parentheses, may hold any character.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] not in (b"Z", b"")
    except OSError:
        return False


def _refusal(pid: int, error: Exception) -> str:
    """Say why a process cannot be attached to, and what to do."""
    if isinstance(error, PermissionError):
        return (
            f"no permission to attach to process {pid}: run this as its own user or as root "
            "(in a container with CAP_SYS_PTRACE)"
        )
    if isinstance(error, FileNotFoundError | ProcessLookupError):
        return f"there is no process {pid} to attach to, or none with a place for files: {error}"
    message = str(error)
    instead = "restart it with: stanch run -- COMMAND"
    if "not enabled" in message:
        whose = f"process {pid}" if "remote process" in message else "this interpreter"
        return (
            f"remote debugging is disabled in {whose} (-X disable-remote-debug or "
            f"PYTHON_DISABLE_REMOTE_DEBUG); {instead}"
        )
    if "Can't send commands" in message:
        return f"{message}; use the stanch of that Python if it is 3.14 or later, else {instead}"
    return f"process {pid} is no CPython 3.14 or later to attach to ({message}); {instead}"


def _owner(pid: int) -> tuple[int, int]:
    """Return the effective user and group of a process."""
    found = dict.fromkeys(("Uid", "Gid"), 0)
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[1])
    return found["Uid"], found["Gid"]

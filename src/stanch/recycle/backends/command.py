"""A back end of commands: one for each step, with `{service}` and `{instance}` filled in.

No shell is used. A command that takes too long is killed with all that it started.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from stanch.recycle.backends.backend import RecycleError

_KILL_S = 5.0
_SAID_BYTES = 4096


@dataclass(frozen=True, slots=True)
class CommandBackend:
    """Runs commands; an empty one is a step that needs nothing."""

    end_command: tuple[str, ...]
    drain_command: tuple[str, ...] = ()
    restore_command: tuple[str, ...] = ()
    whole: bool = True
    drains: bool = True

    def check(self, service: str, instance: str, within_s: float) -> None:
        """See Backend: a command refuses when it is run."""

    def drain(self, service: str, instance: str, within_s: float) -> None:
        """See Backend."""
        run_command(self.drain_command, service, instance, within_s)

    def end(self, service: str, instance: str, within_s: float) -> None:
        """See Backend."""
        run_command(self.end_command, service, instance, within_s)

    def restore(self, service: str, instance: str, within_s: float) -> None:
        """See Backend."""
        run_command(self.restore_command, service, instance, within_s)


def systemd_backend(unit: str) -> CommandBackend:
    """Return the back end that restarts a systemd unit, such as "shop@{instance}.service"."""
    return CommandBackend(("systemctl", "restart", "--", unit))


def run_command(command: Sequence[str], service: str, instance: str, within_s: float) -> None:
    """Run a command to its end. Raises RecycleError when it fails, or takes longer."""
    if not command:
        return
    filled = [
        word.replace("{service}", service).replace("{instance}", instance) for word in command
    ]
    try:
        process = subprocess.Popen(
            filled,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise RecycleError(f"{filled[0]} cannot be run: {error.strerror}") from error
    try:
        said, _ = process.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # What it started may have left its session, and hold the pipe open.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_KILL_S)
        if process.stdout is not None:
            process.stdout.close()
        process.wait()
        raise RecycleError(
            f"{filled[0]} did not end within {within_s:g} s, and was killed"
        ) from None
    if process.returncode != 0:
        text = " ".join(said[-_SAID_BYTES:].decode(errors="replace").split())
        raise RecycleError(f"{filled[0]} ended with status {process.returncode}: {text[-300:]}")

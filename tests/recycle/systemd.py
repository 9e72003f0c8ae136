"""A real systemd of the tests' own: process 1 of a PID namespace, with its own /run and cgroup.

It needs root, and a kernel that lets root make namespaces. Nothing of this machine's own systemd,
if it has one, is touched: units lie in the private /run, and it knows no others, so they must have
no default dependencies; cgroups lie below one that is removed.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PROGRAM, SYSTEMCTL = Path("/lib/systemd/systemd"), Path("/usr/bin/systemctl")
TOOLS = ("unshare", "nsenter", "mount")
_BEGIN_S = 60.0
_BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /sys/fs/cgroup
{hierarchy}
mkdir -p /run/systemd/system
cp {units}/* /run/systemd/system/
export container=stanch SYSTEMD_UNIT_PATH=/run/systemd/system
exec {program} --system --unit=stanch-tests.target --log-target=console --show-status=no
"""
_UNIFIED = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
_NAMED = """mkdir /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd"""


class NoSystemdError(Exception):
    """It cannot be run here; the text says why."""


@dataclass(frozen=True)
class Systemd:
    """A running systemd. pid: as this machine counts it."""

    pid: int
    log: Path

    def command(self, *words: str) -> list[str]:
        """A command line that runs another where systemd is."""
        return ["nsenter", "-t", str(self.pid), "-m", "-p", "--", *words]

    def systemctl(self, *words: str) -> str:
        """Run systemctl; return what it says, with its status in front when that is not 0."""
        ended = subprocess.run(
            self.command(str(SYSTEMCTL), *words), capture_output=True, text=True, timeout=120
        )
        said = (ended.stdout + ended.stderr).strip()
        return said if ended.returncode == 0 else f"{ended.returncode}: {said}"

    def on_path(self, directory: Path) -> Path:
        """A directory with a `systemctl` that talks to this systemd."""
        directory.mkdir()
        shown = shlex.join(self.command(str(SYSTEMCTL)))
        tool = directory / "systemctl"
        tool.write_text(f'#!/bin/sh\nexec {shown} "$@"\n')
        tool.chmod(0o755)
        return directory


@contextlib.contextmanager
def systemd(directory: Path, units: Mapping[str, str]) -> Iterator[Systemd]:
    """Run systemd with these units, of which none is started, until the end of the block.

    Raises NoSystemdError where it cannot be run.
    """
    if os.geteuid() != 0:
        raise NoSystemdError("only root can run a systemd of its own")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    missing += [str(path) for path in (PROGRAM, SYSTEMCTL) if not path.exists()]
    if missing:
        raise NoSystemdError(f"there is no {', '.join(missing)}")
    lying = directory / "units"
    lying.mkdir()
    for name, text in ({"stanch-tests.target": "[Unit]\nAllowIsolate=yes\n"} | dict(units)).items():
        (lying / name).write_text(text)
    base, hierarchy = _hierarchy()
    log = directory / "systemd.log"
    with _cgroup(base) as cgroup, log.open("wb") as output:
        boot = _BOOT.format(hierarchy=hierarchy, units=shlex.quote(str(lying)), program=PROGRAM)
        # The shell joins the cgroup before its namespace begins, which makes it the root there.
        enter = f"echo $$ > {shlex.quote(str(cgroup / 'cgroup.procs'))} && exec "
        spaces = ["unshare", "--pid", "--fork", "--mount", "--mount-proc", "--uts", "--ipc"]
        spaces += ["--cgroup", "--kill-child", "--", "sh", "-c", boot]
        process = subprocess.Popen(
            ["sh", "-c", enter + shlex.join(spaces)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield _when_up(process, log)
        finally:
            process.kill()
            process.wait(30)


def _when_up(process: "subprocess.Popen[bytes]", log: Path) -> Systemd:
    deadline = time.monotonic() + _BEGIN_S
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while True:
        with contextlib.suppress(OSError, IndexError, subprocess.TimeoutExpired):
            running = Systemd(int(children.read_text().split()[0]), log)
            if running.systemctl("is-active", "stanch-tests.target") == "active":
                return running
        said = log.read_text(errors="replace").strip()[-500:]
        if process.poll() is not None:
            raise NoSystemdError(f"systemd ended at once: {said}")
        if time.monotonic() > deadline:
            raise NoSystemdError(f"systemd was not up after {_BEGIN_S:g} s: {said}")
        time.sleep(0.1)


def _hierarchy() -> tuple[Path, str]:
    """Where a cgroup for systemd is made, and how it is mounted."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return Path("/sys/fs/cgroup"), _UNIFIED
    if Path("/sys/fs/cgroup/systemd/cgroup.procs").exists():
        return Path("/sys/fs/cgroup/systemd"), _NAMED
    raise NoSystemdError("there is no cgroup hierarchy for systemd")


@contextlib.contextmanager
def _cgroup(base: Path) -> Iterator[Path]:
    cgroup = base / f"stanch-test-{os.getpid()}"
    try:
        cgroup.mkdir()
    except OSError as error:
        raise NoSystemdError(f"no cgroup can be made: {error}") from error
    try:
        yield cgroup
    finally:
        _remove(cgroup)


def _remove(cgroup: Path) -> None:
    """End what is left in a cgroup, and remove it with all below it."""
    deadline = time.monotonic() + _BEGIN_S
    below = sorted(cgroup.glob("**/"), key=lambda path: -len(path.parts))
    for each in [*below, cgroup]:
        while each.is_dir():
            for pid in map(int, (each / "cgroup.procs").read_text().split()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                each.rmdir()
            assert time.monotonic() < deadline, f"{each} cannot be removed"
            time.sleep(0.02)

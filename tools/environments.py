"""Makes the virtual environments that the Makefile works in, one per CPython, from nothing.

    python3 tools/environments.py main   the environment of this interpreter; prints its directory
    python3 tools/environments.py all    one for each supported CPython found here; prints each
    python3 tools/environments.py bench  one of this interpreter with the profilers that
                                         benchmarks/peers compares; prints its directory

Each has the pinned packages of requirements/ and the Stanch wheel, built with its C core; what is
up to date is left alone. Standard library only. Exit code 1 with one sentence when something is
missing.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
PACKAGE_FILES = ("pyproject.toml", "setup.py", "README.md", "src")
PROBE = """
import json, os, sys, sysconfig
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "gil": not sysconfig.get_config_var("Py_GIL_DISABLED"),
    "cpython": sys.implementation.name == "cpython",
    "header": os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
    "executable": sys.executable,
}))
"""


class MissingError(Exception):
    """Something that the set-up needs is not there; the message says how to get it."""


def probe(command: str) -> dict[str, object] | None:
    """Ask an interpreter what it is; None when it does not run."""
    try:
        answer = subprocess.run(
            [command, "-c", PROBE], capture_output=True, text=True, timeout=30, check=True
        )
        return dict(json.loads(answer.stdout))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def interpreters() -> dict[str, str]:
    """Return {version: executable} for every supported CPython found, this one first."""
    found: dict[str, str] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in SUPPORTED:
        candidates = [sys.executable, f"python{version}"]
        candidates += [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"))]
        for candidate in candidates:
            facts = probe(candidate)
            if facts and facts["version"] == version and facts["cpython"] and facts["gil"]:
                if not facts["header"]:
                    print(f"stanch: {candidate} has no Python.h; left out", file=sys.stderr)
                    continue
                found[version] = str(facts["executable"])
                break
    return found


def check_tools() -> None:
    """Raise MissingError with the remedy for the first thing that is not there."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    if running not in SUPPORTED:
        raise MissingError(
            f"this is Python {running}, Stanch builds with {', '.join(SUPPORTED)}; "
            "name one: make PYTHON=python3.11 ..."
        )
    compiler = os.environ.get("CC", "cc").split()[0]
    if shutil.which(compiler) is None:
        raise MissingError(f"no C compiler ({compiler}); on Debian: apt-get install gcc")
    if running not in interpreters():
        raise MissingError(
            f"no C headers for Python {running}; on Debian: apt-get install python3-dev"
        )
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        raise MissingError(
            "this Python has no venv; on Debian: apt-get install python3-venv"
        ) from None


def run(*command: str | Path) -> None:
    """Run a command with its output on stderr, so that stdout stays ours."""
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr, cwd=ROOT)


def digest(*paths: Path) -> str:
    """Hash the contents of files and of all tracked kinds of files below folders."""
    content = hashlib.sha256()
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and file.suffix not in (".pyc", ".so"):
                content.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return content.hexdigest()


def up_to_date(stamp: Path, wanted: str) -> bool:
    """Return whether the stamp says that this was done for the same inputs."""
    return stamp.exists() and stamp.read_text() == wanted


def make_environment(name: str, executable: str, requirements: Path) -> Path:
    """Make or renew the environment build/env-NAME and return its directory."""
    environment = BUILD / f"env-{name}"
    python = environment / "bin" / "python"
    packages = digest(requirements)
    if not up_to_date(environment / ".packages", packages):
        print(f"stanch: making the environment {environment.name}", file=sys.stderr)
        shutil.rmtree(environment, ignore_errors=True)
        run(executable, "-m", "venv", environment)
        run(python, "-m", "pip", "install", "-q", "--require-hashes", "-r", requirements)
        (environment / ".packages").write_text(packages)
    package = digest(*(ROOT / name for name in PACKAGE_FILES)) + os.environ.get("STANCH_WERROR", "")
    if not up_to_date(environment / ".wheel", package):
        print(f"stanch: building the wheel for {environment.name}", file=sys.stderr)
        wheels = BUILD / f"wheel-{name}"
        shutil.rmtree(wheels, ignore_errors=True)
        shutil.rmtree(BUILD / "lib", ignore_errors=True)  # setuptools keeps deleted files there
        for leftover in BUILD.glob("lib.*"):
            shutil.rmtree(leftover)
        pip = (python, "-m", "pip")
        run(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", wheels, ".")
        run(*pip, "install", "-q", "--no-deps", "--force-reinstall", *wheels.glob("*.whl"))
        (environment / ".wheel").write_text(package)
    return environment


def main() -> int:
    """Make what was asked for and print the directories."""
    try:
        check_tools()
        running = f"{sys.version_info.major}.{sys.version_info.minor}"
        found = interpreters()
        if sys.argv[1:] == ["bench"]:
            requirements = ROOT / "requirements/bench.txt"
            print(make_environment(f"bench-{running}", found[running], requirements))
            return 0
        versions = [running]
        if sys.argv[1:] == ["all"]:
            versions += [version for version in found if version != running]
            for version in SUPPORTED:
                if version not in found:
                    print(f"stanch: no CPython {version} here; left out", file=sys.stderr)
        for version in versions:
            name = "dev" if version == running else "test"
            print(make_environment(version, found[version], ROOT / f"requirements/{name}.txt"))
    except MissingError as missing:
        print(f"stanch: {missing}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"stanch: this failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Builds the C core with the address and undefined behaviour sanitizers and runs hosts with it.

    python tools/sanitize.py [PYTEST_ARGUMENT...]

To be run by the Python of an environment that tools/environments.py made. The interpreter itself
is a normal one, so the sanitizer's library is preloaded, and leaks, of which every interpreter has
some at its end, are not looked for. What a sanitizer finds ends the process with a report, so the
test of that host fails. Without arguments these are the tests that put hosts under load.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
TARGET = ROOT / "build" / f"sanitize-{VERSION}"
SANITIZERS = "address,undefined"
TESTS = tuple(
    f"tests/staysup/test_{topic}.py" for topic in ("forks", "frames", "neighbours", "threads")
)


def preloaded() -> str | None:
    """Return the path of the address sanitizer's library; None where the compiler has none."""
    compiler = os.environ.get("CC", "cc").split()[0]
    answer = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    path = Path(answer.stdout.strip())
    return str(path.resolve()) if path.is_absolute() and path.exists() else None


def build() -> None:
    """Build the package with its instrumented core into a directory of its own."""
    shutil.rmtree(TARGET, ignore_errors=True)
    shutil.copytree(
        ROOT / "src" / "stanch",
        TARGET / "stanch",
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
    )
    temporary = ROOT / "build" / f"sanitize-objects-{VERSION}"
    subprocess.run(
        [
            *(sys.executable, "setup.py", "-q", "build_ext", "--force"),
            *("--build-lib", str(TARGET), "--build-temp", str(temporary)),
        ],
        check=True,
        cwd=ROOT,
        env={**os.environ, "STANCH_SANITIZE": SANITIZERS},
    )


def main() -> int:
    """Build, run the tests and return pytest's exit code."""
    library = preloaded()
    if library is None:
        print("stanch: no address sanitizer with this compiler; left out", file=sys.stderr)
        return 0
    build()
    environ = {
        **os.environ,
        "LD_PRELOAD": library,
        "PYTHONPATH": str(TARGET),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:handle_segv=0:handle_abort=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    found = subprocess.run(
        [sys.executable, "-c", "from stanch.sampler import _core; print(_core.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        env=environ,
    ).stdout
    if not found.startswith(str(TARGET)):
        print(f"stanch: the sanitized core is not the one that is used: {found}", file=sys.stderr)
        return 1
    tests = sys.argv[1:] or [*TESTS]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *tests], cwd=ROOT, env=environ
    ).returncode


if __name__ == "__main__":
    sys.exit(main())

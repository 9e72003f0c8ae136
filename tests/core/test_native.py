"""Builds the parts of the core that know no Python with sanitizers: unit tests, fuzzer, stress.

More rounds by hand: pytest tests/core/test_native.py --longer 100
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "src/stanch/sampler/core"
NATIVE = Path(__file__).parent / "native"
SOURCES = [CORE / f"{topic}.c" for topic in ("idmap", "intern", "sampling", "table")]
FUZZ_OPERATIONS = 20_000
STRESS_ROUNDS = 60

Build = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Give a function that builds a program with a sanitizer, or skips the test."""
    directory = tmp_path_factory.mktemp("native")

    def built(program: str, sanitizer: str) -> Path:
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            pytest.skip("no C compiler here")
        target = directory / f"{program}-{sanitizer}"
        flags = ["-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", f"-fsanitize={sanitizer}"]
        flags += ["-fno-sanitize-recover=all", f"-I{CORE}"]
        sources = [*SOURCES, NATIVE / f"{program}.c"]
        answer = subprocess.run(
            [compiler, *flags, *sources, "-o", target, "-lm", "-lpthread"],
            capture_output=True,
            text=True,
        )
        if "cannot find -l" in answer.stderr or "unsupported option" in answer.stderr:
            pytest.skip(f"no {sanitizer} sanitizer with this compiler")
        assert answer.returncode == 0, answer.stderr
        return target

    return built


def run(program: Path, *arguments: object) -> str:
    """Run a sanitized program to its end and return what it says."""
    answer = subprocess.run(
        ["setarch", "-R", str(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=3600,
        env={
            **os.environ,
            "ASAN_OPTIONS": "detect_leaks=0",
            # A forked child does not have the threads it was born beside.
            "TSAN_OPTIONS": "report_thread_leaks=0:die_after_fork=0",
        },
    )
    assert answer.returncode == 0, answer.stderr[-4000:]
    return answer.stdout


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_core_without_python(build: Build, tmp_path: Path, sanitizer: str) -> None:
    """Map, gaps, table, fork and threads hold up under the address and thread sanitizers."""
    assert run(build("table_test", sanitizer), tmp_path / "unit.stanch") == "all well\n"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_table_agrees_with_a_simple_model(
    build: Build, tmp_path: Path, seed: int, longer: int
) -> None:
    """Random series of operations, forks, moves and restarts leave the table as the model says."""
    program = build("table_fuzz", "address,undefined")
    operations = FUZZ_OPERATIONS * longer
    said = run(program, tmp_path / "fuzz.stanch", seed * longer, operations)
    assert said == f"{operations} operations\n"


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_everything_at_once(build: Build, tmp_path: Path, sanitizer: str, longer: int) -> None:
    """Hooks, readers, moves, restarts and forks at the same time break no lock rule."""
    program = build("table_stress", sanitizer)
    assert run(program, tmp_path / "stress.stanch", STRESS_ROUNDS * longer) == "all well\n"

"""Builds the parts of the core that know no Python with sanitizers, and runs their unit tests."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "src/stanch/sampler/core"
UNIT_TESTS = Path(__file__).parent / "native/table_test.c"
SOURCES = [CORE / f"{topic}.c" for topic in ("idmap", "intern", "sampling", "table")]


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_core_without_python(tmp_path: Path, sanitizer: str) -> None:
    """Map, gaps, table, fork and threads hold up under the address and thread sanitizers."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler here")
    program = tmp_path / "table_test"
    flags = ["-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", f"-fsanitize={sanitizer}"]
    flags.append("-fno-sanitize-recover=all")
    build = subprocess.run(
        [compiler, *flags, f"-I{CORE}", *SOURCES, UNIT_TESTS, "-o", program, "-lm", "-lpthread"],
        capture_output=True,
        text=True,
    )
    if "cannot find -l" in build.stderr or "unsupported option" in build.stderr:
        pytest.skip(f"no {sanitizer} sanitizer with this compiler")
    assert build.returncode == 0, build.stderr
    answer = subprocess.run(
        ["setarch", "-R", program, tmp_path / "unit.stanch"],
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **os.environ,
            "ASAN_OPTIONS": "detect_leaks=0",
            # A forked child does not have the threads it was born beside.
            "TSAN_OPTIONS": "report_thread_leaks=0",
        },
    )
    assert answer.returncode == 0, answer.stderr[-4000:]
    assert answer.stdout == "all well\n"

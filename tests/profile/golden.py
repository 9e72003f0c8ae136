"""The golden profiles: what net/http/pprof of three Go versions answered; see tests/golden/gen."""

import shutil
import subprocess
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent.parent / "golden"
PROFILES = sorted(GOLDEN.glob("go*/*.pb.gz"))


def golden_id(path: Path) -> str:
    """Name a golden profile in test output, such as "go1.26-heap"."""
    return f"{path.parent.name}-{path.name.removesuffix('.pb.gz')}"


def go_pprof(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Go's own pprof, or skip the test where there is no Go."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go toolchain on the PATH, so no `go tool pprof` to compare with")
    command = [go, "tool", "pprof", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

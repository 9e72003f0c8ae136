"""What all tests share: `--update`, which rewrites the expected texts of golden tests, `--longer`,
which lets fuzzers, stress and kill loops run on, real memory cgroups and a small disk.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from stanch.demo.host.cgroup import CgroupError, CgroupTree, find_hierarchy

# On a busy machine an example may take long; how long never decides a test.
settings.register_profile(
    "stanch", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("stanch")

# A shell that starts the tests in the background lets them ignore Ctrl-C, and so would each process
# that a test starts and then interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    parser.addoption(
        "--update", action="store_true", help="rewrite the expected outputs of golden tests"
    )
    parser.addoption(
        "--longer",
        type=int,
        default=1,
        metavar="TIMES",
        help="let fuzzers, stress and kill loops run so many times as long",
    )


@pytest.fixture(scope="session")
def longer(request: pytest.FixtureRequest) -> int:
    """How many times as long as usual a search for rare failures runs."""
    return int(request.config.getoption("--longer"))


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    """Whether expected outputs are to be rewritten rather than compared."""
    return bool(request.config.getoption("--update"))


@pytest.fixture
def cgroup_tree() -> Iterator[CgroupTree]:
    """Real memory cgroups; skips with the reason where the kernel does not permit them."""
    try:
        tree = CgroupTree(find_hierarchy(), os.getpid())
    except CgroupError as problem:
        pytest.skip(f"no memory cgroup can be made here: {problem}")
    yield tree
    tree.remove()


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own with room for some MiB: 8, or what the test's parameter says."""
    size_mib = getattr(request, "param", 8)
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(directory)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount here: {mounted.stderr.strip()}")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)

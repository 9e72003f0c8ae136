"""What the tests of this folder share: a place for hosts, and the host's own C library."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.staysup.hosts import Place, a_place, build_neighbour


@pytest.fixture
def place() -> Iterator[Place]:
    """Give a place for the programs and runs of one test."""
    with a_place() as made:
        yield made


@pytest.fixture(scope="session")
def neighbour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the host's C library, to be loaded by ctypes."""
    return build_neighbour(tmp_path_factory.mktemp("neighbour"))

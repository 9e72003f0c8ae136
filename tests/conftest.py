"""What all tests share: `--update`, which rewrites the expected texts of golden tests."""

import pytest
from hypothesis import HealthCheck, settings

# On a busy machine an example may take long; how long never decides a test.
settings.register_profile(
    "stanch", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("stanch")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--update", action="store_true", help="rewrite the expected outputs of golden tests"
    )


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    """Whether expected outputs are to be rewritten rather than compared."""
    return bool(request.config.getoption("--update"))

"""What all tests share: one thread (ten times faster on small tensors), no denormals, a seed, and --long."""

import pytest
import torch

torch.set_num_threads(1)
torch.set_flush_denormal(True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="tests/faults in its long form (make faults)")


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether faults are tried in their full number."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)

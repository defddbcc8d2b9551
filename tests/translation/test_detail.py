"""A change is carried to a larger image with all of its detail; the translator does so where the model file says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from tests.tiny import TINY
from unit.domains import Domain, PerDomain
from unit.model.networks import build_autoencoders
from unit.translation import detail
from unit.translation.detail import carry_change, scaled_to
from unit.translation.model_file import NATIVE, load_model, model_bytes
from unit.translation.translator import Translator, set_best_detail

A, B = Domain
SIZES = [(90, 61), (33, 130)]


def image(height: int, width: int, count: int = 1) -> Tensor:
    """Blobs of some pixels."""
    coarse = torch.rand(count, 3, height // 3, width // 3, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    return functional.interpolate(coarse, (height, width), mode="bilinear")


@pytest.mark.parametrize("size", SIZES)
def test_no_change_leaves_the_image_as_it_is(size: tuple[int, int]) -> None:
    x = image(*size, count=2)
    small = scaled_to(x, 16)
    assert min(small.shape[2:]) == 16
    assert torch.allclose(carry_change(x, small, small), x, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_a_change_of_colours_is_that_of_the_large_image(size: tuple[int, int]) -> None:
    matrix = torch.tensor([[0.5, 0.2, 0.0], [0.0, 0.4, 0.1], [-0.3, 0.0, 0.6]])

    def changed(x: Tensor) -> Tensor:
        return torch.einsum("ij,bjhw->bihw", matrix, x) + torch.tensor([0.1, -0.2, 0.05])[:, None, None]

    x = image(*size)
    small = scaled_to(x, 30)
    assert (carry_change(x, small, changed(small)) - changed(x)).abs().mean() < 0.01
    assert (x - changed(x)).abs().mean() > 0.1


def test_texture_that_the_small_image_lacks_is_kept() -> None:
    """Without the ridge towards the identity it would be blurred away."""
    checkers = 0.3 * (torch.arange(64)[:, None] + torch.arange(80)).remainder(2).mul(2).sub(1).expand(1, 3, 64, 80)
    plain = torch.full((1, 3, 8, 10), 0.1)
    assert torch.allclose(carry_change(checkers + 0.1, plain, plain - 0.4), checkers - 0.3, atol=1e-4)


def test_a_changes_edge_is_the_images_and_has_no_halo() -> None:
    """One half gets brighter, the other darker; the edge lies inside a pixel of the small image."""
    x = torch.where(torch.arange(128) < 67, -0.5, 0.5).expand(1, 3, 96, 128).contiguous()
    small = scaled_to(x, 12)
    out = carry_change(x, small, small * 1.6)
    assert (out - 1.6 * x).abs().max() < 0.02


@pytest.mark.parametrize("size", SIZES)
def test_the_result_does_not_depend_on_the_strips(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    x = image(*size)
    small = scaled_to(x, 16)
    target = small.flip(1) * 0.7
    whole = carry_change(x, small, target)
    reference = functional.interpolate(detail.local_change(small, target), size, mode="bilinear")
    expected = x + (reference[:, :9].unflatten(1, (3, 3)) * x[:, None]).sum(2) + reference[:, 9:]
    assert torch.allclose(whole, expected.clamp(-1, 1), atol=1e-5)
    monkeypatch.setattr(detail, "_STRIP", 7)
    assert torch.allclose(carry_change(x, small, target), whole, atol=1e-6)


def translator(detail: str, best: PerDomain[str] = NATIVE) -> Translator:
    torch.manual_seed(0)
    networks = build_autoencoders(replace(TINY.model, initialization="kaiming"))
    return Translator(networks, TINY, PerDomain("a", "b"), 3, "cpu", "fp32", detail=detail, best_detail=best)  # type: ignore[arg-type]


def test_a_translator_carries_changes_to_images_well_over_the_trained_size() -> None:
    native, guided, trained = translator("native"), translator("guided"), TINY.data.load_size
    x = image(trained + 3, trained + 20)
    assert torch.equal(guided.translate(x, A), native.translate(x, A))
    x = image(2 * trained + 1, 3 * trained)
    small = scaled_to(x, trained)
    expected = carry_change(x, small, native.translate(small, A, 4, strength=0.6))
    assert torch.equal(guided.translate(x, A, 4, strength=0.6), expected)
    assert not torch.equal(native.translate(x, A, 4, strength=0.6), expected)


def test_auto_takes_what_the_model_file_says_of_each_direction(tmp_path: Path) -> None:
    translator("auto", PerDomain("native", "guided")).save(tmp_path / "model.safetensors")
    loaded = Translator.load(tmp_path / "model.safetensors", "cpu", "fp32")
    assert loaded.best_detail == PerDomain("native", "guided")
    x = image(3 * TINY.data.load_size, 3 * TINY.data.load_size)
    for source, other in ((A, "native"), (B, "guided")):
        assert torch.equal(loaded.translate(x, source), translator(other).translate(x, source))


def test_a_model_file_without_the_measurement_is_native(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    translator("guided").save(file)
    assert b"detail" not in file.read_bytes()
    assert Translator.load(file).best_detail == NATIVE
    file.write_bytes(model_bytes(*load_model(file), PerDomain("unknown", "guided")))
    assert Translator.load(file).best_detail == PerDomain("native", "guided")


def test_the_measurement_is_kept_in_the_file_and_changes_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    set_best_detail(file, PerDomain("guided", "native"))
    assert not file.exists()
    translator("auto").save(file)
    before = load_file(file)
    set_best_detail(file, PerDomain("guided", "native"))
    assert Translator.load(file).best_detail == PerDomain("guided", "native")
    after = load_file(file)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert load_model(file)[1:] == (TINY, PerDomain("a", "b"), 3)
    set_best_detail(file, NATIVE)
    assert b"detail" not in file.read_bytes()

"""Strips give what the whole image gives, and need a fraction of its memory."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.tiny import tiny
from unit.domains import Domain, PerDomain
from unit.errors import UserError
from unit.model.networks import build_autoencoders
from unit.translation import strips
from unit.translation.translator import Translator

A, B = Domain
MODELS = [
    {"normalization": n, "downsampling": d, "upsampling": u, "downsamples": k}
    for n, (d, u), k in product(
        ("group", "instance"), (("strided", "nearest"), ("blurred", "bilinear"), ("strided", "transposed")), (1, 2, 3)
    )
]


def translator(tile: int | None, precision: str = "fp32", **model: object) -> Translator:
    config = tiny(model={"initialization": "kaiming", "residual_blocks": 2, **model})
    torch.manual_seed(0)
    return Translator(build_autoencoders(config.model), config, PerDomain("a", "b"), 0, "cpu", precision, tile)


def image(height: int, width: int, count: int = 1) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("model", MODELS)
def test_strips_equal_the_whole_image(model: dict[str, object]) -> None:
    networks = translator(None, **model).networks.double()
    for height, width, strip in ((48, 72, 16), (120, 24, 8), (8, 104, 1), (48, 48, 1000)):
        x = image(height, width).double()
        with torch.inference_mode():
            z = networks.encoder({A: x})[A]
            y = networks.generator({A: z}, [(A, B)])[A, B]
            code = strips.encode_in_strips(networks, x, A, strip)
            assert torch.allclose(code, z, rtol=0, atol=1e-11)
            assert torch.allclose(strips.decode_in_strips(networks, code, B, strip), y, rtol=0, atol=1e-11)


@pytest.mark.parametrize("size", [(97, 61), (33, 130), (5, 64), (1, 1)])
def test_every_pixel_of_images_of_odd_sizes_is_the_same_to_a_level(size: tuple[int, int]) -> None:
    x = image(*size, count=2)
    whole, tiled = (translator(tile) for tile in (None, 16))
    for run in (lambda t: t.translate(x, A), lambda t: t.translate(x, A, seed=3), lambda t: t.reconstruct(x, B)):
        assert (run(whole) - run(tiled)).abs().max() <= 1 / 255


@pytest.mark.parametrize("model", MODELS[:6])
@pytest.mark.parametrize("size", [(97, 61), (50, 131)])
def test_in_bf16_too_strips_differ_from_the_whole_image_by_at_most_a_level(
    size: tuple[int, int], model: dict[str, object]
) -> None:
    """Both normalize by the same bits; kaiming's random weights amplify one rounded otherwise to tens of levels."""
    x, exact = image(*size, count=2), translator(None, **model)
    whole, tiled = (translator(tile, "bf16", **model).translate(x, A) for tile in (None, 24))
    assert (whole - tiled).abs().max() <= 1 / 255
    assert 0 < (tiled - exact.translate(x, A)).abs().mean() < 0.05


@pytest.mark.parametrize("model", [m for m in MODELS if m["downsamples"] == 1 and m["normalization"] == "group"])
def test_the_halo_is_needed(monkeypatch: pytest.MonkeyPatch, model: dict[str, object]) -> None:
    """With two rows less, the strips' edges show."""
    monkeypatch.setattr(strips, "_HALO", 1)
    whole, tiled = (translator(tile, **model) for tile in (None, 8))
    x = image(64, 40)
    assert (whole.translate(x, A) - tiled.translate(x, A)).abs().max() > 2 / 255


def test_large_images_alone_are_computed_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(
        "unit.translation.translator.encode_in_strips",
        lambda networks, x, domain, strip: calls.append(strip) or strips.encode_in_strips(networks, x, domain, strip),
    )
    automatic = translator("auto")  # type: ignore[arg-type]
    automatic.translate(image(64, 64), A)
    assert not calls
    monkeypatch.setattr("unit.translation.translator._LARGE", 100_000)
    automatic.translate(image(64, 64, 3), A)
    assert len(calls) == 3


def test_strips_fit_where_the_whole_image_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, tiled = translator(None, channels=64), translator(64, channels=64)
    pixels = 7680 * 4320
    assert tiled.bytes_needed(pixels) < 0.3 * whole.bytes_needed(pixels)
    monkeypatch.setattr("unit.translation.translator.available_memory", lambda: whole.bytes_needed(pixels) // 2)
    tiled.require_memory(1, 4320, 7680)
    with pytest.raises(UserError, match="out of memory on cpu for 7680x4320 pixels"):
        whole.require_memory(1, 4320, 7680)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's peak memory")
def test_the_estimate_is_above_the_peak_and_the_peak_far_below_the_whole_images() -> None:
    """Of 4 megapixels through networks of a quarter of the paper's width, each in a fresh process."""
    peaks = {tile: _peak(tile) for tile in ("64", "None")}
    whole, tiled = (translator(tile, channels=16) for tile in (None, 64))
    assert peaks["64"] < peaks["None"] / 2
    assert peaks["64"] < tiled.bytes_needed(2048 * 2048)
    assert peaks["None"] < 1.2 * whole.bytes_needed(2048 * 2048)


def _peak(tile: str) -> int:
    """Return the bytes that a translation adds to its process's peak memory."""
    code = f"""
import torch
from tests.translation.test_strips import A, image, translator
from unit.devices import peak_memory
torch.set_num_threads(1)
t, cpu = translator({tile}, channels=16), torch.device("cpu")
t.translate(image(64, 64), A)
before = peak_memory(cpu)
t.translate(image(2048, 2048), A)
print(peak_memory(cpu) - before)
"""
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)

"""Codes that hold the image's own pixels: new networks are the identity, and only generators change the pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.tiny import tiny
from unit.domains import Domain, PerDomain
from unit.model.layers import PIXEL_SCALE, clamp_straight_through
from unit.model.networks import TRANSLATIONS, Autoencoders, build_autoencoders
from unit.translation.translator import Translator

A, B = Domain


def networks(downsamples: int = 2, normalization: str = "group") -> Autoencoders:
    torch.manual_seed(0)
    model = {"pixel_skip": True, "downsamples": downsamples, "normalization": normalization, "residual_blocks": 2}
    return build_autoencoders(tiny(model={**model, "initialization": "kaiming", "upsampling": "nearest"}).model)


def image(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def changed(autoencoders: Autoencoders) -> Autoencoders:
    """Networks that are no longer the identity."""
    for parameter in autoencoders.generator.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    return autoencoders


@pytest.mark.parametrize("downsamples", [1, 2, 3])
@pytest.mark.parametrize("autocast", [False, True])
def test_new_networks_return_their_input_to_the_last_bits_also_in_bf16(downsamples: int, autocast: bool) -> None:
    autoencoders, x = networks(downsamples), image()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        mu = autoencoders.encoder({A: x, B: x.flip(0)})
        translations = autoencoders.generator(mu, TRANSLATIONS)
    assert torch.equal(translations[A, B], x)
    assert torch.equal(translations[B, A], x.flip(0))


def test_encoders_and_shared_blocks_leave_the_pixels_alone() -> None:
    autoencoders, x = networks(), image()
    for parameter in autoencoders.encoder.parameters():
        torch.nn.init.normal_(parameter)
    mu = autoencoders.encoder({B: x})[B]
    pixels = functional.pixel_unshuffle(x, 4)
    assert torch.equal(mu[:, :48], PIXEL_SCALE * pixels)
    assert mu.shape[1:] == autoencoders.code_shape(16, 24) == (autoencoders.feature_channels[-1], 4, 6)
    shared = autoencoders.generator.shared(mu)
    assert torch.equal(shared[:, :48], mu[:, :48])
    assert not torch.allclose(shared[:, 48:], mu[:, 48:])


def test_features_have_the_channels_and_strides_that_are_stated() -> None:
    autoencoders = networks()
    features = autoencoders.encoder.features({A: image()})[A]
    assert [f.shape[1] for f in features] == list(autoencoders.feature_channels)
    assert [16 // f.shape[2] for f in features] == list(autoencoders.feature_strides) == [4, 4]


def test_gain_and_offset_by_hand() -> None:
    """With a gain of -½ and an offset of ¼ for red, whatever the features, red is x/2 + ¼; the rest stays."""
    autoencoders, x = networks(), image()
    head = autoencoders.generator.private["b"][-1]
    head.gain_and_offset.bias.data[0], head.gain_and_offset.bias.data[3] = -0.5, 0.25
    y = autoencoders.generator(autoencoders.encoder({A: x}), TRANSLATIONS[:1])[A, B]
    assert torch.allclose(y[:, 0], x[:, 0] / 2 + 0.25, atol=1e-6)
    assert torch.equal(y[:, 1:], x[:, 1:])


def test_the_clamp_is_exact_and_passes_gradients_of_values_beyond() -> None:
    x = torch.tensor([-3.0, -1.0, 0.3, 1.0, 1.5], requires_grad=True)
    y = clamp_straight_through(x)
    y.mul(torch.arange(5.0)).sum().backward()
    assert y.tolist() == x.clamp(-1, 1).tolist()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 2, 3, 4]


def test_images_of_any_size_and_strips_equal_the_whole() -> None:
    config = tiny(model={"pixel_skip": True, "normalization": "group", "initialization": "kaiming"})
    for size in ((97, 61), (5, 64), (1, 1)):
        x = torch.rand(1, 3, *size) * 2 - 1
        for precision in ("fp32", "bf16"):
            torch.manual_seed(0)
            autoencoders = changed(build_autoencoders(config.model))
            names, tiles = PerDomain("a", "b"), (None, 16)
            whole, tiled = (Translator(autoencoders, config, names, 0, "cpu", precision, tile) for tile in tiles)
            y = whole.translate(x, A)
            assert y.shape == x.shape
            assert not torch.allclose(y, x, atol=0.05)
            assert (y - tiled.translate(x, A)).abs().max() <= 1 / 255

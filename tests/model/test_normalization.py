"""Normalization layers against their formulas in double precision, for each memory layout of inputs and gradients."""

from itertools import product

import pytest
import torch
from torch import Tensor

from unit.config import ModelConfig
from unit.domains import Domain, PerDomain
from unit.model.layers import normalization
from unit.model.networks import RECONSTRUCTIONS, TRANSLATIONS, build_autoencoders, build_discriminators

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def by_formula(x: Tensor, kind: str) -> Tensor:
    """Return (x − mean) / √(variance + 1e-5), for each channel of each image or for groups of channels."""
    groups = x.shape[1] if kind == "instance" else 8
    parts = x.reshape(len(x), groups, -1)
    normalized = (parts - parts.mean(2, keepdim=True)) / (parts.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return normalized.reshape(x.shape)


@pytest.mark.parametrize("kind", ["instance", "group"])
@pytest.mark.parametrize(("height", "width"), [(6, 6), (5, 9), (9, 5)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bf16_inference_equals_the_formula_and_each_image_alone(
    kind: str, height: int, width: int, layout: torch.memory_format
) -> None:
    x = (3 + torch.randn(2, 16, height, width)).bfloat16().contiguous(memory_format=layout)
    norm = normalization(kind, 16)
    with torch.inference_mode():
        y = norm(x)
        assert torch.equal(y, torch.cat([norm(image) for image in x.split(1)]))
    exact = by_formula(x.double().contiguous(), kind)
    assert y.dtype is torch.bfloat16
    assert torch.allclose(y.double(), exact, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("kind", ["instance", "group"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("dtype", "band"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize(("given", "returned"), list(product(LAYOUTS, LAYOUTS)))
def test_values_and_gradients_equal_the_formula(
    kind: str, batch: int, dtype: torch.dtype, band: float, given: torch.memory_format, returned: torch.memory_format
) -> None:
    x = torch.randn(batch, 16, 6, 6).to(dtype).contiguous(memory_format=given).requires_grad_()
    back = torch.randn(batch, 16, 6, 6).to(dtype).contiguous(memory_format=returned)
    exact = x.detach().double().contiguous().requires_grad_()
    for tensor, norm in ((x, normalization(kind, 16).to(dtype)), (exact, lambda x: by_formula(x, kind))):
        y = norm(tensor)
        y.backward(back.to(y.dtype).clone(memory_format=torch.preserve_format))
    assert x.grad is not None
    assert exact.grad is not None
    assert float((x.grad.double() - exact.grad).norm() / exact.grad.norm()) < band


@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
@pytest.mark.parametrize("kind", ["instance", "group"])
def test_the_gradient_of_a_batch_is_the_mean_of_its_images_gradients(kind: str, upsampling: str) -> None:
    """With torch's own instance normalization, a batch of one image had another gradient than a larger one."""
    torch.set_default_dtype(torch.float64)
    try:
        config = ModelConfig(channels=4, normalization=kind, upsampling=upsampling)  # type: ignore[arg-type]
        networks, discriminators = build_autoencoders(config), build_discriminators(config)
        networks.to(memory_format=torch.channels_last)
        images = PerDomain.of(lambda _: torch.randn(3, 3, 16, 16).contiguous(memory_format=torch.channels_last))
    finally:
        torch.set_default_dtype(torch.float32)

    def gradient(part: slice) -> Tensor:
        networks.zero_grad()
        mu = networks.encoder({i: images[i][part] for i in Domain})
        x = networks.generator(mu, RECONSTRUCTIONS + TRANSLATIONS)
        logits = discriminators(PerDomain.of(lambda i: x[i.other, i]))
        terms = [(x[i, i] - images[i][part]).abs().mean() for i in Domain]
        torch.stack(terms + [scale.square().mean() for i in Domain for scale in logits[i]]).sum().backward()
        return torch.cat([p.grad.flatten() for p in networks.parameters() if p.grad is not None])

    batch = gradient(slice(None))
    mean = torch.stack([gradient(slice(k, k + 1)) for k in range(3)]).mean(0)
    assert float((batch - mean).norm() / batch.norm()) < 1e-12

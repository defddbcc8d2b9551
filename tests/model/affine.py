"""Affine "networks", for which the objective can be worked out by hand.

E_a(x) = x + 1, E_b(x) = x + 10, G_a(z) = 2z, G_b(z) = 3z, D_a(x) = x, D_b(x) = -x; x_a = 1 and x_b = 2 in every pixel;
the code's noise is 1 and 2 for x_a and x_b, and 4 and 8 for their translations:

    μ_a = 2, μ_b = 12;  z_a = 3, z_b = 14
    x_a→a = 2·3 = 6         x_b→b = 3·14 = 42
    x_a→b = 3·3 = 9         x_b→a = 2·14 = 28
    μ of x_a→b = E_b(9) = 19;  μ of x_b→a = E_a(28) = 29
    x_a→b→a = 2·(19 + 4) = 46   x_b→a→b = 3·(29 + 8) = 111
"""

import torch
from torch import Tensor, nn

from unit.config import LossConfig, ModelConfig
from unit.domains import Domain, PerDomain
from unit.model.networks import Autoencoders, Discriminators, Encoder, Generator
from unit.model.noise import Noise
from unit.model.objective import Microbatch, forward_pass
from unit.seeds import seed_for

SHAPE = (2, 3, 4, 4)
WEIGHTS = LossConfig(lambda0=7, lambda1=2, lambda2=3, lambda3=5, lambda4=11, adversarial="least_squares")
SMALL = ModelConfig(
    channels=4, residual_blocks=2, initialization="kaiming", discriminator_layers=2, discriminator_scales=2
)
"""Real networks, small ones."""


class Affine(nn.Module):
    """scale · x + shift"""

    def __init__(self, scale: float, shift: float = 0.0) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift


class LinearDiscriminator(nn.Module):
    """scale · x for each pixel as a patch, and one layer before it."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def features(self, x: Tensor) -> list[list[Tensor]]:
        return [[10 * self.scale * x, self.scale * x]]

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.scale * x]


def constant(a: float, b: float) -> PerDomain[Tensor]:
    return PerDomain(torch.full(SHAPE, float(a)), torch.full(SHAPE, float(b)))


X = constant(1, 2)
NOISE = Noise(code=constant(1, 2), cycle=constant(4, 8))


def autoencoders() -> Autoencoders:
    encoder = Encoder(PerDomain(nn.Sequential(Affine(1, 1)), nn.Sequential(Affine(1, 10))), nn.Identity())
    return Autoencoders(encoder, Generator(nn.Identity(), PerDomain(Affine(2), Affine(3))), widths=[3], strides=[1])


def discriminators() -> Discriminators:
    return Discriminators(PerDomain(LinearDiscriminator(1), LinearDiscriminator(-1)))


def make_microbatch(step: int = 1, images: PerDomain[Tensor] = X) -> Microbatch:
    """Images and the pass of X, as the update of this step sees them."""
    out = forward_pass(autoencoders(), X, NOISE)
    return Microbatch(images, seeds, NOISE, out, step=step, d_real=images, d_fake=out.translation.swapped())


def seeds(purpose: str, domain: Domain, count: int = 4) -> list[int]:
    return [seed_for(3, purpose, domain, index) for index in range(count)]


def value(tensor: Tensor) -> float:
    """The value that all elements have."""
    assert (tensor == tensor.flatten()[0]).all()
    return tensor.flatten()[0].item()


def values(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


def make_images(batch: int = 4) -> PerDomain[Tensor]:
    return PerDomain.of(lambda _: torch.rand(batch, 3, 16, 24) * 2 - 1)

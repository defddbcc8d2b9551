"""The loss functions: tensors in, a scalar out. Each docstring states its reduction.

All are means over the images of a batch, and none mixes images, so the mean over microbatches is the batch's loss.
All compute in fp32 or better, also from bf16 inputs and under autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from unit.model.precision import fp32

Logits: TypeAlias = list[Tensor]
"""A discriminator's logits (B, 1, h, w) at each scale; above 0 means real."""


def kl(mu: Tensor) -> Tensor:
    """KL(N(μ, I) ‖ N(0, I)) up to a factor: the mean of μ² over all elements (the ½ and the sum are absorbed in λ)."""
    return fp32(mu).square().mean()


def gaussian_kl(mu: Tensor, sd: Tensor) -> Tensor:
    """2 · KL(N(μ, σ²) ‖ N(0, I)) = Σ (μ² + σ² − log σ² − 1), summed over an image's code, mean over images."""
    mu, variance = fp32(mu), fp32(sd).square()
    return (mu.square() + variance - variance.log() - 1).flatten(1).sum(1).mean()


def squared_distance(one: Tensor, other: Tensor) -> Tensor:
    """‖one − other‖², summed over an image's elements, mean over images."""
    return (fp32(one) - fp32(other)).square().flatten(1).sum(1).mean()


def class_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """−log softmax(logits)[label] of logits (B, classes) and labels (B,); mean over images, which weights multiply."""
    losses = functional.cross_entropy(fp32(logits), labels, reduction="none")
    return (losses if weights is None else losses * weights).mean()


def l1(image: Tensor, target: Tensor) -> Tensor:
    """−log of a Laplacian likelihood up to constants: the mean of |image − target| over all elements."""
    return (fp32(image) - fp32(target)).abs().mean()


def cross_entropy(logits: Logits, real: bool) -> Tensor:
    """−log σ(logit) for real, −log(1 − σ(logit)) for fake: L_GAN of the paper (equation 4).

    Asking for real is the non-saturating form for the generator. Mean over patches, summed over scales.
    """
    return _sum_of_scales(
        lambda x: functional.binary_cross_entropy_with_logits(x, torch.full_like(x, float(real))), logits
    )


def least_squares(logits: Logits, real: bool) -> Tensor:
    """(logit − 1)² for real, logit² for fake (LSGAN, Mao et al. 2017); mean over patches, summed over scales."""
    return _sum_of_scales(lambda x: (x - float(real)).square().mean(), logits)


def hinge(logits: Logits, real: bool) -> Tensor:
    """max(0, 1 ∓ logit) (Lim and Ye 2017), for the discriminator; mean over patches, summed over scales."""
    return _sum_of_scales(lambda x: (1 - x if real else 1 + x).relu().mean(), logits)


def relativistic(higher: Logits, lower: Logits) -> Tensor:
    """log(1 + exp(lower − higher)), paired patch by patch; mean over patches, summed over scales.

    `higher` is real for the discriminator, fake for the generator (Jolicoeur-Martineau 2019, paired as in R3GAN, Huang
    et al. 2024).
    """
    return _sum_of_scales(lambda low, high: functional.softplus(low - high).mean(), lower, higher)


class Adversarial(NamedTuple):
    """One form of L_GAN: what D and what G minimize, given D's logits on real images and on translations."""

    d_loss: Callable[[Logits, Logits], Tensor]
    """of (real, fake)"""
    g_loss: Callable[[Logits, Logits], Tensor]
    """of (real, fake); `real` is empty unless `needs_real`"""
    needs_real: bool = False
    """g_loss compares with real logits"""


ADVERSARIAL = {
    "bce": Adversarial(
        lambda real, fake: cross_entropy(real, True) + cross_entropy(fake, False),
        lambda _, fake: cross_entropy(fake, True),
    ),
    "least_squares": Adversarial(
        lambda real, fake: least_squares(real, True) + least_squares(fake, False),
        lambda _, fake: least_squares(fake, True),
    ),
    "hinge": Adversarial(
        lambda real, fake: hinge(real, True) + hinge(fake, False),
        lambda _, fake: _sum_of_scales(lambda x: -x.mean(), fake),
    ),
    "relativistic": Adversarial(relativistic, lambda real, fake: relativistic(fake, real), needs_real=True),
}
"""By the values of `loss.adversarial`."""


def _sum_of_scales(loss: Callable[..., Tensor], *logits: Logits) -> Tensor:
    return torch.stack([loss(*map(fp32, scale)) for scale in zip(*logits, strict=True)]).sum()

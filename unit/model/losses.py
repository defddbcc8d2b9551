"""The loss functions: tensors in, a scalar out. A weight means nothing without its reduction, so each says its own.

All are means over the items of a batch, and none mixes items: the mean of two halves' losses is the whole batch's. All
compute in fp32 or better, also of half precision and under autocast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def kl(mu: Tensor) -> Tensor:
    """KL(N(μ, I) ‖ N(0, I)) up to a factor: the mean of μ² over all elements (the ½ and the sum are absorbed in λ)."""
    return _at_least_fp32(mu).square().mean()


def l1(image: Tensor, target: Tensor) -> Tensor:
    """−log of a Laplacian likelihood up to constants: the mean of |image − target| over all elements."""
    return (_at_least_fp32(image) - _at_least_fp32(target)).abs().mean()


def adversarial(logits: Sequence[Tensor], real: bool, kind: str) -> Tensor:
    """How far logits (a tensor (B, 1, h, w) for each scale) are from saying `real` or fake, summed over the scales.

    Args:
        logits: above 0 means real.
        real: the verdict asked for.
        kind: "bce": −log σ(logit) or −log(1 − σ(logit)), averaged over patches (equation 4 of the paper; asking for
            real is the non-saturating form for the generator); "least_squares": (logit − 1)² or logit², averaged over
            patches (LSGAN, Mao et al. 2017); "hinge": max(0, 1 − logit) or max(0, 1 + logit), averaged over patches
            (Lim and Ye 2017), and "linear" the same without max and 1, which is hinge's form for the generator.
    """
    return torch.stack([_verdict(_at_least_fp32(scale), real, kind) for scale in logits]).sum()


def _verdict(logits: Tensor, real: bool, kind: str) -> Tensor:
    if kind == "bce":
        return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
    if kind == "least_squares":
        return (logits - float(real)).square().mean()
    away = -logits if real else logits
    return (1 + away).relu().mean() if kind == "hinge" else away.mean()


def relativistic(higher: Sequence[Tensor], lower: Sequence[Tensor]) -> Tensor:
    """log(1 + exp(lower − higher)) of logits (B, 1, h, w) at one place, averaged over patches, summed over the scales.

    With real images `higher` for the discriminator, with translations for the generator (Jolicoeur-Martineau 2019,
    paired as in R3GAN, Huang et al. 2024).
    """
    pairs = zip(higher, lower, strict=True)
    return torch.stack([functional.softplus(_at_least_fp32(b) - _at_least_fp32(a)).mean() for a, b in pairs]).sum()


def r1(images: Tensor, logits: Sequence[Tensor]) -> Tensor:
    """½‖∇D(x)‖² of images (B, 3, H, W), from which logits (B, 1, h, w) were computed in fp32 (Mescheder et al. 2018).

    The square is summed over pixels and averaged over the batch. The gradient is that of the sum over a scale's
    patches, and its square is divided by their number: as far as no two patches see one pixel, that is the mean of each
    patch's own ‖∇‖², so that it does not grow with the image. Summed over the scales.
    """
    penalties = []
    for scale in logits:
        (gradient,) = torch.autograd.grad(scale.sum(), images, create_graph=True)
        penalties.append(gradient.square().sum() / (2 * len(images) * scale[0].numel()))
    return torch.stack(penalties).sum()


def feature_matching(features: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """|difference| of the channels' means over each item's (C, h, w), averaged over items, channels and layers.

    Means, because what is translated and what is real show different scenes (as in FUNIT, Liu et al. 2019).
    """
    pairs = zip(features, targets, strict=True)
    return torch.stack([l1(_at_least_fp32(x).mean((2, 3)), _at_least_fp32(y).mean((2, 3))) for x, y in pairs]).mean()


def low_frequency(image: Tensor, target: Tensor) -> Tensor:
    """The mean of |image − target| after averaging squares so that some 32 are left along the short side (UVCGANv2)."""
    difference = _at_least_fp32(image) - _at_least_fp32(target)
    square = max(1, min(difference.shape[2:]) // 32)
    return functional.avg_pool2d(difference, square, ceil_mode=True).abs().mean()


def patch_nce(queries: Sequence[Tensor], keys: Sequence[Tensor], temperature: float = 0.07) -> Tensor:
    """−log softmax of each query's own key among all keys of its image, averaged over patches, items and layers.

    Args:
        queries: for each layer unit vectors (B, P, C) of P patches of a translation.
        keys: those of the image, at the same places; no gradient goes to them.
        temperature: of the softmax of their products (CUT, Park et al. 2020, equation 3).
    """
    losses = []
    for query, key in zip(queries, keys, strict=True):
        with torch.autocast(query.device.type, enabled=False):
            similar = _at_least_fp32(query) @ _at_least_fp32(key.detach()).transpose(1, 2) / temperature
        losses.append((similar.logsumexp(2) - similar.diagonal(dim1=1, dim2=2)).mean())
    return torch.stack(losses).mean()


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))

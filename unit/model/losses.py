"""The loss functions: tensors in, a scalar out. A weight means nothing without its reduction, so each says its own."""

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
            patches (LSGAN, Mao et al. 2017).
    """
    return torch.stack([_verdict(_at_least_fp32(scale), float(real), kind) for scale in logits]).sum()


def _verdict(logits: Tensor, target: float, kind: str) -> Tensor:
    if kind == "bce":
        return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
    return (logits - target).square().mean()


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))

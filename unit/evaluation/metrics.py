"""How near pictures are to what they should be: figures for aligned pairs."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

PAIRED = ("psnr", "ssim")
"""The figures that need aligned pairs; higher is better."""


def paired_figures(images: Tensor, targets: Tensor) -> dict[str, float]:
    """Mean PSNR (dB) and mean SSIM over image pairs (n, 3, H, W) in [-1, 1], as their 8-bit files would give them.

    SSIM is the usual one (Wang et al. 2004): Gaussian window of 11 pixels, σ 1.5, so H and W must be at least 11.
    """
    images, targets = _as_written(images), _as_written(targets)
    psnr = peak_signal_noise_ratio(images, targets, data_range=255.0, dim=(1, 2, 3), reduction="elementwise_mean")
    ssim = structural_similarity_index_measure(images, targets, data_range=255.0)
    assert isinstance(ssim, Tensor)
    return {"psnr": float(psnr), "ssim": float(ssim)}


def _as_written(images: Tensor) -> Tensor:
    """0 to 255 in whole numbers."""
    return torch.round((images.float().clamp(-1, 1) + 1) * 127.5)

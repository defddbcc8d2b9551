"""How good images are: metrics of pairs, of sets, and of what a translation keeps of its input.

Images are (n, 3, H, W) in [-1, 1]; features are (n, d). Metrics of images are those of
8-bit files.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

SSIM_WINDOW = 11
"""Pixels of the window, and so the least side of an image."""
_HIGHEST_PSNR = 100.0
_THUMBNAIL = 8


def written(images: Tensor) -> Tensor:
    """The images as an 8-bit file gives them back, in [-1, 1]."""
    return _levels(images) / 127.5 - 1


def thumbnails(images: Tensor) -> Tensor:
    """(n, 3, 8, 8): the means of 8 x 8 regions, layout and colours without detail."""
    return functional.adaptive_avg_pool2d(images.float(), _THUMBNAIL)


# Metrics of aligned pairs.


def psnr(images: Tensor, targets: Tensor) -> float:
    """Mean over images of the PSNR in dB; equal images count as 100."""
    each = peak_signal_noise_ratio(_levels(images), _levels(targets), data_range=255.0, dim=(1, 2, 3), reduction="none")
    return float(each.clamp(max=_HIGHEST_PSNR).mean())


def ssim(images: Tensor, targets: Tensor) -> float:
    """Mean SSIM (Wang et al. 2004): Gaussian window of 11 pixels, σ 1.5; H and W must be at least 11."""
    mean = structural_similarity_index_measure(_levels(images), _levels(targets), data_range=255.0)
    assert isinstance(mean, Tensor)
    return float(mean)


def pixel_accuracy(images: Tensor, targets: Tensor) -> float:
    """The share of pixels with each channel within 16 of 255 of the target's; mean over images (the paper, maps)."""
    right = ((_levels(images) - _levels(targets)).abs() <= 16).all(dim=1)
    return float(right.float().mean())


def feature_distance(features: Tensor, targets: Tensor) -> float:
    """Mean over pairs of the cosine distance, 1 - cos: 0 for the same features, 1 for unrelated ones."""
    return float(1 - functional.cosine_similarity(features.double(), targets.double()).mean())


# What a translation does to its input.


def identity_distance(translations: Tensor, inputs: Tensor) -> float:
    """Mean |translation - input|, in levels of 255: 0 when nothing is done."""
    return float((_levels(translations) - _levels(inputs)).abs().mean())


def colour_correlation(translations: Tensor, inputs: Tensor) -> float:
    """Pearson's correlation of the 8 x 8 thumbnails, mean over images: 1 kept, 0 unrelated, -1 inverted.

    Each channel is taken relative to its own mean, so that a tint of the whole image changes nothing. An image that
    is plain all over correlates with nothing: 0.
    """
    x, y = (thumbnails(written(images)).double().flatten(2) for images in (translations, inputs))
    x, y = ((z - z.mean(dim=2, keepdim=True)).flatten(1) for z in (x, y))
    norms = x.norm(dim=1) * y.norm(dim=1)
    return float(torch.where(norms > 1e-9, (x * y).sum(dim=1) / norms.clamp(min=1e-9), 0.0).mean())


def spread(translations: Tensor, inputs: Tensor) -> float:
    """How different translations are among themselves, relative to the inputs: 1 as different, 0 all the same.

    The root mean square distance between the 8 x 8 thumbnails of two different images, over that of the inputs.
    Inputs that are all the same have no spread to keep: 1. Needs two of each.
    """
    x, y = (thumbnails(images).double().flatten(1).var(dim=0).sum() for images in (translations, inputs))
    return float((x / y).sqrt()) if y > 1e-12 else 1.0


# Distances of two sets by their features.


def kid(features: Tensor, reference: Tensor) -> float:
    """1000 times the kernel distance (Bińkowski et al. 2018), as its unbiased estimate from all images of both sets.

    That is MMD² with the kernel (x·y / d + 1)³, an image with itself left out; its mean is 0, and its value may be
    negative, when both sets are of one kind, however small they are. Each needs two images.
    """
    ones = [torch.ones(1, len(z), dtype=torch.float64) for z in (features, reference)]
    return float(_weighted_kid(features, reference, *ones))


def kid_interval(
    features: Tensor, reference: Tensor, resamples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Where `level` of the KIDs lie when the images of both sets are drawn again with replacement, from a fixed seed.

    An image drawn twice is not compared with itself, which would pull the resampled sets apart.
    """
    generator = torch.Generator().manual_seed(0)
    weights = [_times_drawn(len(z), resamples, generator) for z in (features, reference)]
    kids = _weighted_kid(features, reference, *weights)
    tail = (1 - level) / 2
    low, high = kids.nanquantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _times_drawn(count: int, resamples: int, generator: torch.Generator) -> Tensor:
    """(resamples, count): how often each of `count` comes up in as many draws."""
    drawn = torch.randint(count, (resamples, count), generator=generator)
    ones = torch.ones(resamples, count, dtype=torch.float64)
    return torch.zeros_like(ones).scatter_add_(1, drawn, ones)


def _weighted_kid(features: Tensor, reference: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """(r,): the KIDs with image k of the sets counted p[:, k] and q[:, k] times."""
    x, y = features.double(), reference.double()
    between = (p @ _kernel(x, y) * q).sum(dim=1) / (p.sum(dim=1) * q.sum(dim=1))
    return 1000 * (_within(x, p) + _within(y, q) - 2 * between)


def _within(x: Tensor, weights: Tensor) -> Tensor:
    """(r,): the mean kernel over pairs of different images."""
    total = (weights @ _kernel(x, x).fill_diagonal_(0) * weights).sum(dim=1)
    return total / (weights.sum(dim=1) ** 2 - (weights**2).sum(dim=1))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def fid(features: Tensor, reference: Tensor) -> float:
    """The Fréchet distance (Heusel et al. 2017) of the normal distributions with the sets' means and covariances.

    Biased upwards, the more the fewer the images: below some multiple of d it says more about their number than about
    them. tr √(Σ₁Σ₂) is the sum of the singular values of R₁R₂ᵀ, where RᵀR = Σ, which needs no root of a matrix.
    """
    x, y = features.double(), reference.double()
    means = (x.mean(dim=0) - y.mean(dim=0)).square().sum()
    traces = x.var(dim=0).sum() + y.var(dim=0).sum()
    shared = torch.linalg.svdvals(_root_of_covariance(x) @ _root_of_covariance(y).T).sum()
    return float(means + traces - 2 * shared)


def _root_of_covariance(x: Tensor) -> Tensor:
    centred = (x - x.mean(dim=0)) / (len(x) - 1) ** 0.5
    root: Tensor = torch.linalg.qr(centred, mode="r").R
    return root


def _levels(images: Tensor) -> Tensor:
    """0 to 255 in whole numbers."""
    return torch.round((images.float().clamp(-1, 1) + 1) * 127.5)

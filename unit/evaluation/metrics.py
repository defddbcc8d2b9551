"""Image metrics: of aligned pairs, of a translation against its input, and distances between sets of features.

Images are (n, 3, H, W) in [-1, 1], and are rounded to 8 bits first, as in a file; features are (n, d). Metrics that
return a tensor have one value per image, (n,). The names under which they are stored are in
`unit.evaluation.metric_table`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image.kid import poly_kernel

SSIM_WINDOW = 11
"""Side of SSIM's window in pixels; smaller images have no SSIM."""


def quantize(images: Tensor) -> Tensor:
    """Round to the 256 levels of an 8-bit file; still in [-1, 1]."""
    return _levels(images) / 127.5 - 1


def thumbnails(images: Tensor) -> Tensor:
    """Average to (n, 3, 8, 8): layout and colours without detail."""
    return functional.adaptive_avg_pool2d(images.float(), 8)


# Aligned pairs


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """PSNR in dB; identical images count as 100."""
    levels = _levels(images), _levels(targets)
    values = peak_signal_noise_ratio(*levels, data_range=255.0, dim=(1, 2, 3), reduction="none")
    return values.clamp(max=100)


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004): Gaussian window of 11 pixels, σ 1.5; H and W must be at least 11."""
    levels = _levels(images), _levels(targets)
    values = structural_similarity_index_measure(*levels, data_range=255.0, reduction="none")
    assert isinstance(values, Tensor)
    return values


def pixel_accuracy(images: Tensor, targets: Tensor) -> Tensor:
    """Fraction of pixels whose channels are all within 16 of 255 of the target (Liu et al. 2017, maps)."""
    return ((_levels(images) - _levels(targets)).abs() <= 16).all(dim=1).float().mean(dim=(1, 2))


def feature_distance(features: Tensor, targets: Tensor) -> Tensor:
    """Cosine distance: 0 for equal directions, 1 for unrelated ones."""
    return 1 - functional.cosine_similarity(features.double(), targets.double())


# A translation against its input


def identity_distance(translations: Tensor, inputs: Tensor) -> Tensor:
    """Mean |translation - input| in levels of 255: 0 for the identity."""
    return (_levels(translations) - _levels(inputs)).abs().mean(dim=(1, 2, 3))


def color_correlation(translations: Tensor, inputs: Tensor) -> Tensor:
    """Pearson correlation of the thumbnails: 1 preserved, 0 unrelated, -1 inverted colours.

    Each channel is centered on its own mean, so a global tint changes nothing. A constant image counts as 0.
    """
    x, y = (thumbnails(quantize(images)).double().flatten(2) for images in (translations, inputs))
    x, y = ((z - z.mean(dim=2, keepdim=True)).flatten(1) for z in (x, y))
    norms = x.norm(dim=1) * y.norm(dim=1)
    return torch.where(norms > 1e-9, (x * y).sum(dim=1) / norms.clamp(min=1e-9), 0.0)


def diversity(translations: Tensor, inputs: Tensor) -> float:
    """RMS distance between the thumbnails of two different translations, over that of the inputs.

    1: as diverse as the inputs; 0: all the same (mode collapse). Inputs that are all the same give 1. Needs two images
    of each.
    """
    x, y = (thumbnails(images).double().flatten(1).var(dim=0).sum() for images in (translations, inputs))
    return float((x / y).sqrt()) if y > 1e-12 else 1.0


# Sharpness


def laplacian_energy(images: Tensor) -> Tensor:
    """Mean square of the discrete Laplacian, in levels of 255: how much fine detail there is.

    The sum of the four neighbours less four times the pixel, in each channel; the border is repeated outwards.
    """
    x = functional.pad(_levels(images), (1, 1, 1, 1), mode="replicate")
    neighbours = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
    return (neighbours - 4 * x[..., 1:-1, 1:-1]).square().mean(dim=(1, 2, 3))


def sharpness(energies: Tensor, reference: Tensor) -> float | None:
    """Ratio of the mean Laplacian energies of two sets: 1 as sharp as the reference, below blurred, above noisy.

    None if a set is empty, or if the reference has no detail at all.
    """
    if not len(energies) or not reference.any():
        return None
    return float(energies.double().mean() / reference.double().mean())


# Distances between two sets of features


def kid(features: Tensor, reference: Tensor) -> float:
    """1000 × the Kernel Inception Distance (Bińkowski et al. 2018), estimated without bias from all images.

    MMD² with the kernel (x·y / d + 1)³, leaving out each image's comparison with itself. Unbiased for sets of any size,
    and hence sometimes negative when both come from one distribution. Each set needs two images.
    """
    ones = [torch.ones(1, len(z), dtype=torch.float64) for z in (features, reference)]
    return float(_weighted_kid(features, reference, *ones))


def kid_interval(features: Tensor, reference: Tensor, resamples: int = 1000, level: float = 0.95) -> list[float]:
    """Bootstrap interval of `kid`: resamples both sets with replacement, from a fixed seed.

    An image drawn twice is not compared with itself, which would pull the resampled sets apart.
    """
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randint(len(z), (resamples, len(z)), generator=generator) for z in (features, reference)]
    occurrences = [torch.stack([row.bincount(minlength=len(row)) for row in draw]).double() for draw in draws]
    kids = _weighted_kid(features, reference, *occurrences)
    tail = (1 - level) / 2
    return kids.nanquantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()


def _weighted_kid(features: Tensor, reference: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """(r,): KIDs in which image k of the two sets counts p[:, k] and q[:, k] times."""
    x, y = features.double(), reference.double()
    between = (p @ poly_kernel(x, y) * q).sum(dim=1) / (p.sum(dim=1) * q.sum(dim=1))
    return 1000 * (_mean_kernel_within(x, p) + _mean_kernel_within(y, q) - 2 * between)


def _mean_kernel_within(x: Tensor, weights: Tensor) -> Tensor:
    """(r,): the mean kernel over pairs of different images of one set."""
    total = (weights @ poly_kernel(x, x).fill_diagonal_(0) * weights).sum(dim=1)
    return total / (weights.sum(dim=1) ** 2 - (weights**2).sum(dim=1))


def fid(features: Tensor, reference: Tensor) -> float:
    """Fréchet distance (Heusel et al. 2017) between normal distributions fitted to the two sets.

    Biased upwards, the more the fewer the images. tr √(Σ₁Σ₂) is the sum of the singular values of R₁R₂ᵀ with RᵀR = Σ,
    which avoids a matrix square root.
    """
    x, y = features.double(), reference.double()
    means = (x.mean(dim=0) - y.mean(dim=0)).square().sum()
    traces = x.var(dim=0).sum() + y.var(dim=0).sum()
    shared = torch.linalg.svdvals(_covariance_root(x) @ _covariance_root(y).T).sum()
    return float(means + traces - 2 * shared)


def _covariance_root(x: Tensor) -> Tensor:
    root: Tensor = torch.linalg.qr((x - x.mean(dim=0)) / (len(x) - 1) ** 0.5, mode="r").R
    return root


def _levels(images: Tensor) -> Tensor:
    """Integers from 0 to 255, as floats."""
    return torch.round((images.float().clamp(-1, 1) + 1) * 127.5)

"""Carrying a translation's change to a larger original, so that thorough changes and full detail go together.

A model changes structures of the size that it was trained on. So it translates the image at that scale, and the guided
filter (He, Sun and Tang 2013) tells how colours change around each pixel: target ≈ A·source + b, by least squares.
A (3×3) and b vary slowly, so at full size, where they apply to the original, its edges and texture stay sharp.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_RADIUS = 2
"""Of the windows, in pixels of the trained scale. With 1, colours bleed; larger ones mix the changes of neighbours."""
_EPSILON = 1e-3
"""Variance, of images in [-1, 1], below which a window is too plain to tell A, which then is the identity: what is
plain at the trained scale may be texture at full size, and is kept."""
_STRIP = 64
"""Rows of the original to compute at once."""


def scaled_to(images: Tensor, short_side: int) -> Tensor:
    """Scale (B, 3, H, W) in [-1, 1] to a short side of so many pixels."""
    height, width = images.shape[2:]
    size = [max(1, round(side * short_side / min(height, width))) for side in (height, width)]
    return functional.interpolate(images, size, mode="bicubic", antialias=True).clamp(-1, 1)


def carry_change(images: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Change images as `source` was changed into `target`.

    Args:
        images: (B, 3, H, W) in [-1, 1].
        source: the same at a smaller scale, (B, 3, h, w).
        target: its translation, (B, 3, h, w).

    Returns:
        (B, 3, H, W) in [-1, 1].
    """
    height, width = images.shape[2:]
    coefficients = local_change(source, target)
    rows = coefficients.shape[2]
    coefficients = functional.interpolate(coefficients, (rows, width), mode="bilinear")
    out = torch.empty_like(images)
    for strip in torch.arange(height, device=images.device).split(_STRIP):
        position = ((strip + 0.5) * rows / height - 0.5).clamp(0, rows - 1)
        above = position.long()
        below = (above + 1).clamp(max=rows - 1)
        share = (position - above).to(images.dtype)[:, None]
        local = torch.lerp(coefficients[:, :, above], coefficients[:, :, below], share)
        x, matrix, offset = images[:, :, strip], local[:, :9].unflatten(1, (3, 3)), local[:, 9:]
        out[:, :, strip] = x + (matrix * x[:, None]).sum(2) + offset
    return out.clamp_(-1, 1)


def local_change(source: Tensor, target: Tensor) -> Tensor:
    """Fit target - source ≈ D·source + b around each pixel: (B, 3, h, w) twice → (B, 12, h, w), D's rows and b."""
    change = target - source
    mean, mean_change = _box(source), _box(change)
    covariance = _outer(source, source) - mean[:, :, None] * mean[:, None]
    cross = _outer(change, source) - mean_change[:, :, None] * mean[:, None]
    ridge = _EPSILON * torch.eye(3, device=source.device, dtype=source.dtype)
    matrix = torch.linalg.solve(covariance.permute(0, 3, 4, 1, 2) + ridge, cross.permute(0, 3, 4, 1, 2), left=False)
    matrix = matrix.permute(0, 3, 4, 1, 2)
    offset = mean_change - (matrix * mean[:, None]).sum(2)
    return _box(torch.cat([matrix.flatten(1, 2), offset], 1))


def _outer(x: Tensor, y: Tensor) -> Tensor:
    """Average the products of all channels of x with all of y: (B, 3, 3, h, w)."""
    products: Tensor = _box((x[:, :, None] * y[:, None]).flatten(1, 2)).unflatten(1, (3, 3))
    return products


def _box(x: Tensor) -> Tensor:
    """Average each pixel's window."""
    padded = functional.pad(x, (_RADIUS,) * 4, mode="replicate")
    return functional.avg_pool2d(padded, 2 * _RADIUS + 1, stride=1)

"""Pictures side by side, for people to look at."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_grid(columns: list[Tensor], gap: int = 2) -> Tensor:
    """Columns of (n, 3, h, w) in [-1, 1], e.g. input, translation, cycle, reconstruction → (3, H, W), white between."""
    return beside([_stack([*column.float().cpu()], dim=1, gap=gap) for column in columns], gap)


def beside(images: list[Tensor], gap: int) -> Tensor:
    """Images (3, H, w) in [-1, 1] side by side → (3, H, W), white between."""
    return _stack(images, dim=2, gap=gap)


def _stack(images: list[Tensor], dim: int, gap: int) -> Tensor:
    white = images[0].new_ones(()).expand(*images[0].shape[:dim], gap, *images[0].shape[dim + 1 :])
    return torch.cat([piece for image in images for piece in (white, image)][1:], dim)

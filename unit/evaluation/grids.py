"""Images side by side, for people to look at."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_grid(columns: list[Tensor], blocks: int = 2, gap: int = 2) -> Tensor:
    """Columns of (n, 3, h, w) in [-1, 1], e.g. input, translation, cycle, reconstruction → (3, H, W), white between.

    The rows are laid out in `blocks` side by side, since screens are wide; the last may be shorter.
    """
    per_block = -(-len(columns[0]) // blocks)
    parts = [
        [column.float().cpu()[k : k + per_block] for column in columns] for k in range(0, len(columns[0]), per_block)
    ]
    return in_row([in_row([in_column(list(cells), gap) for cells in part], gap) for part in parts], 4 * gap)


def in_row(images: list[Tensor], gap: int) -> Tensor:
    """Images (3, h, w) in [-1, 1] beside one another, their tops in line → (3, H, W), white between."""
    return _stack(images, dim=2, gap=gap)


def in_column(images: list[Tensor], gap: int) -> Tensor:
    """Images (3, h, w) in [-1, 1] below one another → (3, H, W), white between."""
    return _stack(images, dim=1, gap=gap)


def _stack(images: list[Tensor], dim: int, gap: int) -> Tensor:
    across = 3 - dim
    widest = max(image.shape[across] for image in images)
    lengths = [image.shape[dim] for image in images]
    shape = [3, 0, 0]
    shape[dim], shape[across] = sum(lengths) + gap * (len(images) - 1), widest
    sheet, start = torch.ones(shape), 0
    for image, length in zip(images, lengths, strict=True):
        sheet.narrow(dim, start, length).narrow(across, 0, image.shape[across]).copy_(image)
        start += length + gap
    return sheet

"""Grids of test images beside their translations. A new column of the sample grids goes into `sample_grids`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.utils import make_grid

from unit.data.datasets import HeldOut
from unit.domains import Domain, PerDomain
from unit.evaluation.held_out import load_held_out
from unit.translation.translator import Translator

_GAP, _WIDE_GAP = 2, 12
"""White pixels between images, and between blocks of them."""


def sample_grids(translator: Translator, test: HeldOut, rows: int = 8) -> PerDomain[Tensor]:
    """Translate the first `rows` test images of each domain.

    Returns:
        (3, H, W) in [-1, 1] for each direction, both of one size: input | translation | cycle | reconstruction, in two
        blocks side by side.
    """
    images = _first_images(translator, test, rows)
    block_rows = -(-max(images.map(len)) // 2)

    def grid(i: Domain) -> Tensor:
        translation = translator.translate(images[i], i)
        cycle, reconstruction = translator.translate(translation, i.other), translator.reconstruct(images[i], i)
        columns = [images[i], translation, cycle, reconstruction]
        blocks = [[column[start : start + block_rows] for column in columns] for start in (0, block_rows)]
        return _grid([_block(block, block_rows) for block in blocks], 2, 4 * _GAP)

    return PerDomain.of(grid)


def contact_sheet(translator: Translator, test: HeldOut, rows: int = 8) -> Tensor:
    """Translate the first `rows` test images of each domain.

    Returns:
        (3, H, W) in [-1, 1], a block for each direction: input | translation and, for pairs, | the real target.
    """
    images, blocks = _first_images(translator, test, rows), []
    for i in Domain:
        columns = [images[i], translator.translate(images[i], i)]
        blocks.append(_block([*columns, images[i.other]] if test.paired else columns, max(images.map(len))))
    return _grid(blocks, 2, _WIDE_GAP)


def stack_vertically(grids: Sequence[Tensor], gap: int = _WIDE_GAP) -> Tensor:
    """Stack grids (3, H, W) of one size below one another, white in between."""
    return _grid(grids, 1, gap)


def _block(columns: Sequence[Tensor], rows: int) -> Tensor:
    """Lay out columns of (n, 3, h, w) with n ≤ rows; missing rows are white."""
    cells = torch.stack([column.float().cpu() for column in columns], dim=1)
    cells = functional.pad(cells, (0,) * 9 + (rows - len(cells),), value=1.0)
    return _grid(list(cells.flatten(0, 1)), len(columns), _GAP)


def _grid(cells: Sequence[Tensor], columns: int, gap: int) -> Tensor:
    """Lay out cells row by row, white in between, but not around them as `make_grid` does."""
    grid: Tensor = make_grid(list(cells), nrow=columns, padding=gap, pad_value=1.0)
    return grid[:, gap:-gap, gap:-gap] if len(cells) > 1 else grid


def _first_images(translator: Translator, test: HeldOut, count: int) -> PerDomain[Tensor]:
    return load_held_out(test.images, range(max(test.images.map(len))), translator.config.data, count)

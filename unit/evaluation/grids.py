"""Grids of test images beside their translations. A new column of the sample grids goes into `sample_grids`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor
from torch.nn import functional
from torchvision.utils import make_grid

from unit.data.datasets import HeldOut
from unit.domains import Domain, PerDomain
from unit.errors import OutOfMemoryError
from unit.evaluation.held_out import load_held_out, naming, readable, run_as_translate
from unit.images import to_image, to_tensor
from unit.translation.translator import Translator

_GAP, _WIDE_GAP = 2, 12
"""White pixels between images, and between blocks of them."""
_COLUMNS = ("input", "translation", "cycle", "reconstruction")
_MIN_HEADED = 48
"""Pixels that an image must be wide for headings that can be read."""
_MAX_CELL = 512
"""Pixels on the longer side of a contact sheet's images."""


def sample_grids(translator: Translator, test: HeldOut, rows: int = 8) -> PerDomain[Tensor]:
    """Translate the first `rows` test images of each domain.

    Returns:
        (3, H, W) in [-1, 1] for each direction, both of one size: input | translation | cycle | reconstruction, in two
        blocks side by side, with headings if images are wide enough for them.
    """
    images = _first_images(translator, test, rows)
    block_rows = -(-max(images.map(len)) // 2)

    def grid(i: Domain) -> Tensor:
        translation = translator.translate(images[i], i)
        cycle, reconstruction = translator.translate(translation, i.other), translator.reconstruct(images[i], i)
        columns = [images[i], translation, cycle, reconstruction]
        blocks = [[column[start : start + block_rows] for column in columns] for start in (0, block_rows)]
        grid = _grid([_block(block, block_rows) for block in blocks], 2, 4 * _GAP)
        return torch.cat([_headings(translator, i, grid.shape[2], images[i].shape[3]), grid], dim=1)

    return PerDomain.of(grid)


def _headings(translator: Translator, i: Domain, width: int, side: int) -> Tensor:
    """Draw the headings of a sample grid's two blocks of images of `side` pixels; nothing where they don't fit."""
    if side < _MIN_HEADED:
        return torch.empty(3, 0, width)
    font = ImageFont.load_default(14)
    small = ImageFont.load_default(min(14, int(14 * side / font.getlength(max(_COLUMNS, key=len)))))
    band = Image.new("RGB", (width, 40), "white")
    draw = ImageDraw.Draw(band)
    # the font has no letters of other scripts
    source, target = (translator.names[j] if translator.names[j].isascii() else j for j in (i, i.other))
    draw.text((0, 2), f"{source} to {target}, {side} px as in training", "black", font)
    block = len(_COLUMNS) * (side + _GAP) - _GAP + 4 * _GAP
    for k, heading in enumerate(_COLUMNS * 2):
        left = k // len(_COLUMNS) * block + k % len(_COLUMNS) * (side + _GAP)
        draw.text((left + side / 2, 36), heading, "black", small, anchor="ms")
    return to_tensor(band)


def contact_sheet(translator: Translator, test: HeldOut, rows: int = 8, size: int | None = None) -> Tensor:
    """Translate the first `rows` test images of each domain as the verb `translate` does, at a short side of `size`.

    Returns:
        (3, H, W) in [-1, 1], a block for each direction: input | translation and, for pairs, | the real target; each
        image with white around it where others are larger or of another shape.
    """
    sheet: dict[Domain, list[list[Tensor]]] = {}
    indices = PerDomain(*test.images.map(lambda source: range(len(source))))
    count = 0
    for k, pair in readable(test.images, indices, translator.config.data, native=True):
        with suppress(OutOfMemoryError):  # which evaluating has told
            made = [(i, _sheet_row(translator, test, i, pair, k, size)) for i in Domain if pair[i]]
            for i, row in made:
                sheet.setdefault(i, []).append(row)
            count += 1
        if count == rows:
            break
    shapes = [image.shape for rows_of in sheet.values() for row in rows_of for image in row]
    height, width = (max(shape[axis] for shape in shapes) for axis in (1, 2))
    scale = min(1.0, _MAX_CELL / max(height, width))
    cell = (max(1, round(width * scale)), max(1, round(height * scale)))
    blocks = []
    for i in Domain:
        columns = [torch.stack([_fit(image, cell) for image in column]) for column in zip(*sheet[i], strict=True)]
        blocks.append(_block(columns, max(map(len, sheet.values()))))
    return _grid(blocks, 2, _WIDE_GAP)


def _sheet_row(
    translator: Translator, test: HeldOut, i: Domain, pair: PerDomain[list[Tensor]], k: int, size: int | None
) -> list[Tensor]:
    """Return a test image of domain i, its translation and, for pairs, the real target."""
    (image,) = pair[i]
    with naming(test.images[i], k):
        translation = run_as_translate(translator.translate, image[None], i, size)[0]
    return [image, translation, *(pair[i.other] if test.paired else [])]


def _fit(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale an image into a white (width, height)."""
    return to_tensor(ImageOps.pad(to_image(image), size, Image.Resampling.LANCZOS, color="white"))


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

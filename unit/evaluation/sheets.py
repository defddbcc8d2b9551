"""What a translator makes of test images, side by side for people to look at."""

from __future__ import annotations

from torch import Tensor

from unit.data.datasets import HeldOut
from unit.domains import Domain, PerDomain
from unit.evaluation.grids import in_row, sample_grid
from unit.evaluation.held_out import load_held_out
from unit.translation.translator import Translator


def contact_sheet(translator: Translator, test: HeldOut, rows: int = 8) -> Tensor:
    """(3, H, W) in [-1, 1]: input, translation and, of pairs, the real other image; a block a direction."""
    images = load_held_out(test.images, _all(test), translator.config.data, rows)

    def block(i: Domain) -> Tensor:
        columns = [images[i], translator.translate(images[i], i).cpu()]
        return sample_grid([*columns, images[i.other]] if test.paired else columns, blocks=1)

    return in_row([block(i) for i in Domain], gap=12)


def sample_grids(translator: Translator, test: HeldOut, rows: int = 8) -> PerDomain[Tensor]:
    """(3, H, W) in [-1, 1] of each direction: input, translation, cycle, reconstruction of the first images."""
    images = load_held_out(test.images, _all(test), translator.config.data, rows)

    def grid(i: Domain) -> Tensor:
        translation = translator.translate(images[i], i)
        cycle, reconstruction = translator.translate(translation, i.other), translator.reconstruct(images[i], i)
        return sample_grid([images[i], translation, cycle, reconstruction])

    return PerDomain.of(grid)


def _all(test: HeldOut) -> range:
    return range(max(test.images.map(len)))

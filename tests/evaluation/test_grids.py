from dataclasses import replace

import pytest
import torch

from tests.tiny import tiny
from unit.data.datasets import open_datasets
from unit.domains import Domain, PerDomain
from unit.evaluation.grids import contact_sheet, in_column, sample_grids
from unit.evaluation.held_out import load_held_out
from unit.model.networks import build_autoencoders
from unit.translation.translator import Translator

CONFIG = tiny(data={"streets_test": 3})
TEST = open_datasets(CONFIG.data).test
SIDE, GAP, WIDE_GAP = 16, 2, 12


@pytest.fixture(scope="module")
def translator() -> Translator:
    networks = build_autoencoders(CONFIG.model).requires_grad_(False)
    return Translator(networks, CONFIG, PerDomain("sunny", "rainy"), 0, "cpu", "fp32")


def span(images: int, gap: int = GAP, side: int = SIDE) -> int:
    """Pixels that so many images take, with the gaps between and around them."""
    return images * side + (images + 1) * gap


def cell(grid: torch.Tensor, row: int, left: int) -> torch.Tensor:
    """The image in a row, counted from the block's corner at (left, left)."""
    top = left + row * (SIDE + GAP)
    return grid[:, top : top + SIDE, left : left + SIDE]


def test_a_contact_sheet_has_a_block_per_direction(translator: Translator) -> None:
    sheet = contact_sheet(translator, TEST, rows=2)
    assert sheet.shape == (3, span(2) + 2 * WIDE_GAP, span(2, WIDE_GAP, side=span(3)))
    images = load_held_out(TEST.images, range(2), CONFIG.data)
    for row in range(2):
        assert torch.equal(cell(sheet, row, WIDE_GAP + GAP), images.a[row])
    assert sheet[:, :WIDE_GAP].min() == 1  # white


def test_the_sheet_of_unpaired_images_shows_inputs_and_translations_alone(translator: Translator) -> None:
    sheet = contact_sheet(translator, replace(TEST, paired=False, redrawn=None), rows=2)
    assert sheet.shape == (3, span(2) + 2 * WIDE_GAP, span(2, WIDE_GAP, side=span(2)))
    images = load_held_out(TEST.images, range(1), CONFIG.data)
    second = 2 * WIDE_GAP + span(2) + GAP
    assert torch.equal(sheet[:, WIDE_GAP + GAP :, second:][:, :SIDE, :SIDE], images.b[0])


def test_sample_grids_show_input_translation_cycle_reconstruction(translator: Translator) -> None:
    grids = sample_grids(translator, TEST)
    images = load_held_out(TEST.images, range(3), CONFIG.data)
    for i in Domain:
        assert grids[i].shape == (3, span(2) + 2 * 4 * GAP, span(2, 4 * GAP, side=span(4)))
        translation = translator.translate(images[i], i)
        cycle, reconstruction = translator.translate(translation, i.other), translator.reconstruct(images[i], i)
        for column, expected in enumerate((images[i], translation, cycle, reconstruction)):
            left = 5 * GAP + column * (SIDE + GAP)
            assert torch.equal(grids[i][:, 5 * GAP :, left:][:, :SIDE, :SIDE], expected[0])
            left += 4 * GAP + span(4)  # the second block, whose last row is white
            assert torch.equal(grids[i][:, 5 * GAP :, left:][:, :SIDE, :SIDE], expected[2])
            assert grids[i][:, 5 * GAP + SIDE + GAP :, left:][:, :SIDE, :SIDE].min() == 1


def test_both_grids_have_one_size_however_many_images_a_domain_has(translator: Translator) -> None:
    few = open_datasets(tiny(data={"streets_test": 1}).data).test
    test = replace(TEST, images=PerDomain(few.images.a, TEST.images.b), paired=False)
    grids = sample_grids(translator, test)
    assert grids.a.shape == grids.b.shape
    column = in_column(list(grids), gap=3)
    assert column.shape == (3, 2 * grids.a.shape[1] + 3 * 3, grids.a.shape[2] + 2 * 3)
    assert torch.equal(column[:, 3:-3, 3:-3][:, : grids.a.shape[1]], grids.a)

from dataclasses import replace

import pytest
import torch

from tests.tiny import tiny
from unit.data.datasets import open_datasets
from unit.domains import Domain, PerDomain
from unit.evaluation.grids import contact_sheet, sample_grids, stack_vertically
from unit.evaluation.held_out import load_held_out
from unit.model.networks import build_autoencoders
from unit.translation.translator import Translator

CONFIG = tiny(data={"streets_test": 3, "load_size": 16})
TEST = open_datasets(CONFIG.data).test
SIDE, GAP, WIDE_GAP = 16, 2, 12


@pytest.fixture(scope="module")
def translator() -> Translator:
    networks = build_autoencoders(CONFIG.model).requires_grad_(False)
    return Translator(networks, CONFIG, PerDomain("sunny", "rainy"), 0, "cpu", "fp32")


def span(count: int, gap: int = GAP, side: int = SIDE) -> int:
    """Pixels of a row of images with gaps in between."""
    return count * side + (count - 1) * gap


def cell(grid: torch.Tensor, row: int, column: int, left: int = 0) -> torch.Tensor:
    """The image at a place in the block that begins at `left`."""
    top, left = row * (SIDE + GAP), left + column * (SIDE + GAP)
    return grid[:, top : top + SIDE, left : left + SIDE]


def test_a_contact_sheet_has_a_block_per_direction(translator: Translator) -> None:
    sheet = contact_sheet(translator, TEST, rows=2)
    assert sheet.shape == (3, span(2), span(2, WIDE_GAP, side=span(3)))
    images = load_held_out(TEST.images, range(2), CONFIG.data)
    for row in range(2):
        assert torch.equal(cell(sheet, row, 0), images.a[row])
        assert torch.equal(cell(sheet, row, 2), images.b[row])
        assert torch.equal(cell(sheet, row, 0, span(3) + WIDE_GAP), images.b[row])
    assert sheet[:, :, span(3) : span(3) + WIDE_GAP].min() == 1  # white


def test_the_sheet_of_unpaired_images_shows_inputs_and_translations_alone(translator: Translator) -> None:
    sheet = contact_sheet(translator, replace(TEST, paired=False, rerendered=None), rows=2)
    assert sheet.shape == (3, span(2), span(2, WIDE_GAP, side=span(2)))
    images = load_held_out(TEST.images, range(1), CONFIG.data)
    assert torch.equal(cell(sheet, 0, 0), images.a[0])
    assert torch.equal(cell(sheet, 0, 0, span(2) + WIDE_GAP), images.b[0])


def test_sample_grids_show_input_translation_cycle_reconstruction(translator: Translator) -> None:
    grids = sample_grids(translator, TEST)
    images = load_held_out(TEST.images, range(3), CONFIG.data)
    second = span(4) + 4 * GAP
    for i in Domain:
        assert grids[i].shape == (3, span(2), span(2, 4 * GAP, side=span(4)))
        translation = translator.translate(images[i], i)
        cycle, reconstruction = translator.translate(translation, i.other), translator.reconstruct(images[i], i)
        for column, expected in enumerate((images[i], translation, cycle, reconstruction)):
            assert torch.equal(cell(grids[i], 0, column), expected[0])
            assert torch.equal(cell(grids[i], 1, column), expected[1])
            assert torch.equal(cell(grids[i], 0, column, second), expected[2])
            assert cell(grids[i], 1, column, second).min() == 1  # three images: white


def test_both_grids_have_one_size_however_many_images_a_domain_has(translator: Translator) -> None:
    few = open_datasets(tiny(data={"streets_test": 1}).data).test
    test = replace(TEST, images=PerDomain(few.images.a, TEST.images.b), paired=False)
    grids = sample_grids(translator, test)
    assert grids.a.shape == grids.b.shape
    column = stack_vertically(list(grids), gap=3)
    height = grids.a.shape[1]
    assert torch.equal(column[:, :height], grids.a)
    assert column[:, height : height + 3].min() == 1
    assert torch.equal(column[:, height + 3 :], grids.b)


def test_a_single_image_is_a_grid_without_gaps() -> None:
    assert torch.equal(stack_vertically([torch.zeros(3, 2, 2)]), torch.zeros(3, 2, 2))


@pytest.mark.parametrize("names", [PerDomain("sunny", "rainy"), PerDomain("晴れ", "rainy")])
def test_sample_grids_of_images_wide_enough_have_headings(names: PerDomain[str]) -> None:
    config = tiny(data={"streets_test": 3, "load_size": 48, "crop_size": 48})
    networks = build_autoencoders(config.model).requires_grad_(False)
    test = open_datasets(config.data).test
    images = load_held_out(test.images, range(3), config.data)
    grids = sample_grids(Translator(networks, config, names, 0, "cpu", "fp32"), test)
    for i in Domain:
        height = grids[i].shape[1] - span(2, side=48)
        assert torch.equal(grids[i][:, height : height + 48, :48], images[i][0])
        title, columns = grids[i][:, : height // 2], grids[i][:, height // 2 : height]
        assert title.min() == -1
        for k in range(4):  # black letters above the middle of each column, in both blocks
            for left in (0, span(4, side=48) + 4 * GAP):
                cell_left = left + k * (48 + GAP)
                assert columns[:, :, cell_left : cell_left + 48].min() < -0.5
    assert not torch.equal(grids.a[:, :height], grids.b[:, :height])

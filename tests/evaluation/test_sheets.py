from dataclasses import replace

import pytest
import torch

from tests.tiny import tiny
from unit.data.datasets import open_datasets
from unit.domains import PerDomain
from unit.evaluation.held_out import load_held_out
from unit.evaluation.sheets import contact_sheet, sample_grids
from unit.model.networks import build_autoencoders
from unit.translation.translator import Translator

CONFIG = tiny(data={"streets_test": 3})
TEST = open_datasets(CONFIG.data).test


@pytest.fixture(scope="module")
def translator() -> Translator:
    networks = build_autoencoders(CONFIG.model).requires_grad_(False)
    return Translator(networks, CONFIG, PerDomain("sunny", "rainy"), 0, "cpu", "fp32")


def test_sheets_show_as_many_rows_as_there_are_images(translator: Translator) -> None:
    assert contact_sheet(translator, TEST, rows=2).shape == (3, 2 * 16 + 2, 2 * (3 * 16 + 2 * 2) + 12)
    few = open_datasets(tiny(data={"streets_test": 1}).data).test
    assert sample_grids(translator, few).a.shape == (3, 16, 4 * 16 + 3 * 2)


def test_the_sheet_of_unpaired_images_shows_inputs_and_translations_alone(translator: Translator) -> None:
    sheet = contact_sheet(translator, replace(TEST, paired=False, redrawn=None), rows=2)
    assert sheet.shape == (3, 2 * 16 + 2, 2 * (2 * 16 + 2) + 12)
    images = load_held_out(TEST.images, range(1), CONFIG.data)
    second = 2 * 16 + 2 + 12
    assert torch.equal(sheet[:, :16, :16], images.a[0])
    assert torch.equal(sheet[:, :16, second : second + 16], images.b[0])

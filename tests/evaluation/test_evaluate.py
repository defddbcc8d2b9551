import pytest
import torch

from tests.tiny import tiny
from unit.data.datasets import open_datasets
from unit.domains import Domain, PerDomain
from unit.evaluation.evaluate import contact_sheet, evaluate, load_held_out, sample_grids, table
from unit.evaluation.metrics import paired_figures
from unit.model.networks import build_autoencoders
from unit.translation.translator import Translator

CONFIG = tiny(data={"streets_test": 19})


@pytest.fixture(scope="module")
def translator() -> Translator:
    networks = build_autoencoders(CONFIG.model).requires_grad_(False)
    return Translator(networks, CONFIG, PerDomain("sunny", "rainy"), 0, "cpu", "fp32")


def test_psnr_by_hand() -> None:
    # 8-bit images that differ by 51 everywhere: 20·log10(255 / 51) = 13.979 dB; by 25.5 / 2 and 51: the mean of the two
    black, gray = torch.full((1, 3, 16, 16), -1.0), torch.full((1, 3, 16, 16), -1 + 51 / 127.5)
    assert paired_figures(gray, black)["psnr"] == pytest.approx(13.979, abs=1e-3)
    darker = torch.full((1, 3, 16, 16), -1 + 5 / 127.5)
    both = paired_figures(torch.cat([gray, darker]), torch.cat([black, black]))
    assert both["psnr"] == pytest.approx((13.979 + 34.151) / 2, abs=1e-3)


def test_ssim_by_hand() -> None:
    """Of constant images only the luminance term is left: (2ab + c) / (a² + b² + c), c = (0.01 · 255)²."""
    a, b, c = 51.0, 204.0, 2.55**2
    images = [torch.full((2, 3, 16, 16), level / 127.5 - 1) for level in (a, b)]
    assert paired_figures(*images)["ssim"] == pytest.approx((2 * a * b + c) / (a * a + b * b + c), rel=1e-3)
    noise = torch.rand(2, 3, 16, 16) * 2 - 1
    assert paired_figures(noise, noise)["ssim"] == pytest.approx(1)


def test_figures_are_those_of_the_files_that_would_be_written() -> None:
    images, targets = torch.rand(2, 3, 16, 16) * 2 - 1, torch.rand(2, 3, 16, 16) * 2 - 1
    rounded = [torch.round((x + 1) * 127.5) / 127.5 - 1 for x in (images, targets)]
    assert paired_figures(images, targets) == pytest.approx(paired_figures(*rounded), rel=1e-6)
    assert paired_figures(images * 1e9, targets) == pytest.approx(paired_figures(images.sign(), targets), rel=1e-6)


def test_the_figures_in_batches_are_those_of_all_pairs_at_once(translator: Translator) -> None:
    test = open_datasets(CONFIG.data).test
    figures = evaluate(translator, test)
    images = load_held_out(test.images, range(19), CONFIG.data)
    assert test.redrawn is not None
    redrawn = load_held_out(test.redrawn, range(19), CONFIG.data)
    for i in Domain:
        target = images[i.other]
        expected = {
            "translated": paired_figures(translator.translate(images[i], i), target),
            "do_nothing": paired_figures(images[i], target),
            "real": paired_figures(redrawn[i.other], target),
        }
        for what, values in expected.items():
            assert figures[i.direction][what] == pytest.approx(values, rel=1e-5)


def test_the_table_has_every_figure_that_is_known(translator: Translator) -> None:
    figures = evaluate(translator, open_datasets(CONFIG.data).test)
    text = table(figures, translator.names)
    for groups in figures.values():
        for values in groups.values():
            assert f"{values['psnr']:.2f}" in text
            assert f"{values['ssim']:.3f}" in text
    figures["a2b"]["real"] = {"psnr": None, "ssim": None}
    assert len(table(figures, translator.names).splitlines()) == len(text.splitlines()) - 1


def test_sheets_show_as_many_rows_as_there_are_pictures(translator: Translator) -> None:
    test = open_datasets(CONFIG.data).test
    assert contact_sheet(translator, test, rows=2).shape == (3, 2 * 16 + 2, 2 * (3 * 16 + 2 * 2) + 12)
    few = open_datasets(tiny(data={"streets_test": 1}).data).test
    assert sample_grids(translator, few).a.shape == (3, 16, 4 * 16 + 3 * 2)

import pytest
import torch

from tests.model.affine import autoencoders, discriminators, make_microbatch, values
from unit.model.extras.low_frequency import Extra, low_frequency
from unit.model.losses import l1


def test_only_what_averaging_leaves_counts() -> None:
    x = torch.rand(2, 3, 128, 128)
    board = torch.ones(4, 4)
    board[::2, ::2] = board[1::2, 1::2] = -1  # averages to 0 over 4 x 4 pixels
    assert low_frequency(x + board.repeat(32, 32), x).item() == pytest.approx(0, abs=1e-6)
    assert low_frequency(x + 0.25, x).item() == pytest.approx(0.25, rel=1e-5)
    coarser = board.repeat(32, 32).repeat_interleave(4, 0).repeat_interleave(4, 1)[:128, :128]
    assert low_frequency(x + coarser, x).item() == pytest.approx(1, rel=1e-5)


def test_the_remainder_at_the_edges_counts_too() -> None:
    x = torch.zeros(1, 3, 100, 100)  # 33 windows of 3 pixels in each row, and 1 pixel
    changed = x.clone()
    changed[..., -1] = 0.5
    assert low_frequency(changed, x).item() == pytest.approx(0.5 / 34, rel=1e-5)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 96), (72, 66)])
def test_a_constant_difference_is_kept_at_any_size(height: int, width: int) -> None:
    x, y = torch.rand(1, 3, height, width), torch.rand(1, 3, height, width)
    assert low_frequency(x + 0.5, x).item() == pytest.approx(0.5, rel=1e-5)
    assert (low_frequency(x, y) == l1(x, y)) == (height == 16), "below 64 pixels nothing is averaged"


def test_the_mean_of_two_halves_is_the_batchs_loss() -> None:
    x, y = (torch.randn(4, 3, 64, 64, dtype=torch.float64) for _ in range(2))
    halves = [low_frequency(*pair).item() for pair in zip(x.chunk(2), y.chunk(2), strict=True)]
    assert sum(halves) / 2 == pytest.approx(low_frequency(x, y).item())


def test_the_loss_is_computed_in_fp32_under_autocast() -> None:
    image = torch.full((1, 3, 64, 64), 1 + 2**-7, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = low_frequency(image, torch.zeros_like(image))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1 + 2**-7, rel=1e-6)


def test_the_terms_by_hand() -> None:
    """x_a→b = 9 against x_a = 1, x_b→a = 28 against x_b = 2."""
    terms = Extra(13, autoencoders()).generator_terms(autoencoders(), discriminators(), make_microbatch())
    assert values(terms) == pytest.approx({"low_frequency_a": 13 * (9 - 1), "low_frequency_b": 13 * (28 - 2)})

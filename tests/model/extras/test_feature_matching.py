import pytest
import torch

from tests.model.affine import autoencoders, discriminators, make_microbatch, values
from unit.model.extras.feature_matching import Extra, feature_matching


def test_feature_matching_by_hand() -> None:
    x = [torch.tensor([1.0, 3.0, 0.0, 0.0]).reshape(1, 2, 1, 2), torch.full((1, 1, 2, 2), 7.0)]
    y = [torch.tensor([3.0, 1.0, 1.0, 4.0]).reshape(1, 2, 1, 2), torch.full((1, 1, 1, 1), 2.0)]
    # The channels' means are 2, 0 against 2, 2.5, and 7 against 2.
    assert feature_matching(x, y).item() == pytest.approx((2.5 / 2 + 5) / 2)


def test_the_mean_of_two_halves_is_the_batchs_loss() -> None:
    x, y = (torch.randn(4, 5, 3, 3, dtype=torch.float64) for _ in range(2))
    halves = [feature_matching([a], [b]).item() for a, b in zip(x.chunk(2), y.chunk(2), strict=True)]
    assert sum(halves) / 2 == pytest.approx(feature_matching([x], [y]).item())


def test_the_loss_is_computed_in_fp32_under_autocast() -> None:
    x = torch.full((1, 3, 64, 64), 1 + 2**-7, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = feature_matching([x], [torch.zeros_like(x)])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1 + 2**-7, rel=1e-6)


def test_the_terms_by_hand() -> None:
    """All layers but the logits: D_a's 10x of x_b→a = 28 and of x_a = 1, D_b's -10x of x_a→b = 9 and of x_b = 2."""
    terms = Extra(0.5, autoencoders()).generator_terms(autoencoders(), discriminators(), make_microbatch())
    assert values(terms) == pytest.approx(
        {"feature_matching_a": 0.5 * 10 * (28 - 1), "feature_matching_b": 0.5 * 10 * (9 - 2)}
    )

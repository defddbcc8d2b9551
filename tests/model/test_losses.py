"""Each loss against a closed form worked out by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unit.model.losses import ADVERSARIAL, Logits, cross_entropy, hinge, kl, l1, least_squares, relativistic
from unit.model.precision import fp32

TWO_SCALES = [torch.tensor([[[[0.0, math.log(3)]]]]), torch.zeros(1, 1, 1, 1)]


def test_kl_is_the_mean_square() -> None:
    assert kl(torch.tensor([[1.0, 2.0], [-3.0, 0.0]])).item() == pytest.approx((1 + 4 + 9 + 0) / 4)


def test_kl_is_the_true_divergence_up_to_its_stated_factor() -> None:
    mu = torch.randn(2, 3, 4, 4)
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(normal(mu, 1.0), normal(0.0, 1.0)).sum()
    assert kl(mu).item() * mu.numel() / 2 == pytest.approx(divergence.item(), rel=1e-5)


def test_l1_is_the_mean_absolute_difference() -> None:
    assert l1(torch.tensor([0.0, 1.0, 0.5]), torch.tensor([0.0, -1.0, 0.0])).item() == pytest.approx(2.5 / 3)


@pytest.mark.parametrize(
    ("loss", "real", "expected"),
    [
        # -log σ(0) = log 2; σ(log 3) = 3/4; a mean over each scale's patches, then the sum of the scales.
        (cross_entropy, True, (math.log(2) + math.log(4 / 3)) / 2 + math.log(2)),
        (cross_entropy, False, (math.log(2) + math.log(4)) / 2 + math.log(2)),
        (least_squares, True, (1 + (math.log(3) - 1) ** 2) / 2 + 1),
        (least_squares, False, math.log(3) ** 2 / 2),
    ],
)
def test_cross_entropy_and_least_squares_by_hand(
    loss: Callable[[Logits, bool], Tensor], real: bool, expected: float
) -> None:
    assert loss(TWO_SCALES, real).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss", [cross_entropy, least_squares])
def test_adversarial_losses_fall_as_logits_move_to_their_target(loss: Callable[[Logits, bool], Tensor]) -> None:
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    for real, sign in ((True, -1), (False, 1 if loss is cross_entropy else 0)):
        (gradient,) = torch.autograd.grad(loss([logits], real), logits)
        assert (torch.sign(gradient) == sign).all()


def test_hinge_by_hand() -> None:
    scales = [torch.tensor([[[[0.0, 3.0]]]]), torch.full((1, 1, 1, 1), -2.0)]
    assert hinge(scales, True).item() == pytest.approx((1 + 0) / 2 + 3)
    assert hinge(scales, False).item() == pytest.approx((1 + 4) / 2 + 0)


def test_relativistic_by_hand() -> None:
    higher = [torch.tensor([[[[0.0, math.log(3)]]]]), torch.full((1, 1, 1, 1), 5.0)]
    lower = [torch.zeros(1, 1, 1, 2), torch.full((1, 1, 1, 1), 5 + math.log(3))]
    # log(1 + e⁰) = log 2, log(1 + ⅓) = log 4/3, log(1 + 3) = log 4
    assert relativistic(higher, lower).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2 + math.log(4))


def test_relativistic_depends_on_differences_only() -> None:
    a, b = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(relativistic([a + 7], [b + 7]), relativistic([a], [b]))
    gradient, opposite = torch.autograd.grad(relativistic([a.requires_grad_()], [b.requires_grad_()]), (a, b))
    assert (gradient < 0).all()
    torch.testing.assert_close(gradient, -opposite)


def test_the_table_gives_each_form_its_pair_of_losses() -> None:
    """D wants real logits high and fake ones low; G, non-saturating, wants fake ones high."""
    real, fake = TWO_SCALES, [torch.tensor([[[[0.5, 3.0]]]]), torch.full((1, 1, 1, 1), -2.0)]
    expected = {
        "bce": (cross_entropy(real, True) + cross_entropy(fake, False), cross_entropy(fake, True)),
        "least_squares": (least_squares(real, True) + least_squares(fake, False), least_squares(fake, True)),
        "hinge": (hinge(real, True) + hinge(fake, False), torch.tensor(-3.5 / 2 + 2)),
        "relativistic": (relativistic(real, fake), relativistic(fake, real)),
    }
    assert ADVERSARIAL.keys() == expected.keys()
    for name, (d_loss, g_loss) in expected.items():
        adversarial = ADVERSARIAL[name]
        assert adversarial.d_loss(real, fake).item() == pytest.approx(d_loss.item())
        assert adversarial.g_loss(real if adversarial.needs_real else [], fake).item() == pytest.approx(g_loss.item())
    assert [name for name, adversarial in ADVERSARIAL.items() if adversarial.needs_real] == ["relativistic"]


def test_losses_of_half_precision_inputs_are_computed_in_fp32() -> None:
    # 1 + 2⁻⁷ is the smallest bf16 above 1; the mean of 2¹² such squares would be lost in bf16.
    mu = torch.full((64, 64), 1 + 2**-7, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert kl(mu).item() == pytest.approx((1 + 2**-7) ** 2, rel=1e-6)
        assert l1(mu, torch.zeros_like(mu)).item() == pytest.approx(1 + 2**-7, rel=1e-6)
        for adversarial in ADVERSARIAL.values():
            assert adversarial.d_loss([mu], [mu]).dtype == torch.float32
            assert adversarial.g_loss([mu], [mu]).dtype == torch.float32
    assert fp32(mu.double()).dtype == torch.float64, "more precision is kept"


@pytest.mark.parametrize("name", list(ADVERSARIAL))
def test_the_mean_of_two_halves_is_the_batchs_loss(name: str) -> None:
    """Gradients are averaged over ranks and microbatches."""
    real, fake = (torch.randn(2, 1, 4, 4, dtype=torch.float64) for _ in range(2))
    for loss in ADVERSARIAL[name][:2]:
        halves = [loss([x], [y]).item() for x, y in zip(real.chunk(2), fake.chunk(2), strict=True)]
        assert sum(halves) / 2 == pytest.approx(loss([real], [fake]).item())

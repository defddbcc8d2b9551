"""Each loss against a closed form worked out by hand."""

import math

import pytest
import torch

from unit.model.losses import adversarial, kl, l1


def test_kl_is_the_mean_square() -> None:
    assert kl(torch.tensor([[1.0, 2.0], [-3.0, 0.0]])).item() == pytest.approx((1 + 4 + 9 + 0) / 4)


def test_kl_is_the_true_divergence_up_to_its_stated_factor() -> None:
    mu = torch.randn(2, 3, 4, 4)
    normal = torch.distributions.Normal
    true = torch.distributions.kl_divergence(normal(mu, 1.0), normal(0.0, 1.0)).sum()
    assert kl(mu).item() * mu.numel() / 2 == pytest.approx(true.item(), rel=1e-5)


def test_l1_is_the_mean_absolute_difference() -> None:
    assert l1(torch.tensor([0.0, 1.0, 0.5]), torch.tensor([0.0, -1.0, 0.0])).item() == pytest.approx(2.5 / 3)


@pytest.mark.parametrize(
    ("kind", "real", "expected"),
    [
        # -log σ(0) = log 2; σ(log 3) = 3/4; the scales are averaged over patches, then summed.
        ("bce", True, (math.log(2) + math.log(4 / 3)) / 2 + math.log(2)),
        ("bce", False, (math.log(2) + math.log(4)) / 2 + math.log(2)),
        ("least_squares", True, (1 + (math.log(3) - 1) ** 2) / 2 + 1),
        ("least_squares", False, math.log(3) ** 2 / 2),
    ],
)
def test_adversarial_by_hand(kind: str, real: bool, expected: float) -> None:
    scales = [torch.tensor([[[[0.0, math.log(3)]]]]), torch.zeros(1, 1, 1, 1)]
    assert adversarial(scales, real, kind).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["bce", "least_squares"])
def test_adversarial_falls_as_the_logits_move_to_the_verdict(kind: str) -> None:
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    for real, sign in ((True, -1), (False, 1 if kind == "bce" else 0)):
        (gradient,) = torch.autograd.grad(adversarial([logits], real, kind), logits)
        assert (torch.sign(gradient) == sign).all()


def test_half_precision_inputs_are_reduced_in_fp32() -> None:
    # 1 + 2⁻⁷ is the last bf16 above 1; the mean of 2¹² such squares would be lost in bf16.
    mu = torch.full((64, 64), 1 + 2**-7, dtype=torch.bfloat16)
    assert kl(mu).item() == pytest.approx((1 + 2**-7) ** 2, rel=1e-6)
    assert l1(mu, torch.zeros_like(mu)).item() == pytest.approx(1 + 2**-7, rel=1e-6)
    assert adversarial([mu], True, "least_squares").dtype == torch.float32

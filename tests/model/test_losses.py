"""Each loss against a closed form worked out by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from unit.model.losses import adversarial, feature_matching, kl, l1, low_frequency, patch_nce, r1, relativistic


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


def test_hinge_by_hand() -> None:
    scales = [torch.tensor([[[[0.0, 3.0]]]]), torch.full((1, 1, 1, 1), -2.0)]
    assert adversarial(scales, True, "hinge").item() == pytest.approx((1 + 0) / 2 + 3)
    assert adversarial(scales, False, "hinge").item() == pytest.approx((1 + 4) / 2 + 0)
    assert adversarial(scales, True, "linear").item() == pytest.approx(-3 / 2 + 2)
    assert adversarial(scales, False, "linear").item() == pytest.approx(3 / 2 - 2)


def test_relativistic_by_hand() -> None:
    higher = [torch.tensor([[[[0.0, math.log(3)]]]]), torch.full((1, 1, 1, 1), 5.0)]
    lower = [torch.zeros(1, 1, 1, 2), torch.full((1, 1, 1, 1), 5 + math.log(3))]
    # log(1 + e⁰) = log 2, log(1 + ⅓) = log 4/3, log(1 + 3) = log 4
    assert relativistic(higher, lower).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2 + math.log(4))


def test_relativistic_sees_only_differences() -> None:
    a, b = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(relativistic([a + 7], [b + 7]), relativistic([a], [b]))
    gradient, opposite = torch.autograd.grad(relativistic([a.requires_grad_()], [b.requires_grad_()]), (a, b))
    assert (gradient < 0).all()
    torch.testing.assert_close(gradient, -opposite)


def quadratic(x: torch.Tensor, patch: int) -> torch.Tensor:
    """½·Σ w x² of each patch, w = 1, 2, 3 for the channels: its gradient is w x."""
    w = torch.arange(1.0, 4, dtype=x.dtype)[:, None, None]
    return functional.avg_pool2d((w * x.square() / 2).sum(1, keepdim=True), patch) * patch**2


@pytest.mark.parametrize("patch", [1, 2, 4, 8])
def test_r1_of_a_quadratic_is_its_gradients_square(patch: int) -> None:
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    w = torch.arange(1.0, 4, dtype=torch.float64)[:, None, None]
    per_image = (w * x.detach()).square().sum((1, 2, 3))
    patches = (8 // patch) ** 2
    assert r1(x, [quadratic(x, patch)]).item() == pytest.approx((per_image / patches / 2).mean().item())


def test_r1_adds_the_scales_and_does_not_grow_with_the_image() -> None:
    small = torch.ones(1, 3, 4, 4, requires_grad=True)
    large = torch.ones(1, 3, 16, 16, requires_grad=True)
    one = r1(small, [quadratic(small, 2)]).item()
    assert one == pytest.approx((1 + 4 + 9) * 4 / 2)
    assert r1(large, [quadratic(large, 2)]).item() == pytest.approx(one)
    assert r1(small, [quadratic(small, 2), 3 * quadratic(small, 4)]).item() == pytest.approx(one + 9 * 4 * one)


def test_r1_reaches_the_weights() -> None:
    """Of D(x) = a·Σx, one patch of N numbers: ½·N·a², so N·a for a."""
    a, x = torch.tensor(1.5, requires_grad=True), torch.randn(3, 3, 4, 4, requires_grad=True)
    penalty = r1(x, [(a * x).sum((1, 2, 3)).reshape(3, 1, 1, 1)])
    assert penalty.item() == pytest.approx(48 * 1.5**2 / 2)
    assert torch.autograd.grad(penalty, a)[0].item() == pytest.approx(48 * 1.5)


def test_feature_matching_by_hand() -> None:
    x = [torch.tensor([1.0, 3.0, 0.0, 0.0]).reshape(1, 2, 1, 2), torch.full((1, 1, 2, 2), 7.0)]
    y = [torch.tensor([3.0, 1.0, 1.0, 4.0]).reshape(1, 2, 1, 2), torch.full((1, 1, 1, 1), 2.0)]
    # The channels' means are 2, 0 against 2, 2.5, and 7 against 2.
    assert feature_matching(x, y).item() == pytest.approx((2.5 / 2 + 5) / 2)


def test_low_frequency_sees_only_what_is_left_of_an_average() -> None:
    x = torch.rand(2, 3, 128, 128)
    board = torch.ones(4, 4)
    board[::2, ::2] = board[1::2, 1::2] = -1  # squares of 4 pixels average it away
    assert low_frequency(x + board.repeat(32, 32), x).item() == pytest.approx(0, abs=1e-6)
    assert low_frequency(x + 0.25, x).item() == pytest.approx(0.25, rel=1e-5)
    coarser = board.repeat(32, 32).repeat_interleave(4, 0).repeat_interleave(4, 1)[:128, :128]
    assert low_frequency(x + coarser, x).item() == pytest.approx(1, rel=1e-5)


def test_low_frequency_counts_what_is_left_at_the_edges() -> None:
    x = torch.zeros(1, 3, 100, 100)  # 33 squares of 3 pixels a row, and 1 pixel
    changed = x.clone()
    changed[..., -1] = 0.5
    assert low_frequency(changed, x).item() == pytest.approx(0.5 / 34, rel=1e-5)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 96), (72, 66)])
def test_low_frequency_of_any_size_keeps_a_constant(height: int, width: int) -> None:
    x, y = torch.rand(1, 3, height, width), torch.rand(1, 3, height, width)
    assert low_frequency(x + 0.5, x).item() == pytest.approx(0.5, rel=1e-5)
    assert (low_frequency(x, y) == l1(x, y)) == (height == 16), "below 64 pixels nothing is averaged"


def test_patch_nce_by_hand() -> None:
    query = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    key = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    # The first query is as near to the other key as to its own, the second as far from both.
    assert patch_nce([query], [key], 0.5).item() == pytest.approx(math.log(2))
    # Own key at 1, the other at 0, over 0.5: log(1 + e⁻²).
    assert patch_nce([query], [query], 0.5).item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert patch_nce([query, query], [key, query], 0.5).item() == pytest.approx(
        (math.log(2) + math.log(1 + math.exp(-2))) / 2
    )
    swapped = query.flip(1)
    assert patch_nce([query], [swapped], 0.5).item() == pytest.approx(math.log(1 + math.exp(2)))


def test_patch_nce_is_the_cross_entropy_within_each_image() -> None:
    query, key = (functional.normalize(torch.randn(3, 5, 8, dtype=torch.float64), dim=2) for _ in range(2))
    expected = [functional.cross_entropy(query[k] @ key[k].T / 0.07, torch.arange(5)) for k in range(3)]
    assert patch_nce([query], [key]).item() == pytest.approx(torch.stack(expected).mean().item())
    gradients = torch.autograd.grad(
        patch_nce([query.requires_grad_()], [key.requires_grad_()]), (query, key), allow_unused=True
    )
    assert gradients[0].norm() > 0
    assert gradients[1] is None


LOGITS = (2, 1, 4, 4)


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        *[(lambda x, y, kind=kind: adversarial([x, y], True, kind), LOGITS) for kind in ("bce", "hinge", "linear")],
        (lambda x, y: relativistic([x], [y]), LOGITS),
        (lambda x, y: r1(x.requires_grad_(), [quadratic(x, 2), x.exp().sum(1, keepdim=True)]), (4, 3, 8, 8)),
        (lambda x, y: feature_matching([x], [y]), (4, 5, 3, 3)),
        (lambda x, y: low_frequency(x, y), (4, 3, 64, 64)),
        (lambda x, y: patch_nce([x / 10], [y / 10]), (4, 6, 8)),
    ],
)
def test_the_mean_of_two_halves_is_the_whole(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], shape: tuple[int, ...]
) -> None:
    """Gradients are averaged over processes and over parts of a batch."""
    x, y = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    halves = [loss(*pair).item() for pair in zip(x.chunk(2), y.chunk(2), strict=True)]
    assert sum(halves) / 2 == pytest.approx(loss(x, y).item())


def test_later_losses_are_in_fp32_under_autocast_too() -> None:
    x = torch.full((1, 64, 64), 1 / 8 + 2**-10).bfloat16()
    image = torch.full((1, 3, 64, 64), 1 + 2**-7, dtype=torch.bfloat16)
    query = functional.normalize(torch.randn(1, 16, 32), dim=2)
    exact = patch_nce([query], [query])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(patch_nce([query], [query]), exact)
        for value in (
            patch_nce([x], [x]),
            low_frequency(image, torch.zeros_like(image)),
            feature_matching([image], [torch.zeros_like(image)]),
            relativistic([image], [image]),
            adversarial([image], True, "hinge"),
        ):
            assert value.dtype == torch.float32
        assert low_frequency(image, torch.zeros_like(image)).item() == pytest.approx(1 + 2**-7, rel=1e-6)

"""R1 against gradients worked out by hand, and its place in D's update."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.model.affine import SMALL, LinearDiscriminator, X, autoencoders, make_images, make_microbatch, values
from unit.domains import PerDomain
from unit.model.extras.r1 import INTERVAL, Extra, r1
from unit.model.networks import Discriminators, build_discriminators
from unit.model.objective import total


def quadratic(x: Tensor, patch: int) -> Tensor:
    """½·Σ w x² of each patch with w = 1, 2, 3 for the channels: its gradient is w x."""
    w = torch.arange(1.0, 4, dtype=x.dtype)[:, None, None]
    return functional.avg_pool2d((w * x.square() / 2).sum(1, keepdim=True), patch) * patch**2


@pytest.mark.parametrize("patch", [1, 2, 4, 8])
def test_r1_of_a_quadratic_is_its_squared_gradient(patch: int) -> None:
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    w = torch.arange(1.0, 4, dtype=torch.float64)[:, None, None]
    per_image = (w * x.detach()).square().sum((1, 2, 3))
    patches = (8 // patch) ** 2
    assert r1(x, [quadratic(x, patch)]).item() == pytest.approx((per_image / patches / 2).mean().item())


def test_r1_adds_up_over_scales_and_does_not_grow_with_the_image() -> None:
    small = torch.ones(1, 3, 4, 4, requires_grad=True)
    large = torch.ones(1, 3, 16, 16, requires_grad=True)
    penalty = r1(small, [quadratic(small, 2)]).item()
    assert penalty == pytest.approx((1 + 4 + 9) * 4 / 2)
    assert r1(large, [quadratic(large, 2)]).item() == pytest.approx(penalty)
    two_scales = r1(small, [quadratic(small, 2), 3 * quadratic(small, 4)]).item()
    assert two_scales == pytest.approx(penalty + 9 * 4 * penalty)


def test_r1_reaches_the_weights() -> None:
    """For D(x) = a·Σx of one patch of N values it is ½·N·a², with gradient N·a."""
    a, x = torch.tensor(1.5, requires_grad=True), torch.randn(3, 3, 4, 4, requires_grad=True)
    penalty = r1(x, [(a * x).sum((1, 2, 3)).reshape(3, 1, 1, 1)])
    assert penalty.item() == pytest.approx(48 * 1.5**2 / 2)
    assert torch.autograd.grad(penalty, a)[0].item() == pytest.approx(48 * 1.5)


def test_the_mean_of_two_halves_is_the_batchs_penalty() -> None:
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)

    def penalty(x: Tensor) -> float:
        x = x.requires_grad_()
        return r1(x, [quadratic(x, 2), x.exp().sum(1, keepdim=True)]).item()

    assert sum(penalty(half.clone()) for half in x.chunk(2)) / 2 == pytest.approx(penalty(x))


class SquareDiscriminator(LinearDiscriminator):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.scale * x.square() / 2]


def test_the_terms_by_hand() -> None:
    """∇D_a is 2x = 2 at each pixel, which is a patch, and ∇D_b 3x = 6; lazily weighted 16 times as high."""
    squares = Discriminators(PerDomain(SquareDiscriminator(2), SquareDiscriminator(3)))
    terms = Extra(0.1, autoencoders()).discriminator_terms(squares, make_microbatch(32))
    assert values(terms) == pytest.approx({"r1_a": 0.1 * 16 * 2**2 / 2, "r1_b": 0.1 * 16 * 6**2 / 2})
    assert not X.a.requires_grad


def test_the_penalty_is_computed_in_every_16th_step_only() -> None:
    extra, discriminators = Extra(0.1, autoencoders()), Discriminators(PerDomain(*map(LinearDiscriminator, (1, 2))))
    steps = [step for step in range(1, 49) if extra.discriminator_terms(discriminators, make_microbatch(step))]
    assert steps == [16, 32, 48]
    assert INTERVAL == 16


def test_the_penalty_is_computed_in_fp32_under_autocast() -> None:
    discriminators, x, extra = build_discriminators(SMALL), make_images(), Extra(1.0, autoencoders())
    expected = extra.discriminator_terms(discriminators, make_microbatch(INTERVAL, x))
    with torch.autocast("cpu", torch.bfloat16):
        discriminators(x)
        terms = extra.discriminator_terms(discriminators, make_microbatch(INTERVAL, x))
    assert terms.keys() == {"r1_a", "r1_b"}
    assert all(torch.equal(term, expected[name]) for name, term in terms.items())
    total(terms).backward()
    assert all(p.grad is not None and p.grad.norm() > 0 for p in discriminators.parameters() if p.ndim == 4)

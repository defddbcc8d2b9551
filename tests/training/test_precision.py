"""bf16 trains as fp32 does: equal losses in each step, and curves that stay together over 200 steps.

Tolerances are two to three times the largest deviation over 8 seeds on a CPU with bf16 instructions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.tiny import tiny
from unit.domains import Domain, PerDomain
from unit.model.losses import kl
from unit.training.trainer import Trainer

STEPS, COMPARE_EVERY, WINDOW = 200, 20, 50
BATCH, IMAGES = 2, 8
# Powers of two, so that a weighted term shows the number format it was computed in
WEIGHTS = {"lambda0": 1.0, "lambda1": 2**-6, "lambda2": 16.0, "lambda3": 2**-6, "lambda4": 4.0}
TOLERANCES = {
    "generator_total": (0.02, 0.01),
    "reconstruction": (0.04, 0.01),
    "cycle": (0.06, 0.02),
    "kl": (0.3, 0.01),
    "cycle_kl": (0.2, 0.02),
    "adversarial": (0.2, 0.08),
    "discriminator": (0.3, 0.02),
}
"""Relative tolerance to fp32: of the means over WINDOW steps, and of one step from the same state."""


@dataclass
class Curves:
    """Terms of a run in one precision."""

    terms: list[dict[str, Tensor]] = field(default_factory=list)
    fp32_terms: list[dict[str, Tensor]] = field(default_factory=list)
    """of every COMPARE_EVERY-th step, computed in fp32 from the same state"""
    kl_of_means: list[PerDomain[Tensor]] = field(default_factory=list)
    """of the same steps, computed here in fp32"""

    def curve(self, name: str) -> Tensor:
        """Return the means over WINDOW steps."""
        return torch.stack([terms[name] for terms in self.terms]).view(-1, WINDOW).mean(1)


def make_images(seed: int) -> PerDomain[Tensor]:
    """Return soft spots, bluish in A, reddish in B."""
    generator = torch.Generator().manual_seed(seed)

    def spots(i: Domain) -> Tensor:
        coarse = torch.rand(IMAGES, 3, 4, 4, generator=generator) * 1.6 - 0.8
        tint = torch.tensor([-0.2, 0.0, 0.2] if i == Domain.A else [0.2, 0.0, -0.2]).view(3, 1, 1)
        return functional.interpolate(coarse, (16, 16), mode="bilinear") + tint

    return PerDomain.of(spots)


def batches(seed: int) -> Iterator[PerDomain[Tensor]]:
    images = make_images(seed)
    for step in range(STEPS):
        first = step * BATCH % IMAGES
        yield images.map(lambda x: x[first : first + BATCH])  # noqa: B023


def train(precision: str, seed: int = 0) -> Curves:
    config = tiny(train={"seed": seed, "batch_size": BATCH}, loss=WEIGHTS)
    cpu = torch.device("cpu")
    trainer, reference, curves = Trainer(config, cpu, precision), Trainer(config, cpu, "fp32"), Curves()
    for step, images in enumerate(batches(seed)):
        if step % COMPARE_EVERY == 0:
            reference.load_state_dict(trainer.state_dict())
            with torch.no_grad():
                mu = trainer.networks.encoder({i: images[i] for i in Domain})
                curves.kl_of_means.append(PerDomain.of(lambda i: kl(mu[i])))  # noqa: B023
            curves.fp32_terms.append(all_terms(reference, images))
        curves.terms.append(all_terms(trainer, images))
    return curves


def all_terms(trainer: Trainer, images: PerDomain[Tensor]) -> dict[str, Tensor]:
    record = trainer.step(images)
    terms = {name: value.detach() for name, value in (record.generator | record.discriminator).items()}
    total = torch.stack([terms[name] for name in record.generator]).sum()
    return terms | {"generator_total": total}


def tolerances(name: str) -> tuple[float, float]:
    return TOLERANCES[name.removesuffix("_a").removesuffix("_b")]


@pytest.fixture(scope="module")
def fp32() -> Curves:
    return train("fp32")


@pytest.fixture(scope="module")
def bf16() -> Curves:
    return train("bf16")


@pytest.mark.slow
def test_curves_stay_together(fp32: Curves, bf16: Curves) -> None:
    assert fp32.terms[-1]["generator_total"] < 0.7 * fp32.terms[0]["generator_total"]  # it learns
    for name in bf16.terms[0]:
        deviation = (bf16.curve(name) / fp32.curve(name) - 1).abs()
        assert deviation.max() < tolerances(name)[0], f"{name}: {deviation.tolist()}"


@pytest.mark.slow
def test_each_step_computes_the_losses_of_fp32(bf16: Curves) -> None:
    for step, fp32_terms in enumerate(bf16.fp32_terms):
        for name, expected in fp32_terms.items():
            deviation = abs(float(bf16.terms[step * COMPARE_EVERY][name] / expected) - 1)
            assert deviation < tolerances(name)[1], (step, name)


@pytest.mark.slow
def test_losses_are_computed_in_fp32(bf16: Curves) -> None:
    """bf16 has 8 significant bits: a loss that passed through it ends in zeros."""
    for name in bf16.terms[0]:
        values = torch.stack([terms[name] for terms in bf16.terms])
        assert values.dtype == torch.float32
        assert (values == values.bfloat16()).float().mean() < 0.1, name


@pytest.mark.slow
def test_kl_is_that_of_the_encoders_means(bf16: Curves) -> None:
    for step, expected in enumerate(bf16.kl_of_means):
        for i in Domain:
            actual = bf16.terms[step * COMPARE_EVERY][f"kl_{i}"] / WEIGHTS["lambda1"]
            assert float(actual) == pytest.approx(float(expected[i]), rel=tolerances("kl")[1])

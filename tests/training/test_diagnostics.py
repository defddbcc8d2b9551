"""Diagnostics: what each means, and that measuring changes nothing."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import tiny
from unit.config import DataConfig
from unit.domains import Domain, PerDomain
from unit.model.networks import Discriminators
from unit.streets import Streets, Weather
from unit.training.diagnostics import diagnostics, probe_batch
from unit.training.trainer import Trainer
from unit.translation.translator import Translator

CONFIG = tiny(model={"spectral_norm": True})
NAMES = PerDomain("sunny", "rainy")


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return Trainer(CONFIG, torch.device("cpu"), "fp32")


def translator_of(trainer: Trainer) -> Translator:
    return Translator(trainer.ema, trainer.config, NAMES, 0, "cpu", "fp32")


def noise(count: int, seed: int = 0) -> PerDomain[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return PerDomain.of(lambda _: torch.rand(count, 3, 16, 16, generator=generator) * 2 - 1)


class Means(nn.Module):
    """At two scales a multiple of the images' first pixel, but in each an image of its own."""

    def __init__(self, scale: float, shift: float = 0.0) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.scale * x[:, k : k + 1, :4, :4] + self.shift for k in range(2)]


def with_logits(trainer: Trainer, real: float, seen: float, scale: float = 1.0, shift: float = 0.0) -> dict[str, float]:
    """Diagnostics of discriminators whose logits of held-out and training images are about `real` and `seen`."""
    held_out, training = noise(6).map(lambda x: real + 0.1 * x), noise(6).map(lambda x: seen + 0.1 * x)
    judges = Discriminators(PerDomain.of(lambda _: Means(scale, shift)))
    return diagnostics(translator_of(trainer), judges, held_out, training)


def test_measuring_changes_nothing_and_is_repeatable(trainer: Trainer) -> None:
    before = copy.deepcopy(trainer.state_dict())
    seen = [diagnostics(translator_of(trainer), trainer.discriminators, noise(9), noise(9, 1)) for _ in range(2)]
    after = trainer.state_dict()
    assert seen[0] == seen[1]
    for part in ("networks", "discriminators", "ema"):
        assert all(torch.equal(tensor, after[part][name]) for name, tensor in before[part].items())
    assert all(module.training for module in trainer.discriminators.modules())


def test_the_domains_are_treated_alike(trainer: Trainer) -> None:
    """The same networks under the other domain's name have the same diagnostics there."""
    swapped = copy.deepcopy(trainer)
    for modules in (
        swapped.ema.encoder.private,
        swapped.ema.generator.private,
        swapped.discriminators.by_domain,
    ):
        modules["a"], modules["b"] = modules["b"], modules["a"]
    held_out, training = noise(3), noise(3, 1)
    here = diagnostics(translator_of(trainer), trainer.discriminators, held_out, training)
    there = diagnostics(translator_of(swapped), swapped.discriminators, held_out.swapped(), training.swapped())
    for i in Domain:
        for tag, value in here.items():
            for ending in (i.value, i.direction):
                other = i.other.value if ending == i.value else i.other.direction
                if tag.endswith(f"_{ending}"):
                    assert there[tag.removesuffix(ending) + other] == pytest.approx(value, abs=1e-6)


def test_units_that_only_vary_within_an_image_are_not_active(trainer: Trainer) -> None:
    """Between copies of one image no element of the code differs, however much channels and places do."""
    one, many = noise(1).map(lambda x: x.expand(5, -1, -1, -1)), noise(5)
    judges, translator = trainer.discriminators, translator_of(trainer)
    assert diagnostics(translator, judges, one, many)["vital/active_units_a"] == 0
    assert diagnostics(translator, judges, many, many)["vital/active_units_a"] > 0.1


def test_images_seen_in_training_like_others_are_no_overfitting(trainer: Trainer) -> None:
    assert with_logits(trainer, real=3.0, seen=3.0)["vital/overfitting_a"] == 0
    assert with_logits(trainer, real=3.0, seen=2.0)["vital/overfitting_a"] == 0


def test_overfitting_is_how_far_held_out_images_are_on_the_way_to_translations(trainer: Trainer) -> None:
    overfitting = [with_logits(trainer, real, seen=4.0)["vital/overfitting_b"] for real in (3.9, 3.0, 2.0, 1.0, -1.0)]
    assert overfitting == sorted(overfitting)
    assert overfitting[2] == pytest.approx(0.5, abs=0.15)
    assert overfitting[-1] == 1


def test_few_images_prove_nothing(trainer: Trainer) -> None:
    """Two images of each, whose logits are far apart."""

    def two(*levels: float) -> PerDomain[Tensor]:
        return PerDomain.of(lambda _: torch.stack([torch.full((3, 16, 16), level) for level in levels]))

    judges = Discriminators(PerDomain.of(lambda _: Means(1.0)))
    assert diagnostics(translator_of(trainer), judges, two(1.0, 4.0), two(2.0, 6.0))["vital/overfitting_a"] == 0


@pytest.mark.parametrize(("real", "expected"), [(5.0, 1.0), (-5.0, 0.0)])
def test_accuracy_is_how_often_images_are_above_translations(trainer: Trainer, real: float, expected: float) -> None:
    assert with_logits(trainer, real, real)["vital/discriminator_accuracy_a"] == expected


def test_the_scale_of_logits_does_not_matter(trainer: Trainer) -> None:
    one, other = (with_logits(trainer, 0.1, 0.3, *how) for how in ((1.0, 0.0), (20.0, 7.0)))
    for name in ("discriminator_accuracy", "overfitting"):
        assert other[f"vital/{name}_a"] == pytest.approx(one[f"vital/{name}_a"], abs=1e-4)
    constant = with_logits(trainer, 0.1, 0.3, 0.0, 2.0)
    assert constant["vital/discriminator_accuracy_a"] == 0.5
    assert constant["vital/logit_deviation_a"] == 0
    assert 0 < with_logits(trainer, 0.1, 0.3, 0.01, 1e4)["vital/logit_deviation_a"] < 1e-4


def test_one_scale_that_varies_is_enough(trainer: Trainer) -> None:
    class OneIsConstant(Means):
        def forward(self, x: Tensor) -> list[Tensor]:
            first, second = super().forward(x)
            return [first, torch.zeros_like(second)]

    judges = Discriminators(PerDomain.of(lambda _: OneIsConstant(1.0)))
    found = diagnostics(translator_of(trainer), judges, noise(2), noise(2))
    assert found["vital/logit_deviation_a"] > 0.1


def test_what_can_not_be_measured_is_left_out(trainer: Trainer) -> None:
    names = {
        tag.rsplit("_", 1)[0] for tag in diagnostics(translator_of(trainer), trainer.discriminators, noise(1), noise(1))
    }
    assert {"vital/spread", "vital/active_units", "vital/overfitting"}.isdisjoint(names)
    assert {"vital/identity_distance", "vital/discriminator_accuracy"} <= names


def test_discriminators_that_are_not_trained_are_left_out() -> None:
    without = Trainer(replace(CONFIG, loss=replace(CONFIG.loss, lambda0=0.0)), torch.device("cpu"), "fp32")
    tags = diagnostics(translator_of(without), without.discriminators, noise(2), noise(2)).keys()
    assert not any("discriminator" in tag or "logit" in tag or "overfitting" in tag for tag in tags)


def test_the_probe_batch_is_spread_over_the_list() -> None:
    data = DataConfig(load_size=16, crop_size=16)
    source = Streets(Weather.SUNNY, "trainA", 50, 16, 0)
    few = Streets(Weather.RAINY, "trainB", 3, 16, 0)
    found = probe_batch(PerDomain(source, source), data)
    assert len(found.a) == 16
    assert not torch.equal(found.a[:2], probe_batch(PerDomain(source, few), data).a[:2])
    assert [len(x) for x in probe_batch(PerDomain(source, few), data)] == [16, 3]

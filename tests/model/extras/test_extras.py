"""Ingredients are plug-ins: absent at 0, one file each, and their terms add up."""

import subprocess
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from tests.model.affine import NOISE, SMALL, X, autoencoders, constant, discriminators, make_microbatch, seeds, value
from unit.config import LossConfig
from unit.domains import PerDomain
from unit.model.extras import LossExtra, LossExtras
from unit.model.networks import Autoencoders, Discriminators, build_autoencoders
from unit.model.noise import Seeds
from unit.model.objective import Microbatch, Terms, forward_pass

KEYS = ("r1", "augmentation", "projected", "feature_matching", "low_frequency", "patch_nce", "cycle_noise", "memory")

IMPORTED = """
import sys
from unit.config import LossConfig, ModelConfig
from unit.model.extras import LossExtras
from unit.model.networks import build_autoencoders
import unit.training.trainer
LossExtras(LossConfig({}), build_autoencoders(ModelConfig(channels=4)))
print(*sorted(name.removeprefix("unit.model.extras.") for name in sys.modules if "unit.model.extras." in name))
"""


@pytest.mark.parametrize(
    ("settings", "imported"),
    [("", ""), ("r1=0.0, augmentation='none'", ""), ("r1=0.1, cycle_noise=0.1", "cycle_noise r1")],
)
def test_an_ingredient_is_imported_only_where_it_is_switched_on(settings: str, imported: str) -> None:
    command = [sys.executable, "-c", IMPORTED.format(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == imported


def test_without_ingredients_nothing_changes_and_nothing_is_trained() -> None:
    extras = LossExtras(LossConfig(), autoencoders())
    translation = constant(9, 28)

    def no_seeds(purpose: str, _: object) -> list[int]:
        raise AssertionError(purpose)

    real, fake = extras.discriminator_inputs(X, translation, no_seeds)
    assert (real, fake.a, fake.b) == (X, translation.b, translation.a)
    assert extras.perturb(translation, no_seeds) is translation
    assert extras.discriminator_terms(discriminators(), make_microbatch(16)) == {}
    assert extras.generator_terms(autoencoders(), discriminators(), make_microbatch()) == {}
    assert not list(extras.parameters())
    assert extras.state_dict() == {}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_switches_on_its_own_ingredient_only(key: str) -> None:
    setting = "color" if key == "augmentation" else 0.5
    extras = LossExtras(LossConfig(**{key: setting}), build_autoencoders(SMALL))
    assert list(extras) == [key]
    (extra,) = extras.values()
    assert extra.setting == setting
    heads = [name for name, _ in extras.named_parameters()]
    assert all(name.startswith(("patch_nce.heads.", "projected.")) for name in heads)
    assert bool(heads) == (key in ("patch_nce", "projected"))
    assert list(extras.trained_with("generators")) == ([] if key == "projected" else [key])
    assert list(extras.trained_with("discriminators")) == ([key] if key == "projected" else [])


def test_every_ingredient_draws_from_seeds_of_its_own() -> None:
    """None shares them with another, nor with the codes' noise."""
    networks, asked = build_autoencoders(SMALL), []
    extras = LossExtras(LossConfig(augmentation="color", patch_nce=1.0, cycle_noise=0.1), networks)

    def recorded(purpose: str, i: str) -> list[int]:
        asked.append((purpose, i))
        return seeds(purpose, i)

    x = PerDomain.of(lambda _: torch.rand(4, 3, 16, 24))
    noise = NOISE.__class__(*(PerDomain.of(lambda _: torch.zeros(4, 16, 4, 6)) for _ in range(2)))
    out = forward_pass(networks, x, noise, lambda x: extras.perturb(x, recorded))
    extras.discriminator_inputs(x, out.translation, recorded)
    extras.generator_terms(networks, discriminators(), Microbatch(x, recorded, noise, out))
    purposes = ("image noise", "augmentation of real", "augmentation of fake", "patches")
    assert sorted(asked) == sorted((purpose, i) for purpose in purposes for i in ("a", "b"))


@dataclass(frozen=True)
class ConfigWithMore(LossConfig):
    """LossConfig as it would be with the keys of two new ingredients."""

    brightness: float = 0.0
    darkness: float = 0.0


class Brightness(LossExtra):
    """Uses every hook, and has a parameter of its own."""

    def __init__(self, setting: float | str, networks: Autoencoders) -> None:
        super().__init__(setting, networks)
        self.gain = nn.Parameter(torch.tensor(1.0))

    def augment(self, images: PerDomain[Tensor], purpose: str, seeds: Seeds) -> PerDomain[Tensor]:
        return images.map(lambda x: x + self.weight)

    def perturb(self, translation: PerDomain[Tensor], seeds: Seeds) -> PerDomain[Tensor]:
        return translation.map(lambda x: 10 * x)

    def discriminator_terms(self, discriminators: Discriminators, batch: Microbatch) -> Terms:
        assert batch.d_real
        return {"brightness_d": batch.d_real.a.mean() * batch.step}

    def generator_terms(self, networks: Autoencoders, discriminators: Discriminators, batch: Microbatch) -> Terms:
        assert batch.out
        return {"brightness_g": self.weight * self.gain * batch.out.translation.a.mean()}


class Darkness(LossExtra):
    def perturb(self, translation: PerDomain[Tensor], seeds: Seeds) -> PerDomain[Tensor]:
        return translation.map(lambda x: x - self.weight)

    def discriminator_terms(self, discriminators: Discriminators, batch: Microbatch) -> Terms:
        assert batch.d_real
        return {"darkness_d": -batch.d_real.b.mean()}

    def generator_terms(self, networks: Autoencoders, discriminators: Discriminators, batch: Microbatch) -> Terms:
        return {"darkness_g": torch.tensor(self.weight)}


@pytest.fixture
def _new_ingredients(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, extra in (("brightness", Brightness), ("darkness", Darkness)):
        file = ModuleType(f"unit.model.extras.{name}")
        file.Extra = extra
        monkeypatch.setitem(sys.modules, file.__name__, file)


@pytest.mark.usefixtures("_new_ingredients")
def test_a_new_ingredient_is_one_file_and_one_key() -> None:
    extras = LossExtras(ConfigWithMore(brightness=3.0), autoencoders())
    assert [name for name, _ in extras.named_parameters()] == ["brightness.gain"]
    real, fake = extras.discriminator_inputs(X, constant(9, 28), seeds)
    assert [value(x) for x in (*real, *fake)] == [1 + 3, 2 + 3, 28 + 3, 9 + 3]
    assert [value(x) for x in extras.perturb(constant(9, 28), seeds)] == [90, 280]
    assert extras.discriminator_terms(discriminators(), make_microbatch(2))["brightness_d"] == 1 * 2
    terms = extras.generator_terms(autoencoders(), discriminators(), make_microbatch())
    assert terms["brightness_g"].item() == 3 * 9
    terms["brightness_g"].backward()
    assert next(extras.parameters()).grad == 3 * 9


@pytest.mark.usefixtures("_new_ingredients")
def test_terms_of_several_ingredients_are_joined_and_changes_follow_each_other() -> None:
    extras = LossExtras(ConfigWithMore(brightness=3.0, darkness=1.0, low_frequency=13.0), autoencoders())
    assert [value(x) for x in extras.perturb(constant(9, 28), seeds)] == [10 * 9 - 1, 10 * 28 - 1]
    assert extras.discriminator_terms(discriminators(), make_microbatch(2)).keys() == {"brightness_d", "darkness_d"}
    terms = extras.generator_terms(autoencoders(), discriminators(), make_microbatch())
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {"brightness_g": 3 * 9, "darkness_g": 1, "low_frequency_a": 13 * (9 - 1), "low_frequency_b": 13 * (28 - 2)}
    )

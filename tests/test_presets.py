"""Every preset loads, says what its name promises, and makes a step of its own kind at a tiny size."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unit.config import Config, LossConfig
from unit.config_file import PRESETS, read_config
from unit.domains import PerDomain
from unit.training.trainer import Trainer

FILES = sorted(PRESETS.glob("*.yaml"))
MODERN = {
    "model.normalization": "group",
    "model.upsampling": "nearest",
    "model.initialization": "kaiming",
    "model.same_init": True,
    "loss.adversarial": "least_squares",
    "loss.lambda0": 0.3,
    "loss.lambda1": 0.001,
    "loss.lambda2": 20,
    "loss.lambda3": 0.001,
    "loss.lambda4": 5,
    "loss.r1": 0.02,
}
SMALL = {
    "model.channels": 16,
    "model.residual_blocks": 2,
    "model.discriminator_channels": 48,
    "model.discriminator_scales": 2,
    "model.discriminator_layers": 3,
    "train.log_every": 20,
    "train.sample_every": 250,
    "train.checkpoint_every": 500,
}
STREETS = {
    **MODERN,
    **SMALL,
    "data.load_size": 64,
    "data.crop_size": 64,
    "model.downsamples": 1,
    "optimizer.learning_rate_generator": 2e-3,
    "optimizer.learning_rate_discriminator": 1e-3,
    "train.steps": 4000,
    "train.max_minutes": 8,
    "train.batch_size": 4,
    "train.validate_every": 1000,
}
RESOLVED: dict[str, dict[str, Any]] = {
    "paper": {},
    "modern": MODERN,
    "streets": STREETS,
    "earth": {
        **STREETS,
        "data.root": "data/earth",
        "data.paired_test": True,
        "data.name_a": "satellite",
        "data.name_b": "relief",
        "data.flip": False,
    },
    "laptop": {
        **MODERN,
        **SMALL,
        "data.load_size": 144,
        "data.crop_size": 128,
        "optimizer.learning_rate_generator": 1e-3,
        "optimizer.learning_rate_discriminator": 5e-4,
        "train.steps": 30_000,
        "train.batch_size": 2,
        "train.validate_every": 2500,
    },
    "photos": {
        **MODERN,
        "data.load_size": 286,
        "optimizer.learning_rate_generator": 2e-4,
        "optimizer.schedule": "linear",
        "optimizer.decay_start": 100_000,
        "optimizer.decay_end": 200_000,
        "train.steps": 200_000,
        "train.batch_size": 2,
        "train.sample_every": 1000,
        "train.checkpoint_every": 1000,
        "train.validate_every": 5000,
    },
}
"""The values in which each preset differs from the defaults, inherited ones included."""


def test_the_presets_are_there() -> None:
    assert {path.stem for path in FILES} == RESOLVED.keys()


@pytest.mark.parametrize("name", RESOLVED)
def test_a_preset_resolves_to_its_recipe(name: str) -> None:
    resolved, defaults = read_config(PRESETS / f"{name}.yaml").to_flat_dict(), Config().to_flat_dict()
    assert resolved == defaults | RESOLVED[name]


def test_the_recipe_is_written_once() -> None:
    for path in FILES:
        written = [key for key in MODERN if f"\n  {key.partition('.')[2]}:" in path.read_text(encoding="utf-8")]
        assert path.stem in ("modern", "paper") or not written


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_preset_loads_and_makes_a_step(path: Path) -> None:
    config = read_config(path)
    small = replace(
        config, model=replace(config.model, channels=4, discriminator_channels=None, residual_blocks=2, shared_blocks=1)
    )
    images = PerDomain.of(lambda _: torch.rand(config.train.batch_size, 3, 64, 64) * 2 - 1)
    record = Trainer(small, torch.device("cpu"), "fp32").step(images)
    assert all(torch.isfinite(term) for term in (record.generator | record.discriminator).values())
    assert {name.rsplit("_", 1)[0] for name in record.generator} == {
        "kl",
        "reconstruction",
        "cycle_kl",
        "cycle",
        "adversarial",
    }


@pytest.mark.parametrize(("name", "size"), [("streets", 64), ("laptop", 128), ("photos", 256)])
def test_the_presets_have_the_size_that_the_table_says(name: str, size: int) -> None:
    config = read_config(PRESETS / f"{name}.yaml")
    assert config.data.crop_size == size
    assert config.data.synthetic


def test_the_help_on_augmentation_says_what_the_presets_do() -> None:
    meaning = " ".join(LossConfig.__pydantic_fields__["augmentation"].description.split())
    used = [file.name for file in FILES if read_config(file).loss.augmentation != "none"]
    assert ("no preset has it" in meaning) == (not used)
    assert "5000" not in meaning, "no number without a study"

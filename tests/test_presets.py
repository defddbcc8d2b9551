"""Every preset loads, says what its name promises, and makes a step of its own kind at a tiny size."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unit.cli.train import PRESETS
from unit.config import Config
from unit.config_file import read_config
from unit.domains import PerDomain
from unit.training.trainer import Trainer

FILES = sorted(PRESETS.glob("*.yaml"))


def test_the_presets_are_there() -> None:
    assert {path.stem for path in FILES} >= {"paper", "streets", "laptop", "photos", "earth"}


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
    assert config.data.embedded


def test_the_defaults_are_the_papers_preset() -> None:
    assert read_config(PRESETS / "paper.yaml") == Config()

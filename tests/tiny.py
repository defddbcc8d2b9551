"""A run small enough for tests: 16 px, 4 channels, a few scenes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from unit.config import Config, DataConfig, LossConfig, ModelConfig, OptimizerConfig, TrainConfig

TINY = Config(
    data=DataConfig(load_size=20, crop_size=16, streets_train=5, streets_test=3, workers=0),
    model=ModelConfig(
        channels=4, residual_blocks=2, initialization="kaiming", discriminator_scales=2, discriminator_layers=2
    ),
    loss=LossConfig(adversarial="least_squares"),
    optimizer=OptimizerConfig(learning_rate_generator=1e-3, learning_rate_discriminator=2e-3),
    train=TrainConfig(
        steps=6,
        batch_size=2,
        device="cpu",
        precision="fp32",
        log_every=1,
        sample_every=3,
        checkpoint_every=2,
        validate_every=3,
    ),
)


def tiny(**sections: dict[str, Any]) -> Config:
    """TINY with some keys changed, e.g. ``tiny(train={"steps": 4})``."""
    return replace(TINY, **{name: replace(getattr(TINY, name), **keys) for name, keys in sections.items()})


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, without how fast the machine was."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("perf/")} for line in lines]

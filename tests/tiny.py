"""A run small enough for tests: 16 px, 4 channels, a few scenes; and what two runs have in common."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unit.config import Config, DataConfig, LossConfig, ModelConfig, OptimizerConfig, TrainConfig
from unit.training import checkpoint
from unit.training.distributed import SINGLE_PROCESS

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


OF_THE_PROCESS = ("perf/", "val/kid", "val/st_lpips", "val/feature_distance", "_overview/kid")
"""Tags of how fast it was, and of metrics by features, which conftest.py makes coarse in the tests' own process."""


def tiny(**sections: dict[str, Any]) -> Config:
    """TINY with some keys changed, e.g. ``tiny(train={"steps": 4})``."""
    return replace(TINY, **{name: replace(getattr(TINY, name), **keys) for name, keys in sections.items()})


def batch_indices(steps: range, batch_size: int) -> list[range]:
    """The sample indices of each batch of a single process."""
    return [SINGLE_PROCESS.sample_indices(step, batch_size) for step in steps]


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, without what differs between processes."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith(OF_THE_PROCESS)} for line in lines]


def state_of(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoint, by its place."""
    found: dict[str, torch.Tensor] = {}

    def walk(item: object, place: str) -> None:
        if isinstance(item, torch.Tensor):
            found[place] = item
        elif isinstance(item, dict):
            for key, value in item.items():
                walk(value, f"{place}/{key}")

    walk(checkpoint.load(checkpoint.available(run / "checkpoints")[0][1]), "")
    return found


def assert_same_run(one: Path, two: Path) -> None:
    first, second = state_of(one), state_of(two)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[place], second[place]) for place in first)
    assert metrics(one) == metrics(two)
    samples = {path.name: path.read_bytes() for path in (one / "samples").iterdir()}
    assert samples == {path.name: path.read_bytes() for path in (two / "samples").iterdir()}
    models = [load_file(run / "model.safetensors") for run in (one, two)]
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())
    assert curves(one) == curves(two)


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return TensorBoard's content, except speeds: (step, value or PNG)."""
    board = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    board.Reload()
    tags = board.Tags()
    found: dict[str, list[Any]] = {
        tag: [(event.step, event.value) for event in board.Scalars(tag)]
        for tag in tags["scalars"]
        if not tag.startswith(OF_THE_PROCESS)
    }
    return found | {
        tag: [(event.step, event.encoded_image_string) for event in board.Images(tag)] for tag in tags["images"]
    }

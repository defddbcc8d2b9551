"""What a run would take, measured on a few real steps."""

from __future__ import annotations

import io
import shutil
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import torch

from unit.config import Config
from unit.data.bad_images import BadImages
from unit.devices import describe, peak_memory, synchronize, total_memory
from unit.evaluation.evaluate import sample_grids
from unit.evaluation.grids import in_column
from unit.images import to_image
from unit.model.networks import parameter_count
from unit.training.distributed import init_distributed
from unit.training.progress import format_duration
from unit.training.setup import Setup
from unit.training.trainer import Trainer

_STEPS = 4
"""To make; the first, which is slow, does not count."""


def describe_plan(config: Config, out: Path | None = None) -> str:
    """Make a few steps as `train` would, write nothing, and say what the whole run takes: time, memory, disk.

    Raises:
        UserError: what `train` would raise.
    """
    with init_distributed() as ranks:
        return _plan(Setup.of(config, out, ranks))


def _plan(setup: Setup) -> str:
    config = setup.config
    try:
        trainer = setup.trainer()
        seconds = _seconds_a_step(setup, trainer)
        disk = _disk_bytes(setup, trainer)
    except (RuntimeError, MemoryError) as error:
        explained = setup.explain(error)
        if explained is None:
            raise
        raise explained from error
    millions = [parameter_count(network) / 1e6 for network in (trainer.networks, trainer.discriminators)]
    return "\n".join(
        [
            f"{setup.out}: {config.train.steps} steps on {describe(setup.device)}, {setup.precision}",
            setup.datasets.describe(),
            "{:.1f} M parameters in encoders and generators, {:.1f} M in the discriminators".format(*millions),
            _time(config, seconds),
            f"memory: {peak_memory(setup.device) / 1e9:.1f} GB at most, of {total_memory(setup.device) / 1e9:.0f} GB",
            _room(setup.out, disk),
        ]
    )


def _seconds_a_step(setup: Setup, trainer: Trainer) -> float:
    seconds = []
    bad = BadImages(setup.datasets.train.map(len))
    with closing(setup.batches(range(_STEPS), bad)) as batches:
        start = time.perf_counter()
        for images in batches:
            trainer.step(images)
            synchronize(setup.device)
            now = time.perf_counter()
            seconds.append(now - start)
            start = now
    return median(seconds[1:])


def _disk_bytes(setup: Setup, trainer: Trainer) -> int:
    """Of checkpoints, the model and sample grids at the end of the run."""
    train, translator = setup.config.train, setup.translator(trainer)
    checkpoints = train.keep_last + 1  # the new one is there before an old one goes
    checkpoints += train.steps // train.keep_every if train.keep_every else 0
    samples = (
        2 * _sheet_bytes(setup, trainer) * (1 + train.steps // train.sample_every)
    )  # as a file, and in TensorBoard
    return checkpoints * _tensor_bytes(trainer.state_dict()) + 2 * len(translator.to_bytes()) + samples


def _sheet_bytes(setup: Setup, trainer: Trainer) -> int:
    content = io.BytesIO()
    to_image(in_column(list(sample_grids(setup.translator(trainer), setup.datasets.test)), gap=12)).save(content, "PNG")
    return content.tell()


def _tensor_bytes(value: Any) -> int:
    """Of all tensors in nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(_tensor_bytes(item) for item in items)


def _time(config: Config, seconds: float) -> str:
    train = config.train
    whole = f"time: {seconds:.3g} s a step, {format_duration(seconds * train.steps / 60)} for {train.steps} steps"
    return whole + (f" (train.max_minutes ends it after {train.max_minutes:g} min)" if train.max_minutes else "")


def _room(out: Path, needed: int) -> str:
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    line = f"disk: {needed / 1e6:,.0f} MB for checkpoints, model and samples; {free / 1e6:,.0f} MB are free"
    advice = "; too little: lower train.keep_last, raise train.sample_every or train.keep_every, or give another --out"
    return line + (advice if needed > free else "")

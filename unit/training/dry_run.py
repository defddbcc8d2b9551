"""The time, memory and disk space that a run would take, measured on a few real steps."""

from __future__ import annotations

import io
import shutil
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from unit.config import Config
from unit.data.bad_images import BadImages
from unit.devices import describe, peak_memory, synchronize, total_memory
from unit.errors import escape, format_bytes
from unit.evaluation.grids import sample_grids, stack_vertically
from unit.images import to_image
from unit.model.networks import parameter_count
from unit.training.checkpoint import available
from unit.training.distributed import init_distributed
from unit.training.initial_weights import initialize
from unit.training.progress import format_duration
from unit.training.resolve import ResolvedConfig, explain_errors, resolve
from unit.training.trainer import Trainer

_STEPS = 4
"""The first is slow and does not count."""


def describe_plan(config: Config, out: Path | None = None) -> str:
    """Run a few steps as `train` would, write nothing, and describe the run: its time, memory and disk space.

    Raises:
        UserError: what `train` would raise.
    """
    with init_distributed() as ranks:
        resolved = resolve(config, out, ranks)
        with explain_errors(resolved.device):
            trainer = resolved.build_trainer()
            if config.train.init_from and not available(resolved.out / "checkpoints"):
                initialize(trainer)
            seconds = _seconds_per_step(resolved, trainer)
            disk = _disk_bytes(resolved, trainer)
    train, device = config.train, resolved.device
    millions = [parameter_count(network) / 1e6 for network in (trainer.networks, trainer.discriminators)]
    minutes, steps = seconds * train.steps / 60, f"{train.steps} steps"
    if train.max_minutes is not None and train.max_minutes < minutes:
        minutes, steps = (
            train.max_minutes,
            f"about {train.max_minutes * 60 / seconds:.0f} of {steps} (train.max_minutes)",
        )
    return (
        f"{escape(resolved.out)}: {train.steps} steps on {describe(device)}, {resolved.precision}\n"
        f"{resolved.datasets.describe()}\n"
        f"{millions[0]:.1f} M parameters in encoders and generators, {millions[1]:.1f} M in the discriminators\n"
        f"time: {seconds:.3g} s/step, {format_duration(minutes)} for {steps}\n"
        f"memory: {format_bytes(peak_memory(device))} at most, of {format_bytes(total_memory(device))}\n"
        f"{_describe_disk(resolved.out, disk)}"
    )


def _seconds_per_step(resolved: ResolvedConfig, trainer: Trainer) -> float:
    times = [time.perf_counter()]
    with closing(resolved.batches(range(_STEPS), BadImages(resolved.datasets.train.map(len)))) as batches:
        for images in batches:
            trainer.step(images)
            synchronize(resolved.device)
            times.append(time.perf_counter())
    return median(end - start for start, end in pairwise(times[1:]))


def _disk_bytes(resolved: ResolvedConfig, trainer: Trainer) -> int:
    """The size of checkpoints, models and sample grids at the end of the run."""
    train, translator = resolved.config.train, resolved.translator(trainer)
    checkpoints = train.keep_last + 1  # the new one is written before an old one is deleted
    checkpoints += train.steps // train.keep_every if train.keep_every else 0
    checkpoint, grid = io.BytesIO(), io.BytesIO()
    torch.save(trainer.state_dict(), checkpoint)
    to_image(stack_vertically(list(sample_grids(translator, resolved.datasets.test)), gap=12)).save(grid, "PNG")
    samples = 2 * grid.tell() * (1 + train.steps // train.sample_every)  # as a file, and in TensorBoard
    return checkpoints * checkpoint.tell() + 2 * len(translator.to_bytes()) + samples


def _describe_disk(out: Path, needed: int) -> str:
    existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    line = f"disk: {format_bytes(needed)} for checkpoints, model and samples; {format_bytes(free)} are free"
    advice = "; too little: lower train.keep_last, raise train.sample_every or train.keep_every, or give another --out"
    return line + (advice if needed > free else "")

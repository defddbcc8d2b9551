"""The time, memory and disk space that a run would take, measured on a few real steps."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from unit.config import FOLDER_KEYS, Config
from unit.devices import describe, peak_memory, total_memory
from unit.errors import escape, format_bytes
from unit.evaluation.grids import sample_grids, stack_vertically
from unit.images import to_image
from unit.model.networks import parameter_count
from unit.training.auto_config import AutoConfig
from unit.training.checkpoint import available
from unit.training.distributed import init_distributed
from unit.training.initial_weights import initialize
from unit.training.progress import format_duration
from unit.training.resolve import ResolvedConfig, explain_errors
from unit.training.speed import measure_step
from unit.training.trainer import Trainer


@dataclass(frozen=True)
class Plan:
    """A run that has not been started."""

    config: Config
    """the settings that would hold, with the paths as they were given"""
    description: str
    """its time, memory and disk space; empty if nothing was measured"""


def plan_run(
    config: Config,
    out: Path | None = None,
    auto: AutoConfig | None = None,
    *,
    restart: bool = False,
    measure: bool = True,
) -> Plan:
    """Settle a run as `train` would, and with `measure` run a few of its steps; write nothing.

    Raises:
        UserError: what `train` would raise.
    """
    auto = auto or AutoConfig()
    with init_distributed() as ranks:
        description = ""
        if measure or auto.minutes is not None:
            resolved = auto.resolve(config, out, ranks, restart=restart)
            settled, description = resolved.config, _describe(resolved) if measure else ""
        else:
            settled, _ = auto.continued(config, out, ranks, restart=restart)
    given: dict[str, Any] = {key: getattr(config.data, key) for key in FOLDER_KEYS}
    train = replace(settled.train, init_from=config.train.init_from)
    return Plan(replace(settled, data=replace(settled.data, **given), train=train), description)


def _describe(resolved: ResolvedConfig) -> str:
    with explain_errors(resolved.device):
        trainer = resolved.build_trainer()
        if resolved.config.train.init_from and not available(resolved.out / "checkpoints"):
            initialize(trainer)
        seconds = measure_step(resolved, trainer)
        disk = _disk_bytes(resolved, trainer)
    train, device = resolved.config.train, resolved.device
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

"""A run: a configuration in, a trained model out; called again, it goes on where it stopped."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unit.config import Config
from unit.config_file import to_yaml
from unit.data.batches import TrainingImages, training_batches
from unit.data.datasets import Datasets, open_datasets
from unit.devices import configure, describe, out_of_memory, resolve_device, resolve_precision
from unit.domains import PerDomain
from unit.errors import DataError, UserError
from unit.evaluation.evaluate import Figures, evaluate, sample_grids
from unit.model.networks import build_autoencoders, build_discriminators, parameter_count
from unit.training.monitor import Monitor, figure_scalars, step_scalars
from unit.training.progress import Progress
from unit.training.run_folder import RunFolder
from unit.training.stopping import StopRequest, stop_on_signals
from unit.training.trainer import StepRecord, Trainer
from unit.translation.translator import Translator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    folder: Path
    names: PerDomain[str]
    step: int
    exit_status: int
    """0; 130 or 143 when SIGINT or SIGTERM ended it"""
    figures: Figures | None
    """the evaluation at the end, when the test pictures are aligned pairs and the run ended by itself"""


def train(config: Config, out: Path | None = None) -> Result:
    """Train UNIT until `train.steps` or `train.max_minutes`, or go on with what is in `out`.

    Args:
        config: the resolved configuration.
        out: the run's folder; None: runs/NAME_A-NAME_B, and runs/streets for the embedded streets.

    Raises:
        UserError: a folder, a setting or the machine does not allow it; the message says what to do.
    """
    device = resolve_device(config.train.device)
    configure(device, config.train.deterministic)
    datasets = open_datasets(config.data, config.train.seed)
    run = _Run(config, datasets, out or default_folder(config, datasets), device)
    with stop_on_signals() as stop:
        try:
            return run.go_on(stop)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise UserError(
                f"the memory of {device} does not suffice; lower train.batch_size, data.crop_size or model.channels. "
                "The last checkpoint is good"
            ) from error


def default_folder(config: Config, datasets: Datasets) -> Path:
    """Where a run goes that was not told."""
    return Path("runs") / ("streets" if config.data.embedded else f"{datasets.names.a}-{datasets.names.b}")


def describe_plan(config: Config, out: Path | None = None) -> str:
    """What `train` would do; raises what it would of the folders and the device."""
    device = resolve_device(config.train.device)
    datasets = open_datasets(config.data, config.train.seed)
    networks = build_autoencoders(config.model), build_discriminators(config.model)
    millions = [parameter_count(network) / 1e6 for network in networks]
    return "\n".join(
        [
            f"{out or default_folder(config, datasets)}: {config.train.steps} steps on {describe(device)}",
            datasets.describe(),
            "{:.1f} M parameters in encoders and generators, {:.1f} M in the discriminators".format(*millions),
        ]
    )


class _Run:
    """One part of a run, from where it starts or goes on to where it ends or is stopped."""

    def __init__(self, config: Config, datasets: Datasets, out: Path, device: torch.device) -> None:
        self.config, self.datasets, self.device = config, datasets, device
        self.precision = resolve_precision(config.train.precision, device)
        self.folder = RunFolder(out)
        self.trainer = Trainer(config, device, self.precision)
        self.facts: dict[str, Any] = {
            "precision": self.precision,
            "thread count": torch.get_num_threads(),
            "list of training images": datasets.digest(),
        }
        self.resumed = self.folder.resume(self.trainer, self.facts)
        self.first_step = self.trainer.steps_done
        self.saved_step = self.first_step if self.resumed else None
        self.figures: tuple[int, Figures] | None = None
        environment = self.folder.begin(config, datasets, device, self.precision)
        self.monitor = Monitor(out, self.first_step if self.resumed else None)
        log.info("%s on %s, %s\n%s", out, describe(device), self.precision, datasets.describe())
        if self.resumed:
            log.info("going on from step %d", self.first_step)
        else:
            for tag, text in (
                ("config", to_yaml(config)),
                ("environment", json.dumps(environment, indent=2)),
                ("dataset", datasets.describe()),
            ):
                self.monitor.text(0, tag, text)

    def go_on(self, stop: StopRequest) -> Result:
        """Train until the end or a stop; then the figures, when it ended by itself, a model and a checkpoint."""
        try:
            if not self.resumed:
                self._write_samples()
                self._save()
            self._train(stop)
            ended = not stop.signal or self.trainer.steps_done >= self.config.train.steps
            figures = self._validate() if ended and self.datasets.test.paired else None
            self._save()
        except BaseException:
            with suppress(UserError):  # that what is closed can't be written is not the first thing to say
                self.monitor.close()
            raise
        self.monitor.close()
        status = 0 if ended else 128 + stop.signal
        return Result(self.folder.path, self.datasets.names, self.trainer.steps_done, status, figures)

    def _train(self, stop: StopRequest) -> None:
        train = self.config.train
        deadline = math.inf if train.max_minutes is None else time.monotonic() + 60 * train.max_minutes
        steps = range(self.trainer.steps_done, train.steps)
        with Progress(steps, train.batch_size, train.max_minutes, self.device) as progress:
            try:
                for images in progress.waiting_for(self._batches(steps)):
                    record = self.trainer.step(images)
                    progress.step_done()
                    self._do_what_is_due(record, progress)
                    if stop.signal or time.monotonic() >= deadline:
                        break
            except DataError:  # the state is as good as before the picture that is not
                self._save()
                raise

    def _batches(self, steps: range) -> Iterator[PerDomain[Tensor]]:
        train, data = self.config.train, self.config.data
        images = TrainingImages(self.datasets.train, data, train.seed)
        workers = data.workers
        if workers is None:  # the embedded streets are soon all in memory, where one process finds them again
            workers = 0 if data.embedded else (min(4, os.cpu_count() or 1) if self.device.type == "cuda" else 1)
        return training_batches(images, train.batch_size, steps, workers, self.device)

    def _do_what_is_due(self, record: StepRecord, progress: Progress) -> None:
        """What follows from the number of steps done, and from nothing else: a resumed run does the same."""
        train, step = self.config.train, self.trainer.steps_done
        if step % train.log_every == 0:
            scalars = step_scalars(self.trainer, record) | progress.rates()
            _require_finite(step, scalars)
            self.monitor.scalars(step, scalars)
            progress.show(scalars)
        if step % train.sample_every == 0:
            self._write_samples()
        if step % train.validate_every == 0 and self.datasets.test.paired:
            self._validate()
        if step % train.checkpoint_every == 0:
            self._save()

    def _translator(self) -> Translator:
        names, step = self.datasets.names, self.trainer.steps_done
        return Translator(self.trainer.average, self.config, names, step, str(self.device), self.precision)

    def _save(self) -> None:
        """The checkpoint comes last: it says that all that was due before it has been written."""
        if self.saved_step == self.trainer.steps_done:
            self.folder.save_model(self._translator())
            return
        _require_finite(self.trainer.steps_done, self.trainer.weight_norms())
        self.monitor.flush()
        self.folder.save(self.trainer, self._translator(), self.facts)
        self.saved_step = self.trainer.steps_done

    def _write_samples(self) -> None:
        self.monitor.samples(self.trainer.steps_done, sample_grids(self._translator(), self.datasets.test))

    def _validate(self) -> Figures:
        """The figures of this step, logged unless an earlier part of the run has done so."""
        step = self.trainer.steps_done
        if self.figures is None or self.figures[0] != step:
            self.figures = step, evaluate(self._translator(), self.datasets.test)
            if step != self.saved_step:
                self.monitor.scalars(step, figure_scalars(self.figures[1]))
        return self.figures[1]


def _require_finite(step: int, scalars: Mapping[str, float]) -> None:
    for tag, value in scalars.items():
        if not math.isfinite(value):
            raise UserError(f"step {step}: {tag} is {value}; the last checkpoint is good. Lower the learning rates")

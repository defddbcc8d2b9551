"""A run: a configuration in, a trained model out; called again, it goes on where it stopped."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unit.config import Config
from unit.config_file import to_yaml
from unit.data.batches import TrainingImages, held_out_image, training_batches
from unit.data.datasets import Datasets, open_datasets
from unit.devices import configure, describe, resolve_device, resolve_precision
from unit.domains import Domain, PerDomain
from unit.errors import UserError
from unit.evaluation.evaluate import Figures, evaluate
from unit.evaluation.grids import sample_grid
from unit.model.networks import build_autoencoders, build_discriminators, parameter_count
from unit.model.objective import total
from unit.training.monitor import Monitor
from unit.training.progress import Progress
from unit.training.run_folder import RunFolder
from unit.training.stopping import StopRequest, stop_on_signals
from unit.training.trainer import StepRecord, Trainer
from unit.translation.translator import Translator

log = logging.getLogger(__name__)

SAMPLES = 8
"""Held-out images of each domain in the sample grids."""


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
        return run.go_on(stop)


def default_folder(config: Config, datasets: Datasets) -> Path:
    """Where a run goes that was not told."""
    return Path("runs") / ("streets" if config.data.embedded else f"{datasets.names.a}-{datasets.names.b}")


def describe_plan(config: Config, out: Path | None = None) -> str:
    """What `train` would do, without doing it; raises what it would."""
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


def mean_logit(scales: list[Tensor]) -> float:
    """The mean over patches, then over scales."""
    return float(torch.stack([logits.detach().float().mean() for logits in scales]).mean())


class _Run:
    """One part of a run, from where it starts or goes on to where it ends or is stopped."""

    def __init__(self, config: Config, datasets: Datasets, out: Path, device: torch.device) -> None:
        self.config, self.datasets, self.device = config, datasets, device
        self.precision = resolve_precision(config.train.precision, device)
        self.folder = RunFolder(out)
        self.trainer = Trainer(config, device, self.precision)
        self.last: StepRecord
        self.facts: dict[str, Any] = {
            "precision": self.precision,
            "thread count": torch.get_num_threads(),
            "list of training images": datasets.digest(),
        }
        resumed = self.folder.resume(self.trainer, self.facts)
        self.first_step = self.trainer.steps_done
        environment = self.folder.begin(config, datasets, device, self.precision)
        self.monitor = Monitor(out, self.first_step)
        log.info("%s on %s, %s\n%s", out, describe(device), self.precision, datasets.describe())
        if resumed:
            log.info("going on from step %d", self.first_step)
        else:
            for tag, text in (
                ("config", to_yaml(config)),
                ("environment", json.dumps(environment, indent=2)),
                ("dataset", datasets.describe()),
            ):
                self.monitor.text(0, tag, text)

    def go_on(self, stop: StopRequest) -> Result:
        """Train until the end or a stop; then a checkpoint, a model and, when it ended by itself, the figures."""
        figures = None
        try:
            if self.first_step == 0:
                self._write_samples()
                self._save()
            self._train(stop)
            if self.trainer.steps_done > self.first_step:
                self._save()
            if self.datasets.test.paired and not stop.signal:
                figures = self._evaluate()
                if self.trainer.steps_done > self.first_step:
                    self._log(figures)
        finally:
            self.monitor.close()
        return Result(
            self.folder.path,
            self.datasets.names,
            self.trainer.steps_done,
            128 + stop.signal if stop.signal else 0,
            figures,
        )

    def _train(self, stop: StopRequest) -> None:
        train = self.config.train
        deadline = math.inf if train.max_minutes is None else time.monotonic() + 60 * train.max_minutes
        steps = range(self.trainer.steps_done, train.steps)
        with self._progress(steps) as progress:
            for images in progress.waiting_for(self._batches(steps)):
                self.last = self.trainer.step(images)
                progress.step_done()
                self._do_what_is_due(progress)
                if stop.signal or time.monotonic() >= deadline:
                    break

    def _batches(self, steps: range) -> Iterator[PerDomain[Tensor]]:
        train, data = self.config.train, self.config.data
        images = TrainingImages(self.datasets.train, data, train.seed)
        workers = data.workers
        if workers is None:  # the embedded streets are soon all in memory, where one process finds them again
            workers = 0 if data.embedded else (4 if self.device.type == "cuda" else 1)
        return training_batches(images, train.batch_size, steps, workers, self.device)

    def _do_what_is_due(self, progress: Progress) -> None:
        """What follows from the number of steps done, and from nothing else: a resumed run does the same."""
        train, step = self.config.train, self.trainer.steps_done
        if step % train.log_every == 0:
            scalars = self._scalars() | progress.rates()
            self.monitor.scalars(step, scalars)
            progress.show(scalars)
        if step % train.sample_every == 0:
            self._write_samples()
        if step < train.steps:  # the end does these by itself
            if step % train.checkpoint_every == 0:
                self._save()
            if step % train.validate_every == 0 and self.datasets.test.paired:
                self._log(self._evaluate())

    def _scalars(self) -> dict[str, float]:
        """The last step, under TensorBoard's tags.

        Raises:
            UserError: a term is not finite.
        """
        record, step = self.last, self.trainer.steps_done
        losses = {"generator_total": total(record.generator)} | record.generator
        if record.discriminator:
            losses |= {"discriminator_total": total(record.discriminator)} | record.discriminator
        scalars = {f"loss/{name}": float(value.detach()) for name, value in losses.items()}
        for tag, value in scalars.items():
            if not math.isfinite(value):
                raise UserError(f"step {step}: {tag} is {value}; the last checkpoint is good. Lower the learning rates")
        rates, norms = self.trainer.learning_rates(), self.trainer.gradient_norms()
        for part, rate, norm in zip(("generator", "discriminator"), rates, norms, strict=True):
            scalars |= {f"optimizer/learning_rate_{part}": rate, f"optimizer/gradient_norm_{part}": norm}
        for verdict, logits in (("real", record.real), ("fake", record.fake)):
            for i in Domain if logits else ():
                assert logits is not None
                scalars[f"discriminator/{verdict}_logit_{i}"] = mean_logit(logits[i])
        return scalars

    def _translator(self) -> Translator:
        names, step = self.datasets.names, self.trainer.steps_done
        return Translator(self.trainer.average, self.config, names, step, str(self.device), self.precision)

    def _save(self) -> None:
        if self.trainer.steps_done > self.first_step:
            self._scalars()  # a state with a broken loss is not worth keeping
        self.folder.save(self.trainer, self._translator(), self.facts)

    def _write_samples(self) -> None:
        """Input | translation | cycle | reconstruction of the first held-out images, both ways."""
        translator = self._translator()

        def grid(i: Domain) -> Tensor:
            source = self.datasets.test.images[i]
            count = min(SAMPLES, len(source))
            images = torch.stack([held_out_image(source, index, self.config.data) for index in range(count)])
            translation = translator.translate(images, i)
            cycle, reconstruction = translator.translate(translation, i.other), translator.reconstruct(images, i)
            return sample_grid([images, translation, cycle, reconstruction])

        self.monitor.samples(self.trainer.steps_done, PerDomain.of(grid))

    def _evaluate(self) -> Figures:
        return evaluate(self._translator(), self.datasets.test)

    def _log(self, figures: Figures) -> None:
        values = {
            f"val/{name}_{direction}": value
            for direction, groups in figures.items()
            for name, value in groups["translated"].items()
            if value is not None
        }
        self.monitor.scalars(self.trainer.steps_done, values)

    def _progress(self, steps: range) -> Progress:
        return Progress(steps, self.config.train.batch_size, self.config.train.max_minutes, self.device)

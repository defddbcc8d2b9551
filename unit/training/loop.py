"""A run: a configuration in, a trained model out; called again, it goes on where it stopped."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unit.config import Config
from unit.config_file import to_yaml
from unit.data.bad_images import BadImages
from unit.devices import describe
from unit.domains import PerDomain
from unit.errors import ImageError, UserError
from unit.evaluation.evaluate import Figures, evaluate, sample_grids
from unit.training.finite import NonFiniteError
from unit.training.lock import locked, set_aside
from unit.training.monitor import Monitor, figure_scalars, step_scalars
from unit.training.progress import Progress
from unit.training.run_folder import RunFolder
from unit.training.setup import Setup
from unit.training.stopping import StopRequest, stop_on_signals
from unit.training.trainer import StepRecord, Trainer

log = logging.getLogger(__name__)

_MOST_ROLLBACKS = 3


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


def train(config: Config, out: Path | None = None, *, start_anew: bool = False) -> Result:
    """Train UNIT until `train.steps` or `train.max_minutes`, or go on with what is in `out`.

    Args:
        config: the resolved configuration.
        out: the run's folder; None: runs/NAME_A-NAME_B, and runs/streets for the embedded streets.
        start_anew: begin at step 0; a run that is there already is kept as OUT.1 (.2, …).

    Raises:
        UserError: a folder, a setting or the machine does not allow it; the message says what to do.
    """
    setup = Setup.of(config, out)
    if start_anew and (aside := set_aside(setup.out)):
        log.info("the run that was in %s is kept as %s", setup.out, aside)
    with locked(setup.out), stop_on_signals() as stop:
        try:
            return _Run(setup).go_on(stop)
        except (RuntimeError, MemoryError) as error:
            explained = setup.explain(error)
            if explained is None:
                raise
            raise explained from error


class _Run:
    """One part of a run, from where it starts or goes on to where it ends or is stopped."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.config, self.datasets = setup, setup.config, setup.datasets
        self.folder = RunFolder(setup.out)
        self.trainer = Trainer(setup.config, setup.device, setup.precision)
        self.facts: dict[str, Any] = {
            "precision": setup.precision,
            "thread count": torch.get_num_threads(),
            "list of training images": setup.datasets.digest(),
        }
        self.bad = BadImages(self.datasets.train.map(len))
        self.resumed = self.folder.resume(self.trainer, self.facts, self.bad)
        environment = self.folder.begin(self.config, self.datasets, setup.device, setup.precision)
        log.info("%s on %s, %s\n%s", setup.out, describe(setup.device), setup.precision, self.datasets.describe())
        self._watch_from_here(self.resumed)
        if not self.resumed:
            for tag, text in (
                ("config", to_yaml(self.config)),
                ("environment", json.dumps(environment, indent=2)),
                ("dataset", self.datasets.describe()),
            ):
                self.monitor.text(0, tag, text)

    def _watch_from_here(self, checkpointed: bool) -> None:
        """Begin to log at this step, of which there may be a checkpoint already."""
        step = self.trainer.steps_done
        self.saved_step = step if checkpointed else None
        self.figures: tuple[int, Figures] | None = None
        self.monitor = Monitor(self.folder.path, step if checkpointed else None)

    def go_on(self, stop: StopRequest) -> Result:
        """Train until the end or a stop; then the figures, when it ended by itself, a model and a checkpoint."""
        try:
            if not self.resumed:
                self._write_samples()
                self._save()
            self._catch_up()
            deadline = self._deadline()
            while not self._train(stop, deadline):
                pass
            self._save()
            ended = not stop.signal or self.trainer.steps_done >= self.config.train.steps
            figures = self._validate() if ended and self.datasets.test.paired else None
            self.folder.writing.finish()
        except BaseException:
            for finish in (self.folder.writing.finish, self.monitor.close):
                with suppress(UserError):  # that this can't be written is not the first thing to say
                    finish()
            raise
        self.monitor.close()
        status = 0 if ended else 128 + stop.signal
        return Result(self.folder.path, self.datasets.names, self.trainer.steps_done, status, figures)

    def _deadline(self) -> float:
        minutes = self.config.train.max_minutes
        return math.inf if minutes is None else time.monotonic() + 60 * minutes

    def _train(self, stop: StopRequest, deadline: float) -> bool:
        """Train to the end, the deadline or a stop; False when the run was rolled back and has to train on."""
        train = self.config.train
        steps = range(self.trainer.steps_done, train.steps)
        self.folder.writing.finish()  # no thread is to be at work when processes are forked
        progress = Progress(steps, train.batch_size, train.max_minutes, self.setup.device)
        with progress, closing(self.setup.batches(steps, self.bad)) as batches:
            try:
                waited_for = progress.waiting_for(batches)
                while images := self._next(waited_for):
                    record = self.trainer.step(images)
                    progress.step_done()
                    self._do_what_is_due(record, progress)
                    if stop.signal or time.monotonic() >= deadline:
                        break
                self.trainer.require_finite_weights()
            except NonFiniteError as error:
                self._roll_back(error)
                return False
        return True

    def _next(self, batches: Iterator[PerDomain[Tensor]]) -> PerDomain[Tensor] | None:
        """The next batch; when it can't be had, the state, as good as before, is saved."""
        try:
            return next(batches, None)
        except UserError:
            self._save()
            raise

    def _roll_back(self, error: NonFiniteError) -> None:
        """Go back to the last checkpoint with other noise, where that is wanted; else keep what is good, and stop."""
        number = self.trainer.rollbacks + 1
        if self.config.train.on_nonfinite == "rollback" and number <= _MOST_ROLLBACKS:
            self.monitor.close()
            self.folder.writing.finish()
            if not self.folder.resume(self.trainer, self.facts, self.bad):
                raise UserError(f"{error}; there is no checkpoint to go back to") from error
            self.trainer.rollbacks = number
            log.warning("%s; rolled back with other noise, %d of %d times", error, number, _MOST_ROLLBACKS)
            self._watch_from_here(checkpointed=True)
            return
        if not self.trainer.mid_step and error.step == self.trainer.steps_done + 1:
            with suppress(NonFiniteError):  # of weights that the step before had broken already
                self._save()
        names = self.datasets.names
        tried = f", after {self.trainer.rollbacks} rollbacks" if self.trainer.rollbacks else ""
        advice = "begin anew with lower learning rates"
        if self.config.train.on_nonfinite == "stop":
            advice = f"go on with --train.on_nonfinite rollback, or {advice}"
        raise UserError(
            f"{error} (a: {names.a}, b: {names.b}){tried}; the state after step {self.saved_step} is kept: {advice}"
        ) from error

    def _do_what_is_due(self, record: StepRecord, progress: Progress) -> None:
        """What follows from the number of steps done, and from nothing else: a resumed run does the same."""
        train, step = self.config.train, self.trainer.steps_done
        self.folder.writing.check()
        if step % train.log_every == 0:
            self.trainer.finite.check()
            scalars = step_scalars(self.trainer, record) | progress.rates()
            if self.config.data.on_bad_image == "skip":
                scalars["data/bad_images"] = len(self.bad)
            self.monitor.scalars(step, scalars)
            progress.show(scalars)
        try:
            if step % train.sample_every == 0:
                self._write_samples()
            if step % train.validate_every == 0 and self.datasets.test.paired:
                self._validate()
        except ImageError:
            self._save()  # going on, the run makes up for what was due
            raise
        if step % train.checkpoint_every == 0:
            self._save()

    def _save(self) -> None:
        """The checkpoint comes last: it says that all that was due before it has been written."""
        if self.saved_step == self.trainer.steps_done:
            self.folder.save_model(self.setup.translator(self.trainer))
            return
        self.trainer.require_finite_weights()
        self.monitor.flush()
        self.folder.save(self.trainer, self.setup.translator(self.trainer), self.facts, self.bad)
        self.saved_step = self.trainer.steps_done

    def _catch_up(self) -> None:
        """Make what was due at this step, where a test picture that could not be read was in the way."""
        train, step = self.config.train, self.trainer.steps_done
        if step % train.sample_every == 0 and not self.monitor.has_samples(step):
            self._write_samples()
        figures_due = step > 0 and step % train.validate_every == 0 and self.datasets.test.paired
        if figures_due and step not in self.monitor.evaluated:
            self._validate()

    def _write_samples(self) -> None:
        grids = sample_grids(self.setup.translator(self.trainer), self.datasets.test)
        self._require_numbers("a sample picture", *grids)
        self.monitor.samples(self.trainer.steps_done, grids)

    def _validate(self) -> Figures:
        """The figures of this step, logged unless an earlier part of the run has done so."""
        step = self.trainer.steps_done
        if self.figures is None or self.figures[0] != step:
            self.figures = step, evaluate(self.setup.translator(self.trainer), self.datasets.test)
            scalars = figure_scalars(self.figures[1])
            self._require_numbers("a figure", torch.tensor(list(scalars.values())))
            if step not in self.monitor.evaluated:
                self.monitor.scalars(step, scalars)
        return self.figures[1]

    def _require_numbers(self, what: str, *values: Tensor) -> None:
        if any(value.isnan().any() for value in values):
            raise NonFiniteError(self.trainer.steps_done, what)

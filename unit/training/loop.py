"""A run: a configuration in, a trained model out; called again, it goes on where it stopped."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from unit.config import Config
from unit.data.bad_images import BadImages
from unit.devices import describe
from unit.domains import PerDomain
from unit.errors import ImageError, UserError
from unit.evaluation.evaluate import Metrics
from unit.training.checkpoint import copied
from unit.training.distributed import init_distributed, restarted_by_torchrun
from unit.training.finite import NonFiniteError
from unit.training.heartbeat import PeerError
from unit.training.lock import archive_run, locked
from unit.training.monitor import step_scalars
from unit.training.progress import Progress
from unit.training.records import Records
from unit.training.setup import Setup
from unit.training.signals import StopRequest, stop_on_signals
from unit.training.trainer import StepRecord

T = TypeVar("T")
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
    metrics: Metrics | None
    """on the test images at the end, when the run ended by itself"""
    best: tuple[int, float] | None = None
    """the step of the best model, and its mean KID"""


def train(config: Config, out: Path | None = None, *, restart: bool = False) -> Result:
    """Train UNIT until `train.steps` or `train.max_minutes`, or go on with what is in `out`.

    Args:
        config: the resolved configuration.
        out: the run's folder; None: runs/NAME_A-NAME_B, and runs/streets for the embedded streets.
        restart: begin at step 0; a run that is there already is kept as OUT.1 (.2, …). Where torchrun starts failed
            processes again, they go on.

    Raises:
        UserError: a folder, a setting or the machine does not allow it; the message says what to do.
    """
    with init_distributed() as ranks:
        setup = Setup.of(config, out, ranks)
        if restart and not restarted_by_torchrun() and ranks.is_main and (aside := archive_run(setup.out)):
            log.info("the run that was in %s is kept as %s", setup.out, aside)
        lock = locked(setup.out) if ranks.is_main else nullcontext()
        with lock, stop_on_signals(only_once=ranks.world_size > 1) as stop:
            try:
                return _Run(setup).run(stop)
            except (RuntimeError, MemoryError) as error:
                explained = setup.explain(error)
                if explained is None:
                    raise
                raise explained from error


class _Run:
    """One part of a run, from where it starts or goes on to where it ends or is stopped.

    All ranks do the same in the same order; what is to be written, rank 0 writes.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup, self.config, self.ranks = setup, setup.config, setup.ranks
        self.trainer = setup.trainer()
        self.bad = BadImages(setup.datasets.train.map(len))
        self.records = Records(setup, self.trainer, self.bad) if self.ranks.is_main else None
        self.resumed = self._load_latest_checkpoint()
        self.saved_step = self.trainer.steps_done if self.resumed else None
        """of which there is a checkpoint"""
        several = f", {self.ranks.world_size} ranks" if self.ranks.world_size > 1 else ""
        where = f"{describe(setup.device)}, {setup.precision}{several}"
        log.info("%s on %s\n%s", setup.out, where, setup.datasets.describe())
        if self.records:
            self.records.begin(self.resumed)

    def _load_latest_checkpoint(self) -> bool:
        """Put the newest good checkpoint into the trainers of all ranks, if there is one; whether there was."""
        resumed = self.ranks.broadcast(self.records.resume() if self.records else False)
        if resumed and self.ranks.world_size > 1:  # whose machines need not all see the run's folder
            state = self.ranks.broadcast((copied(self.trainer.state_dict()), self.bad.state_dict()))
            self.trainer.load_state_dict(state[0])
            self.bad.load_state_dict(state[1])
        return resumed

    def run(self, stop: StopRequest) -> Result:
        """Train until the end or a stop; then the metrics, when it ended by itself, a model and a checkpoint."""
        metrics = None
        try:
            if not self.resumed:
                self._write(Records.samples)
                self._save()
            self._write(Records.backfill)
            deadline = self._deadline()
            while not self._train(stop, deadline):
                pass
            self._save()
            (number,) = self.ranks.all_reduce_max(stop.signal)
            ended = not number or self.trainer.steps_done >= self.config.train.steps
            if ended:
                metrics = self._write(Records.validate)
            self._write(Records.close)
            if ended:
                self._write(Records.report)
        except BaseException:
            if self.records:
                self.records.abandon()
            raise
        status = 0 if ended else 128 + number
        best = self.records.best if self.records else None
        return Result(self.setup.out, self.setup.datasets.names, self.trainer.steps_done, status, metrics, best)

    def _deadline(self) -> float:
        minutes = self.config.train.max_minutes
        return math.inf if minutes is None else time.monotonic() + 60 * minutes

    def _train(self, stop: StopRequest, deadline: float) -> bool:
        """Train to the end, the deadline or a stop; False when the run was rolled back and has to train on."""
        train = self.config.train
        steps = range(self.trainer.steps_done, train.steps)
        if self.records:
            self.records.folder.writer.finish()  # no thread is to be at work when processes are forked
        progress = Progress(
            steps,
            self.config.global_batch(self.ranks.world_size),
            train.max_minutes,
            self.setup.device,
            self.ranks.is_main,
        )
        with progress, closing(self.setup.batches(steps, self.bad)) as batches:
            try:
                waited_for = progress.waiting_for(batches)
                while images := self._next(waited_for):
                    record = self.trainer.step(images)
                    progress.step_done()
                    self._run_scheduled_hooks(record, progress)
                    if any(self.ranks.all_reduce_max(stop.signal, int(time.monotonic() >= deadline))):
                        break
                self.trainer.require_finite_weights()
            except NonFiniteError as error:
                self._roll_back(error)
                return False
        return True

    def _next(self, batches: Iterator[PerDomain[Tensor]]) -> PerDomain[Tensor] | None:
        """The next batch; when a rank can't have it, the state, as good as before, is saved."""
        try:
            with self.ranks.fail_together():
                return next(batches, None)
        except UserError:
            self._keep()
            raise

    def _roll_back(self, error: NonFiniteError) -> None:
        """Go back to the last checkpoint with other noise, where that is wanted; else keep what is good, and stop."""
        number = self.trainer.rollbacks + 1
        if self.config.train.on_nonfinite == "rollback" and number <= _MOST_ROLLBACKS:
            if self.records:
                self.records.close()
            if not self._load_latest_checkpoint():
                raise UserError(f"{error}; there is no checkpoint to go back to") from error
            self.trainer.rollbacks = number
            self.saved_step = self.trainer.steps_done
            log.warning("%s; rolled back with other noise, %d of %d times", error, number, _MOST_ROLLBACKS)
            if self.records:
                self.records.watch_from_here(checkpointed=True)
            return
        if not self.trainer.mid_step and error.step == self.trainer.steps_done + 1:
            with suppress(NonFiniteError):  # of weights that the step before had broken already
                self._keep()
        names = self.setup.datasets.names
        tried = f", after {self.trainer.rollbacks} rollbacks" if self.trainer.rollbacks else ""
        advice = "begin anew with lower learning rates"
        if self.config.train.on_nonfinite == "stop":
            advice = f"go on with --train.on_nonfinite rollback, or {advice}"
        raise UserError(
            f"{error} (a: {names.a}, b: {names.b}){tried}; the state after step {self.saved_step} is kept: {advice}"
        ) from error

    def _run_scheduled_hooks(self, record: StepRecord, progress: Progress) -> None:
        """What follows from the number of steps done, and from nothing else: a resumed run does the same."""
        train, step = self.config.train, self.trainer.steps_done
        if self.records:
            self.records.folder.writer.check()
        if step % train.log_every == 0:
            self.trainer.finite.check()
            scalars = self.ranks.all_reduce_mean(step_scalars(self.trainer, record) | progress.rates())
            if self.config.data.on_bad_image == "skip":
                self._add_up_bad_images()
                scalars["data/bad_images"] = len(self.bad)
            if self.records:
                self.records.log(scalars)
            progress.show(scalars)
        if self.ranks.world_size > 1 and step % train.check_sync_every == 0:
            self._require_equal_weights()
        try:
            if step % train.sample_every == 0:
                self._write(Records.samples)
            if step % train.validate_every == 0:
                self._write(Records.validate)
        except (ImageError, PeerError):
            self._keep()  # going on, the run makes up for what was due
            raise
        if step % train.checkpoint_every == 0:
            self._save()

    def _require_equal_weights(self) -> None:
        digests = self.ranks.all_gather(self.trainer.digest())
        others = [str(rank) for rank, digest in enumerate(digests) if digest != digests[0]]
        if others:
            who = f"rank {', '.join(others)}"
            raise UserError(
                f"step {self.trainer.steps_done}: the weights of {who} are no longer those of rank 0: "
                "a faulty GPU or network? Start the run again from its last checkpoint"
            )

    def _write(self, what: Callable[[Records], T]) -> T | None:
        """Rank 0 writes something; what fails there, fails on all."""
        with self.ranks.fail_together():
            return what(self.records) if self.records else None

    def _add_up_bad_images(self) -> None:
        self.bad.add(self.ranks.all_gather(self.bad.state_dict()))

    def _keep(self) -> None:
        """Save, and wait until it is on the disk: once a rank has ended, the others have seconds to do so."""
        self._save()
        self._write(lambda records: records.folder.writer.finish())

    def _save(self) -> None:
        """A checkpoint of this step, unless there is one, and the model."""
        new = self.saved_step != self.trainer.steps_done
        if new:
            self.trainer.require_finite_weights()
            self._add_up_bad_images()
            self.saved_step = self.trainer.steps_done
        if self.records:
            (self.records.save if new else self.records.save_model)()

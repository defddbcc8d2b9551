"""The training loop: starts or resumes a run, and calls the hooks that are due at each step."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from unit.config import Config
from unit.data.bad_images import BadImages
from unit.devices import describe
from unit.domains import PerDomain
from unit.errors import ImageError, UserError
from unit.evaluation.metric_table import Metrics
from unit.evaluation.run_log import read_run_endings
from unit.training.auto_config import AutoConfig
from unit.training.checkpoint import copy_to_cpu
from unit.training.distributed import Ranks, init_distributed, restarted_by_torchrun
from unit.training.finite import NonFiniteError
from unit.training.heartbeat import PeerError
from unit.training.hooks import Hooks, TranslationHooks, samples_due, step_scalars
from unit.training.minutes import measuring_seconds
from unit.training.progress import Progress
from unit.training.resolve import ResolvedRun, explain_errors
from unit.training.run_dir import RunDir, archive_run, locked, require_own_folder
from unit.training.run_logger import RunLogHandler
from unit.training.signals import StopRequest, stop_on_signals
from unit.training.state import StepRecord

T = TypeVar("T")
HooksOf: TypeAlias = Callable[[Any, Any, RunDir], Hooks]
"""Makes the hooks of a resolved run, its trainer and its directory."""
log = logging.getLogger(__name__)

CHECK_SYNC_EVERY = 1000
"""Steps between two checks that all ranks have the same weights."""
_MAX_ROLLBACKS = 3


@dataclass(frozen=True)
class TrainResult:
    """How a run, or this part of it, ended."""

    out: Path
    names: PerDomain[str]
    step: int
    exit_status: int
    """0; 128 + the signal's number when a signal stopped the run"""
    metrics: Metrics | None
    """on the test images; None when a signal stopped the run"""
    best: tuple[int, float] | None = None
    """step and mean KID of the best model"""


def train(
    config: Config, out: Path | None = None, *, restart: bool = False, auto: AutoConfig | None = None
) -> TrainResult:
    """Train UNIT until `train.steps` or `train.max_minutes`; resume a run that is in `out` already.

    Args:
        config: the configuration.
        out: the run's directory; None: runs/NAME_A-NAME_B, and runs/streets for the built-in streets.
        restart: start at step 0; a run that is there already is kept as OUT.1 (.2, …). Processes that torchrun starts
            in the place of failed ones resume all the same.
        auto: settles what the command line leaves open; None: the configuration holds as it is.

    Raises:
        UserError: a folder, a setting or the machine makes it impossible; the message says what to do.
    """
    settled = auto or AutoConfig()

    def resolve_run(ranks: Ranks, restart: bool) -> ResolvedRun:
        return settled.resolve(config, out, ranks, restart=restart)

    return run(resolve_run, TranslationHooks, restart, lambda: settled.end)


def run(
    resolve_run: Callable[[Ranks, bool], ResolvedRun],
    hooks: HooksOf,
    restart: bool,
    end: Callable[[], float] = lambda: math.inf,
) -> TrainResult:
    """Start or resume a run, whatever it trains; see `train`.

    Args:
        resolve_run: returns what is to be trained, given the ranks and whether a run that is there is restarted.
        hooks: makes the main rank's hooks.
        restart: as in `train`.
        end: when the measuring at the end must be done, by `time.monotonic`, known once the run is resolved.
    """
    run_log = RunLogHandler()
    with init_distributed() as ranks, run_log.capture():
        restart = restart and not restarted_by_torchrun()
        resolved = resolve_run(ranks, restart)
        if restart and ranks.is_main and (archived := archive_run(resolved.out)):
            log.info("the run that was in %s is kept as %s", resolved.out, archived)
        if ranks.is_main:
            require_own_folder(resolved.out)
        lock = locked(resolved.out) if ranks.is_main else nullcontext()
        stopping = stop_on_signals(ignore_repeats=ranks.world_size > 1)
        with lock, stopping as stop, run_log.record_errors(), explain_errors(resolved.device):
            return _Run(resolved, run_log, hooks, end()).run(stop)


class _Run:
    """One part of a run, from where it starts or resumes to where it ends or is stopped.

    All ranks make the same calls in the same order; only the main rank has hooks and writes.

    Args:
        resolved: the configuration.
        run_log: receives how it ended.
        hooks: makes the main rank's hooks.
        end: when the measuring at the end must be done, by `time.monotonic`; infinity: whenever it is.
    """

    def __init__(self, resolved: ResolvedRun, run_log: RunLogHandler, hooks: HooksOf, end: float = math.inf) -> None:
        self.end = end
        self.resolved, self.config, self.ranks, self.run_log = resolved, resolved.config, resolved.ranks, run_log
        self.trainer = resolved.build_trainer()
        self.bad_images = BadImages(resolved.datasets.train.map(len))
        self.run_dir = RunDir(resolved, self.trainer, self.bad_images)
        self.hooks = hooks(resolved, self.trainer, self.run_dir) if self.ranks.is_main else None
        self.saved_step: int | None = None
        """the step of the newest checkpoint"""

    def run(self, stop: StopRequest) -> TrainResult:
        """Train until the end or a stop, and save; at the end, validate and report too."""
        self._start()
        try:
            if self.saved_step is None:
                self._on_main(lambda hooks: hooks.sample())
                self._save()
            self._on_main(lambda hooks: hooks.backfill())
            minutes = self.config.train.max_minutes
            deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
            while not self._train(stop, deadline):
                pass
            return self._finish(stop)
        except BaseException:
            if self.hooks:
                with suppress(UserError):  # the user has to know the first error first
                    self.hooks.close()
            raise

    def _start(self) -> None:
        """Resume from the newest good checkpoint, if any, and open the logs."""
        resumed = self._load_latest_checkpoint()
        where = f"{describe(self.resolved.device)}, {self.resolved.precision}"
        where += f", {self.ranks.world_size} ranks" if self.ranks.world_size > 1 else ""
        for line in (f"{self.resolved.out} on {where}", *self.resolved.datasets.describe().splitlines()):
            log.info("%s", line)
        train = self.config.train
        if resumed and train.max_minutes is not None:
            end = f"this part ends after {train.max_minutes:g} min, or at step {train.steps}"
            log.info("train.max_minutes counts from each start: %s", end)
        if self.hooks:
            if resumed and (endings := read_run_endings(self.resolved.out)):
                log.info("the previous part %s", endings[-1])
            self.run_log.start(self.resolved.out, lambda: self.trainer.steps_done)
            self.hooks.start(resumed)

    def _load_latest_checkpoint(self) -> bool:
        """Load the newest good checkpoint on all ranks; return whether there was one, else load `train.init_from`."""
        resumed = self.ranks.broadcast(self.run_dir.resume() if self.hooks else False)
        initialized = not resumed and self.config.train.init_from is not None
        if initialized:
            self._on_main(lambda _: self.resolved.initialize(self.trainer))
        if (resumed or initialized) and self.ranks.world_size > 1:  # the other machines may not see these files
            state = self.ranks.broadcast((copy_to_cpu(self.trainer.state_dict()), self.bad_images.state_dict()))
            self.trainer.load_state_dict(state[0])
            self.bad_images.load_state_dict(state[1])
        if resumed:
            self.saved_step = self.trainer.steps_done
        return resumed

    def _train(self, stop: StopRequest, deadline: float) -> bool:
        """Train to the last step, the deadline or a stop; return False after a rollback, to be called again."""
        self.run_dir.writer.finish()  # no thread may be running when loader processes are forked
        steps = range(self.trainer.steps_done, self.config.train.steps)
        global_batch, device = self.config.global_batch(self.ranks.world_size), self.resolved.device
        progress = Progress(steps, global_batch, deadline, device, visible=self.ranks.is_main)
        with closing(progress), closing(self._batches(steps, progress)) as batches:
            try:
                for images in batches:
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

    def _batches(self, steps: range, progress: Progress) -> Generator[Any]:
        """Yield the batches; when one rank can't read its batch, save the state, which is good, and stop all."""
        with closing(self.resolved.batches(steps, self.bad_images)) as batches:
            while True:
                try:
                    with self.ranks.fail_together(), progress.waiting():
                        images = next(batches, None)
                except UserError:
                    self._save_now()
                    raise
                if images is None:
                    return
                yield images

    def _run_scheduled_hooks(self, record: StepRecord, progress: Progress) -> None:
        """Call the hooks due at this step. They depend on the step alone, so that a resumed run calls the same."""
        train, step = self.config.train, self.trainer.steps_done
        self.run_dir.writer.check()
        self.run_log.check()
        if step % train.log_every == 0:
            self.trainer.finite.check()
            scalars = self.ranks.all_reduce_mean(step_scalars(self.trainer, record) | progress.rates())
            if self.resolved.skips_bad_images:
                self.bad_images.add(self.ranks.all_gather(self.bad_images.state_dict()))
                scalars["data/bad_images"] = len(self.bad_images)
            if self.hooks:
                self.hooks.logger.scalars(step, scalars)
            progress.show(scalars)
        if self.ranks.world_size > 1 and step % CHECK_SYNC_EVERY == 0:
            self._require_equal_weights()
        try:
            if samples_due(step, train.sample_every):
                self._on_main(lambda hooks: hooks.sample())
            if step % train.validate_every == 0:
                self._on_main(lambda hooks: hooks.validate())
        except (ImageError, PeerError):
            self._save_now()  # a resumed run backfills what was due
            raise
        if step % train.checkpoint_every == 0:
            self._save()

    def _finish(self, stop: StopRequest) -> TrainResult:
        self._save()
        (signal_number,) = self.ranks.all_reduce_max(stop.signal)
        out, names, step = self.resolved.out, self.resolved.datasets.names, self.trainer.steps_done
        complete = step >= self.config.train.steps
        if signal_number and not complete:
            self._on_main(lambda hooks: hooks.close())
            self.run_log.end(signal.Signals(signal_number).name)
            return TrainResult(out, names, step, 128 + signal_number, None, self.hooks.best if self.hooks else None)
        self._on_main(lambda hooks: hooks.validate())
        self._on_main(lambda hooks: hooks.close())
        seconds = measuring_seconds(self.end)
        metrics = self._on_main(lambda hooks: hooks.measure(seconds))
        self.run_log.end("finished" if complete else "finished (train.max_minutes)")
        self._on_main(lambda hooks: hooks.report(metrics, seconds))
        return TrainResult(out, names, step, 0, metrics, self.hooks.best if self.hooks else None)

    def _roll_back(self, error: NonFiniteError) -> None:
        """Go back to the last checkpoint and draw other noise, if `train.on_nonfinite` says so.

        Raises:
            UserError: it does not, or there were too many rollbacks; the last good state is saved.
        """
        number = self.trainer.rollbacks + 1
        if self.config.train.on_nonfinite == "rollback" and number <= _MAX_ROLLBACKS:
            if self.hooks:
                self.hooks.close()
            if not self._load_latest_checkpoint():
                raise UserError(f"{error}; there is no checkpoint to go back to") from error
            self.trainer.rollbacks = number
            log.warning("%s; rolled back (%d of at most %d), with other random numbers", error, number, _MAX_ROLLBACKS)
            if self.hooks:
                self.hooks.open_logs(resumed=True)
            return
        if not self.trainer.mid_step and error.step == self.trainer.steps_done + 1:
            with suppress(NonFiniteError):  # the step before may have broken the weights already
                self._save_now()
        names = self.resolved.datasets.names
        tried = f", after {self.trainer.rollbacks} rollbacks" if self.trainer.rollbacks else ""
        advice = "resume with --train.on_nonfinite rollback, or " if self.config.train.on_nonfinite == "stop" else ""
        raise UserError(
            f"{error} (a: {names.a}, b: {names.b}){tried}; the state after step {self.saved_step} is kept: {advice}"
            "restart with lower learning rates"
        ) from error

    def _require_equal_weights(self) -> None:
        digests = self.ranks.all_gather(self.trainer.digest())
        different = [str(rank) for rank, digest in enumerate(digests) if digest != digests[0]]
        if different:
            raise UserError(
                f"step {self.trainer.steps_done}: the weights of rank {', '.join(different)} are no longer those of "
                "rank 0: a faulty GPU or network? Start the run again from its last checkpoint"
            )

    def _on_main(self, hook: Callable[[Hooks], T]) -> T | None:
        """Run a hook on the main rank; its error is raised on all ranks."""
        with self.ranks.fail_together():
            return hook(self.hooks) if self.hooks else None

    def _save(self) -> None:
        """Save the model, and a checkpoint unless this step has one, in the background."""
        new = self.saved_step != self.trainer.steps_done
        if new:
            self.trainer.require_finite_weights()
            self.bad_images.add(self.ranks.all_gather(self.bad_images.state_dict()))
            self.saved_step = self.trainer.steps_done
        if self.hooks and new:
            self.hooks.logger.flush()  # a checkpoint means that the logs up to it are complete
            self.run_dir.save()
        elif self.hooks:
            self.run_dir.save_model()

    def _save_now(self) -> None:
        """Save and wait until it is on the disk: once a rank has failed, the others have only seconds to do so."""
        self._save()
        self._on_main(lambda hooks: hooks.run_dir.writer.finish())

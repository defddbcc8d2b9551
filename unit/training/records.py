"""What a run leaves behind: the log, sample grids, metrics and checkpoints. Of several ranks, rank 0 has it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property

import torch
from torch import Tensor

from unit.config_file import to_yaml
from unit.data.bad_images import BadImages
from unit.domains import PerDomain
from unit.errors import UserError
from unit.evaluation.evaluate import Evaluator, Metrics, sample_grids
from unit.evaluation.features import features_if_installed
from unit.evaluation.report.write import report_unless_it_fails
from unit.training.alarms import Alarms
from unit.training.diagnostics import diagnostics, probe_batch
from unit.training.finite import NonFiniteError
from unit.training.monitor import Monitor, best_logged, logged_mean_kid, metric_scalars
from unit.training.run_folder import BEST_FILE, RunFolder
from unit.training.setup import Setup
from unit.training.trainer import Trainer

log = logging.getLogger(__name__)

_MOST = 200
"""Test images of each domain that the metrics during training are of."""


class Records:
    """Of one run, at the step that its trainer stands at.

    Raises:
        UserError: by each of its methods, when something can't be written.
    """

    def __init__(self, setup: Setup, trainer: Trainer, bad: BadImages) -> None:
        self.setup, self.trainer, self.bad = setup, trainer, bad
        self.facts = {
            "precision": setup.precision,
            "thread count": torch.get_num_threads(),
            "list of training images": setup.datasets.digest(),
        }
        self.folder = RunFolder(setup.out, setup.ranks.world_size)
        features = features_if_installed(setup.device)
        self.evaluator = Evaluator(setup.datasets.test, setup.config.data, features, at_most=_MOST)

    def resume(self) -> bool:
        """Put the newest good checkpoint into the trainer, if there is one; whether there was."""
        return self.folder.resume(self.trainer, self.facts, self.bad)

    def begin(self, resumed: bool) -> None:
        """Write what is known at the start of a run, or of a part of it."""
        setup = self.setup
        environment = self.folder.begin(setup.config, setup.datasets, setup.device, setup.precision)
        self.watch_from_here(resumed)
        if not resumed:
            for tag, text in (
                ("config", to_yaml(setup.config)),
                ("environment", json.dumps(environment, indent=2)),
                ("dataset", setup.datasets.describe()),
            ):
                self.monitor.text(0, tag, text)

    def watch_from_here(self, checkpointed: bool) -> None:
        """Begin to log at this step, of which there may be a checkpoint already."""
        self.metrics: tuple[int, Metrics] | None = None
        self.monitor = Monitor(self.folder.path, self.trainer.steps_done if checkpointed else None)
        self.best = best_logged(self.folder.path / "metrics.jsonl")
        self.alarms = Alarms(self.setup.datasets.names, self.folder.path)

    def log(self, scalars: Mapping[str, float]) -> None:
        """Metrics of this step, by TensorBoard's tags."""
        self.monitor.scalars(self.trainer.steps_done, scalars)

    def samples(self) -> None:
        """Sample grids and alarms of this step; raises `NonFiniteError` when there is nothing to see in them."""
        grids = sample_grids(self.setup.translator(self.trainer), self.setup.datasets.test)
        self._require_numbers("a sample image", *grids)
        self._look_for_illness()
        self.monitor.samples(self.trainer.steps_done, grids)

    def _look_for_illness(self) -> None:
        """Vital signs of this step, and the alarms that follow from them and from those before."""
        translator, step = self.setup.translator(self.trainer), self.trainer.steps_done
        signs = diagnostics(translator, self.trainer.discriminators, *self._probe_batches)
        self._require_numbers("a vital sign", torch.tensor(list(signs.values())))
        self.monitor.scalars(step, signs | self.alarms.check(step, signs))

    @cached_property
    def _probe_batches(self) -> tuple[PerDomain[Tensor], PerDomain[Tensor]]:
        """Test and training images that illness would show on, read once."""
        datasets, data = self.setup.datasets, self.setup.config.data
        return probe_batch(datasets.test.images, data), probe_batch(datasets.train, data)

    def validate(self) -> Metrics:
        """The metrics of this step on test images; logged unless an earlier part of the run did so."""
        step = self.trainer.steps_done
        if self.metrics is None or self.metrics[0] != step:
            self.metrics = step, self.evaluator.metrics(self.setup.translator(self.trainer))
            scalars = metric_scalars(self.metrics[1])
            self._require_numbers("a figure", torch.tensor(list(scalars.values())))
            if step not in self.monitor.evaluated:
                self.monitor.scalars(step, scalars)
            self._keep_if_best(scalars)
        return self.metrics[1]

    def _keep_if_best(self, scalars: Mapping[str, float]) -> None:
        """The model with the least mean KID so far stays as best.safetensors."""
        kid, step = logged_mean_kid(scalars), self.trainer.steps_done
        if kid is not None and (self.best is None or kid < self.best[1]):
            self.best = step, kid
            self.folder.save_best(self.setup.translator(self.trainer))
            log.info("step %d: the best so far, mean KID %.1f: %s", step, kid, self.folder.path / BEST_FILE)

    def report(self) -> None:
        """report.html, once all that it shows is written; an error there is a line, since the run itself is done."""
        metrics = self.metrics[1] if self.metrics else None
        features = self.evaluator.features.name if self.evaluator.features else None
        report_unless_it_fails(self.setup.out, str(self.setup.device), self.setup.precision, metrics, features)

    def backfill(self) -> None:
        """Make what was due at this step, where a test image that could not be read was in the way."""
        train, step = self.setup.config.train, self.trainer.steps_done
        if step % train.sample_every == 0 and not self.monitor.has_samples(step):
            self.samples()
        if step > 0 and step % train.validate_every == 0 and step not in self.monitor.evaluated:
            self.validate()

    def save(self) -> None:
        """The model and a checkpoint, which comes last: it says that all that was due before it has been written."""
        self.monitor.flush()
        self.folder.save(self.trainer, self.setup.translator(self.trainer), self.facts, self.bad)

    def save_model(self) -> None:
        """The model alone, where the checkpoint is there."""
        self.folder.save_model(self.setup.translator(self.trainer))

    def close(self) -> None:
        """Wait until all is written."""
        self.folder.writer.finish()
        self.monitor.close()

    def abandon(self) -> None:
        """Close after an error; that something can't be written is not the first thing to say then."""
        for finish in (self.folder.writer.finish, self.monitor.close):
            with suppress(UserError):
                finish()

    def _require_numbers(self, what: str, *values: Tensor) -> None:
        if any(value.isnan().any() for value in values):
            raise NonFiniteError(self.trainer.steps_done, what)

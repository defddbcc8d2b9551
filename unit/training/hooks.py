"""The main rank's work besides training: logging, sample images, validation and the report."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from unit.config_file import to_yaml
from unit.domains import Domain, PerDomain
from unit.errors import escape
from unit.evaluation.detail_choice import choose_detail
from unit.evaluation.evaluate import Evaluator, affordable_count
from unit.evaluation.features import features_if_installed
from unit.evaluation.grids import sample_grids
from unit.evaluation.metric_table import COUNTS, Metrics
from unit.evaluation.report.write import write_report_or_warn
from unit.evaluation.run_log import logged_values
from unit.evaluation.st_lpips import st_lpips_if_installed
from unit.model.objective import Terms, total
from unit.training.alarms import Alarms
from unit.training.diagnostics import diagnostics, probe_batch
from unit.training.finite import NonFiniteError
from unit.training.resolve import ResolvedConfig, ResolvedRun
from unit.training.run_dir import BEST_FILE, RunDir
from unit.training.run_logger import RunLogger
from unit.training.state import StepRecord, TrainingState
from unit.training.trainer import Trainer
from unit.translation.translator import MODEL_FILE, set_best_detail

log = logging.getLogger(__name__)

MAX_VALIDATION_IMAGES = 200
"""per domain"""
_WIDE_INTERVAL = 0.2
"""The part of a KID that its interval may be wide; of 100 streets after 8 minutes it is .16."""
_MIN_MEASURED = 8
"""Number of full-size translations below which metrics say little."""
_MIN_INTERVAL = 100
"""Steps between two sample grids from which on there is an early one."""


class Hooks(ABC):
    """The hooks of a run on its main rank; each raises `UserError` if a file can't be written."""

    logger: RunLogger
    best: tuple[int, float] | None
    """step and value of the best model by the validations"""

    def __init__(self, resolved: ResolvedRun, trainer: TrainingState, run_dir: RunDir) -> None:
        self.resolved, self.trainer, self.run_dir = resolved, trainer, run_dir

    def start(self, resumed: bool) -> None:
        """Describe a new part of the run in its directory, and open the logs."""
        environment = self.run_dir.write_environment()
        self.open_logs(resumed)
        if not resumed:
            self.logger.text(0, "config", to_yaml(self.resolved.config))
            self.logger.text(0, "environment", json.dumps(environment, indent=2))
            self.logger.text(0, "dataset", self.resolved.datasets.describe())

    def open_logs(self, resumed: bool) -> None:
        """Log from this step on; overwrite later steps that were logged before the run was `resumed`."""
        start = self.trainer.steps_done if resumed else None
        self.logger = RunLogger(self.run_dir.path, start, self.resolved.datasets.names)

    @abstractmethod
    def sample(self) -> None:
        """Log what can be looked at; raises `NonFiniteError` for NaN."""

    @abstractmethod
    def validate(self) -> object:
        """Log metrics of the test images; raises `NonFiniteError` for NaN."""

    def backfill(self) -> None:
        """Sample and validate if that was due at this step, but a test image could not be read."""
        train, step = self.resolved.config.train, self.trainer.steps_done
        if samples_due(step, train.sample_every) and not self.logger.has_samples(step):
            self.sample()
        if step > 0 and step % train.validate_every == 0 and step not in self.logger.validated_steps:
            self.validate()

    def close(self) -> None:
        """Wait until everything is written."""
        try:
            self.run_dir.writer.finish()
        finally:
            self.logger.close()

    def measure(self, seconds: float | None = None) -> Metrics | None:
        """Return the final metrics, measured in `seconds` (None: in the time that it takes by default)."""
        return None

    @abstractmethod
    def report(self, metrics: Metrics | None, seconds: float | None = None) -> None:
        """Write report.html with the metrics of `measure`; `seconds` as there."""

    def require_no_nan(self, name: str, *values: Tensor) -> None:
        """Raise `NonFiniteError` if a value is NaN."""
        if any(value.isnan().any() for value in values):
            raise NonFiniteError(self.trainer.steps_done, name)


class TranslationHooks(Hooks):
    """The hooks of a run of UNIT: sample grids, KID and the best model by it, alarms."""

    resolved: ResolvedConfig
    trainer: Trainer

    def __init__(self, resolved: ResolvedConfig, trainer: Trainer, run_dir: RunDir) -> None:
        super().__init__(resolved, trainer, run_dir)
        test, data, features = resolved.datasets.test, resolved.config.data, features_if_installed(resolved.device)
        st_lpips = st_lpips_if_installed(resolved.device)
        self.evaluator = Evaluator(test, data, features, at_most=MAX_VALIDATION_IMAGES, st_lpips=st_lpips)
        self._too_slow = False
        """full-size translations take too long to measure"""

    def open_logs(self, resumed: bool) -> None:
        """Log from this step on; overwrite later steps that were logged before the run was `resumed`."""
        super().open_logs(resumed)
        self.metrics: tuple[int, Metrics] | None = None
        validations = logged_values(self.run_dir.path / "metrics.jsonl")
        since = self.run_dir.best_since
        kids = [(step, kid) for step, values in validations if step > since and (kid := mean_kid(values)) is not None]
        self.best = min(kids, key=lambda pair: pair[1], default=None)  # of mean KIDs
        self.alarms = Alarms(self.resolved.datasets.names, self.run_dir.path)

    def sample(self) -> None:
        """Log sample grids and, except at the early step, diagnostics and alarms; raises `NonFiniteError` for NaN."""
        translator, step = self.resolved.translator(self.trainer), self.trainer.steps_done
        grids = sample_grids(translator, self.resolved.datasets.test)
        self.require_no_nan("a sample image", *grids)
        if step % self.resolved.config.train.sample_every:
            self.logger.samples(step, grids)
            return
        scalars = diagnostics(translator, self.trainer.discriminators, *self._probe_batches)
        self.require_no_nan("a diagnostic", torch.tensor(list(scalars.values())))
        self.logger.scalars(step, scalars | self.alarms.check(step, scalars))
        self.logger.samples(step, grids)

    @cached_property
    def _probe_batches(self) -> tuple[PerDomain[Tensor], PerDomain[Tensor]]:
        """Test and training images for the diagnostics, read once."""
        datasets, data = self.resolved.datasets, self.resolved.config.data
        return probe_batch(datasets.test.images, data), probe_batch(datasets.train, data)

    def validate(self) -> Metrics:
        """Return test metrics at the training size; log them unless done already; keep the best model.

        `translate` writes larger images, but those take long, and a run's KIDs must be comparable with one another.
        """
        step = self.trainer.steps_done
        if self.metrics is None or self.metrics[0] != step:
            self.metrics = step, self.evaluator.metrics(self.resolved.translator(self.trainer))
            scalars = {
                f"val/{name}_{direction}": value
                for direction, groups in self.metrics[1].items()
                for name, value in groups["translated"].items()
                if value is not None and name not in COUNTS
            }
            self.require_no_nan("a metric", torch.tensor(list(scalars.values())))
            if step not in self.logger.validated_steps:
                self.logger.scalars(step, scalars)
            kid = mean_kid(scalars)
            if kid is not None and (self.best is None or kid < self.best[1]):
                if self.best is None:
                    warn_if_uncertain(kid, scalars, min(self.resolved.datasets.test.images.map(len)))
                self.best = step, kid
                self.run_dir.save_model(BEST_FILE)
                path = self.run_dir.path / BEST_FILE
                log.info("step %d: the best so far, mean KID %.1f at the training size: %s", step, kid, path)
        return self.metrics[1]

    def measure(self, seconds: float | None = None) -> Metrics:
        """Return the metrics of what `translate` writes, measured in `seconds` (None: two minutes).

        An error is a line in the log, since the run itself is done; the metrics are then those at the training size.
        """
        metrics = self.validate()
        try:
            metrics = self._measure_full_size(seconds) or metrics
        except Exception as error:  # no error here is worth losing the training
            reason = escape(" ".join(str(error).split()))
            log.warning("%s; the metrics shown are those at the training size", reason)
        return metrics

    def report(self, metrics: Metrics | None, seconds: float | None = None) -> None:
        """Write report.html with the metrics of `measure`; `seconds` as there.

        Where full-size translations take too long, the report's are made at the training size.
        """
        features, resolved = self.evaluator.features, self.resolved
        size = resolved.config.data.load_size if self._too_slow and seconds is not None else None
        options = (metrics, features.name if features else None, size, seconds)
        write_report_or_warn(resolved.out, str(resolved.device), resolved.precision, *options)

    def _measure_full_size(self, seconds: float | None) -> Metrics | None:
        """Measure images at their own size, and keep which `--detail` is better in the model's files.

        None: it is the training size, or so large that `seconds` would not do.
        """
        data, test = self.resolved.config.data, self.resolved.datasets.test
        if data.synthetic and data.load_size == data.crop_size:
            return None
        translator = self.resolved.translator(self.trainer)
        translator.detail = "native"  # which is the slower one
        st_lpips, longest = self.evaluator.st_lpips, max(test.images.map(len))
        count = affordable_count(test.images, translator, st_lpips=st_lpips, seconds=seconds, at_least=0)
        self._too_slow = count < min(longest, _MIN_MEASURED)
        if self._too_slow:
            within = "minutes" if seconds is None else "the time left"
            log.warning(
                "the held-out images are too large to measure within %s what translate writes for them; "
                "python -m unit evaluate does it; the metrics shown are those at the training size",
                within,
            )
            return None
        log.info("measuring what translate writes for %d held-out images of each domain", min(count, longest))
        evaluator = Evaluator(test, data, self.evaluator.features, count, native=True, st_lpips=st_lpips)
        best_detail, metrics = choose_detail(evaluator, translator)
        for file in (MODEL_FILE, BEST_FILE):
            set_best_detail(self.run_dir.path / file, best_detail)
        return metrics


def samples_due(step: int, every: int) -> bool:
    """True if sample grids are due: every so many steps, and once early, since the first interval may take an hour."""
    return step % every == 0 or (every >= _MIN_INTERVAL and step == every // 10)


def step_scalars(trainer: TrainingState, record: StepRecord) -> dict[str, float]:
    """The last step under TensorBoard's tags: weighted loss terms, learning rates, gradient norms and mean logits."""
    losses: Terms = {}
    for part, terms in (("generator", record.generator), ("discriminator", record.discriminator)):
        if terms:
            losses |= {f"{part}_total": total(terms)} | terms
    scalars = {f"loss/{name}": float(value.detach()) for name, value in losses.items()}
    rates, norms = trainer.learning_rates(), trainer.gradient_norms()
    for part, rate, norm in zip(("generator", "discriminator"), rates, norms, strict=True):
        scalars |= {f"optimizer/learning_rate_{part}": rate, f"optimizer/gradient_norm_{part}": norm}
    for label, microbatches in (("real", record.real_logits), ("fake", record.fake_logits)):
        if microbatches:
            scalars |= {f"discriminator/{label}_logit_{i}": _mean_logit([mb[i] for mb in microbatches]) for i in Domain}
    return scalars


def _mean_logit(microbatches: list[list[Tensor]]) -> float:
    """Average over patches, then over scales and microbatches."""
    return float(torch.stack([logits.detach().float().mean() for scales in microbatches for logits in scales]).mean())


def mean_kid(scalars: Mapping[str, float]) -> float | None:
    """The mean KID of both directions; None if it was not measured."""
    kids = [scalars[tag] for i in Domain if (tag := f"val/kid_{i.direction}") in scalars]
    return sum(kids) / len(Domain) if len(kids) == len(Domain) else None


def warn_if_uncertain(kid: float, scalars: Mapping[str, float], count: int) -> None:
    """Say so if KID's interval is so wide that the best of several similar models is a matter of chance."""
    low, high = (sum(scalars[f"val/kid_{end}_{i.direction}"] for i in Domain) / len(Domain) for end in ("low", "high"))
    if high - low > _WIDE_INTERVAL * kid:
        log.warning(
            "with %d held-out images KID is uncertain (95 %% interval %.0f to %.0f), and the best model partly a "
            "matter of chance: look at the samples too, or give more test images (data.test_a, data.test_b)",
            *(count, low, high),
        )

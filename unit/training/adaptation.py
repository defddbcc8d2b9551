"""Domain adaptation of digits as a run: what it resolves to, its hooks, and its result."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch

from unit.config import with_absolute_folders
from unit.data.bad_images import BadImages
from unit.data.datasets import Datasets, HeldOut
from unit.data.digit_batches import DigitBatch, digit_batches
from unit.devices import configure, resolve_precision
from unit.digits.config import AdaptationConfig
from unit.digits.source import Digits, open_digits
from unit.domains import Domain, PerDomain
from unit.errors import ConfigError
from unit.evaluation.classification import accuracy, digit_grids, tested_domain
from unit.evaluation.metric_table import Metrics
from unit.evaluation.report.write import write_report_or_warn
from unit.evaluation.run_images import locate
from unit.evaluation.run_log import logged_values
from unit.training.adaptation_trainer import AdaptationTrainer
from unit.training.distributed import Ranks
from unit.training.hooks import Hooks
from unit.training.loop import run
from unit.training.resolve import ResolvedRun

ACCURACY = "val/accuracy"


@dataclass(frozen=True)
class ResolvedAdaptation(ResolvedRun):
    """A resolved run of domain adaptation."""

    config: AdaptationConfig
    train_digits: PerDomain[Digits]
    """without labels in the domain whose labels training may not know"""
    test_digits: PerDomain[Digits]

    def build_trainer(self) -> AdaptationTrainer:
        """A trainer at step 0."""
        return AdaptationTrainer(self.config, self.device, self.precision, self.ranks)

    def initialize(self, trainer: AdaptationTrainer) -> None:
        """Refuse it: a classifier starts from random weights."""
        raise ConfigError("train.init_from: a classifier of digits starts from random weights; leave it out")

    def batches(self, steps: range, bad_images: BadImages) -> Generator[DigitBatch]:
        """Yield this rank's digits for each of `steps`, counted from 0."""
        indices = (self.ranks.sample_indices(step, self.config.train.batch_size) for step in steps)
        return digit_batches(self.train_digits, self.config.train.seed, indices, self.device)

    def model(self, trainer: AdaptationTrainer) -> bytes:
        """Serialize the classifier, with the configuration and the step."""
        metadata = {"kind": "classifier of digits", "config": json.dumps(self.config.to_dict())}
        weights = {name: tensor.contiguous() for name, tensor in trainer.ema.state_dict().items()}
        content: bytes = safetensors.torch.save(weights, metadata | {"step": str(trainer.steps_done)})
        return content


class AdaptationHooks(Hooks):
    """Measures the classifier on all of the target's test images, and draws translated digits."""

    resolved: ResolvedAdaptation
    trainer: AdaptationTrainer

    def open_logs(self, resumed: bool) -> None:
        """Log from this step on; overwrite later steps that were logged before the run was `resumed`."""
        super().open_logs(resumed)
        self.best = _best(self.run_dir.path)

    def sample(self) -> None:
        """Draw a grid of translated digits; without generators there is none."""
        if self.resolved.config.loss.adversarial:
            grids = digit_grids(self.trainer.networks, self.trainer.ema, self.resolved.test_digits)
            self.require_no_nan("a translated digit", *grids)
            self.logger.samples(self.trainer.steps_done, grids)

    def validate(self) -> None:
        """Log the accuracy on both test sets; that on the target decides nothing."""
        step, data = self.trainer.steps_done, self.resolved.config.data
        if step in self.logger.validated_steps:
            return
        tested, test, classifier = tested_domain(self.resolved.config), self.resolved.test_digits, self.trainer.ema
        channels = data.channels(data.source if tested is Domain.A else data.target)
        scalars = {ACCURACY: accuracy(classifier, test.b, tested, channels)}
        if data.labels == "source":
            scalars["val/accuracy_source"] = accuracy(classifier, test.a, Domain.A, data.channels(data.source))
        self.logger.scalars(step, scalars)
        self.best = _best(self.run_dir.path)

    def report(self, metrics: Metrics | None, seconds: float | None = None) -> None:
        """Write report.html."""
        write_report_or_warn(self.resolved.out)


def _best(run: Path) -> tuple[int, float] | None:
    """The step with the highest accuracy so far, the first of several, and that accuracy."""
    return max(accuracies(run).items(), key=lambda pair: pair[1], default=None)


def accuracies(run: Path) -> dict[int, float]:
    """Return the accuracies on the target's test set by step."""
    logged = logged_values(run / "metrics.jsonl")
    return dict(sorted((step, values[ACCURACY]) for step, values in logged if ACCURACY in values))


@dataclass(frozen=True)
class AdaptationResult:
    """How a run, or this part of it, ended."""

    out: Path
    step: int
    exit_status: int
    """0; 128 + the signal's number when a signal stopped the run"""
    accuracy: float | None
    """of the classifier after the last step, on the whole test set of the target; None when a signal stopped the run"""
    best_on_test: tuple[int, float] | None
    """step and accuracy of the best validation: selected on the test set, so not a result"""
    test_images: int
    seconds: float
    """of this part, with validations"""


def adapt(config: AdaptationConfig, out: Path, *, restart: bool = False, download: bool = False) -> AdaptationResult:
    """Train a classifier for the target until `train.steps`; resume a run that is in `out` already.

    Args:
        config: the configuration.
        out: the run's directory.
        restart: start at step 0; a run that is there already is kept as OUT.1 (.2, …).
        download: fetch the sets that are missing.

    Raises:
        UserError: a file, a setting or the machine makes it impossible; the message says what to do.
    """
    start = time.monotonic()
    resolved: list[ResolvedAdaptation] = []

    def resolve(ranks: Ranks, _: bool) -> ResolvedAdaptation:
        resolved.append(resolve_adaptation(config, out, ranks, download))
        return resolved[0]

    result = run(resolve, AdaptationHooks, restart)
    last = None if result.exit_status else accuracies(out).get(result.step)
    count, seconds = len(resolved[0].test_digits.b), time.monotonic() - start
    return AdaptationResult(out, result.step, result.exit_status, last, result.best, count, seconds)


def resolve_adaptation(config: AdaptationConfig, out: Path, ranks: Ranks, download: bool = False) -> ResolvedAdaptation:
    """Find the device and read the digits."""
    device = ranks.device(config.train.device)
    configure(device, config.train.deterministic)
    data = locate(config.data, out)
    config = replace(config, data=with_absolute_folders(data))
    names = PerDomain(data.source, data.target)
    root, known = Path(data.root), PerDomain(data.labels == "source", data.labels == "target")

    def digits(i: Domain, split: str) -> Digits:
        labelled = split == "test" or known[i]
        loaded = open_digits(root, names[i], split, data.size, labelled=labelled, download=download)
        return replace(loaded, inverted_too=split == "train" and data.inverted_too(names[i]))

    train, test = (PerDomain.of(lambda i, split=split: digits(i, split)) for split in ("train", "test"))  # type: ignore[misc]
    datasets = Datasets(PerDomain(*train), HeldOut(PerDomain(*test), paired=False), PerDomain(*names))
    precision = resolve_precision(config.train.precision, device)
    return ResolvedAdaptation(config, out, device, precision, datasets, ranks, train, test)

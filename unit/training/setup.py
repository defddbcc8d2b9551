"""What training, and its dry run, begin with: device, images and where to put the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unit.config import MACHINES_OWN, Config, DataConfig
from unit.data.bad_images import BadImages
from unit.data.batches import TrainingImages, loader_failure, training_batches
from unit.data.check import CHECKS, check_headers, describe_findings
from unit.data.datasets import Datasets, open_datasets
from unit.devices import configure, out_of_memory, resolve_precision
from unit.domains import PerDomain
from unit.errors import ConfigError, DataError, UserError, escape
from unit.training.compilation import compile_as_configured
from unit.training.distributed import SINGLE_PROCESS, Ranks
from unit.training.trainer import Trainer
from unit.translation.translator import Translator

log = logging.getLogger(__name__)

_MOST_HEADERS = 5000  # looked at in each folder before training: a second


@dataclass(frozen=True)
class Setup:
    """A configuration, and what it means on this machine."""

    config: Config
    out: Path
    device: torch.device
    precision: str
    datasets: Datasets
    ranks: Ranks = SINGLE_PROCESS

    @classmethod
    def of(cls, config: Config, out: Path | None, ranks: Ranks = SINGLE_PROCESS) -> Setup:
        """Find the device, list the images and look at their headers; `out` None: the default folder.

        Raises:
            UserError: a folder, a setting or the machine does not allow it.
        """
        device = ranks.device(config.train.device)
        configure(device, config.train.deterministic)
        datasets = open_datasets(config.data, config.train.seed)
        if ranks.is_main:
            _inspect(datasets, config.data)
        out = out or default_folder(config, datasets)
        _refuse_inside(out, datasets)
        precision = resolve_precision(config.train.precision, device)
        setup = cls(config, out, device, precision, datasets, ranks)
        setup.require_equal_ranks()
        return setup

    def require_equal_ranks(self) -> None:
        """Raise `UserError` where ranks differ in what has to be equal; each may have its images elsewhere."""
        facts = {key: value for key, value in self.config.to_flat_dict().items() if key not in MACHINES_OWN}
        facts |= {"torch": torch.__version__, "the precision": self.precision, "the kind of device": self.device.type}
        self.ranks.require_same(facts | {"the list of training images": self.datasets.digest()})

    def trainer(self) -> Trainer:
        """At step 0."""
        trainer = Trainer(self.config, self.device, self.precision, self.ranks)
        compile_as_configured(trainer)
        return trainer

    def batches(self, steps: range, bad: BadImages) -> Generator[PerDomain[Tensor]]:
        """This rank's images of each of `steps`, read by as many processes as the configuration or the device wants."""
        train, data = self.config.train, self.config.data
        workers = data.workers
        if workers is None:  # the embedded streets are soon all in memory, where one process finds them again
            workers = 0 if data.embedded else (min(4, os.cpu_count() or 1) if self.device.type == "cuda" else 1)
        images = TrainingImages(self.datasets.train, data, train.seed)
        size = train.batch_size * train.grad_accum_steps
        places = (self.ranks.sample_indices(step, size) for step in steps)
        return training_batches(images, bad, places, workers, self.device)

    def translator(self, trainer: Trainer) -> Translator:
        """The averaged networks, as they are now and will be."""
        names, step = self.datasets.names, trainer.steps_done
        return Translator(trainer.ema, self.config, names, step, str(self.device), self.precision)

    def explain(self, error: RuntimeError | MemoryError) -> UserError | None:
        """What the user can do about an error of torch's; None for an error of ours."""
        if out_of_memory(error):
            return UserError(
                f"the memory of {self.device} does not suffice; set train.checkpoint_activations, or lower "
                "train.batch_size, data.crop_size or model.channels. The last checkpoint is good"
            )
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            why = escape(next(iter(str(error).splitlines()), type(error).__name__))
            return UserError(f"train.compile: steps can't be compiled here ({why}); set it to off")
        return loader_failure(error) if isinstance(error, RuntimeError) else None


def default_folder(config: Config, datasets: Datasets) -> Path:
    """Where a run goes that was not told."""
    return Path("runs") / ("streets" if config.data.embedded else f"{datasets.names.a}-{datasets.names.b}")


def _refuse_inside(out: Path, datasets: Datasets) -> None:
    """A run among the images would train on its own samples."""
    for source in (*datasets.train, *datasets.test.images):
        if source.folder and out.resolve().is_relative_to(source.folder.resolve()):
            raise ConfigError(f"--out {escape(out)}: lies among the images of {escape(source.folder)}; give another")


def _inspect(datasets: Datasets, config: DataConfig) -> None:
    """Say what the files' headers tell, before hours are spent; refuse what training would stop at."""
    findings = [finding for finding in check_headers(datasets, config, _MOST_HEADERS) if finding.level != "note"]
    if findings:
        log.warning("%s", describe_findings(findings))
    bad = [finding for finding in findings if finding.level == "error"]
    if bad and config.on_bad_image == "stop":
        others = f" (and {len(bad) - 1:,} more such files)" if len(bad) > 1 else ""
        raise DataError(
            f"{escape(bad[0].file)}: {CHECKS[bad[0].check].title}{others}; replace or remove what python -m unit "
            "check names, or set data.on_bad_image to skip"
        )

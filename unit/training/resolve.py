"""A configuration resolved on this machine: its device, its images, its output directory."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unit.config import MACHINE_SPECIFIC, Config, DataConfig, RunConfig, absolute_path, with_absolute_folders
from unit.data.bad_images import BadImages
from unit.data.batches import TrainingImages, loader_failure, training_batches
from unit.data.check import CHECKS, check_headers, describe_findings
from unit.data.datasets import Datasets, domain_names, open_datasets
from unit.devices import configure, out_of_memory, resolve_precision
from unit.domains import PerDomain
from unit.errors import ConfigError, DataError, UserError, escape
from unit.evaluation.run_images import locate
from unit.listing import shorten
from unit.machine import core_count
from unit.training.compilation import compile_as_configured
from unit.training.distributed import SINGLE_PROCESS, Ranks
from unit.training.initial_weights import initialize
from unit.training.state import TrainingState
from unit.training.trainer import Trainer
from unit.translation.translator import Translator

log = logging.getLogger(__name__)

_MAX_NAME = 240
"""Bytes of a run directory's name: file systems allow 255, and a restart appends a number."""
_MAX_HEADERS = 5000
"""Files of each folder whose headers are inspected before training, which takes a second."""


@dataclass(frozen=True)
class ResolvedRun(ABC):
    """A configuration with the device, the precision, the images and the output directory that it resolves to."""

    config: RunConfig
    out: Path
    device: torch.device
    precision: str
    datasets: Datasets
    ranks: Ranks

    @property
    def skips_bad_images(self) -> bool:
        """True if training goes on without images that can't be read."""
        return False

    @abstractmethod
    def build_trainer(self) -> TrainingState:
        """A trainer at step 0."""

    @abstractmethod
    def initialize(self, trainer: Any) -> None:
        """Give a new trainer the weights of `train.init_from`."""

    @abstractmethod
    def batches(self, steps: range, bad_images: BadImages) -> Generator[Any]:
        """Yield the trainer's batch for each of `steps`, counted from 0."""

    @abstractmethod
    def model(self, trainer: Any) -> bytes:
        """Return the content of model.safetensors."""

    def digests(self) -> dict[str, dict[str, str]]:
        """Digests of the images."""
        return self.datasets.digests()


@dataclass(frozen=True)
class ResolvedConfig(ResolvedRun):
    """A resolved run of UNIT."""

    config: Config

    @property
    def skips_bad_images(self) -> bool:
        """True if training goes on without images that can't be read."""
        return self.config.data.on_bad_image == "skip"

    def build_trainer(self) -> Trainer:
        """A trainer at step 0, compiled if the configuration says so."""
        trainer = Trainer(self.config, self.device, self.precision, self.ranks)
        compile_as_configured(trainer)
        return trainer

    def batches(self, steps: range, bad_images: BadImages) -> Generator[PerDomain[Tensor]]:
        """Yield this rank's images for each of `steps`, counted from 0; count those that can't be read."""
        train, data = self.config.train, self.config.data
        workers = data.workers
        if workers is None and data.synthetic:
            workers = 0  # the built-in streets are soon all in this process's memory
        elif workers is None:
            workers = min(4, core_count()) if self.device.type == "cuda" else 1
        images = TrainingImages(self.datasets.train, data, train.seed)
        size = train.batch_size * train.grad_accum_steps
        indices = (self.ranks.sample_indices(step, size) for step in steps)
        return training_batches(images, bad_images, indices, workers, self.device)

    def initialize(self, trainer: Trainer) -> None:
        """Give a new trainer the weights of `train.init_from`."""
        initialize(trainer)

    def model(self, trainer: Trainer) -> bytes:
        """Return the content of model.safetensors."""
        return self.translator(trainer).to_bytes()

    def digests(self) -> dict[str, dict[str, str]]:
        """Digests of the images, with their contents if data.verify says so."""
        return self.datasets.digests(self.config.data.verify)

    def translator(self, trainer: Trainer) -> Translator:
        """A translator that shares the trainer's EMA weights, so it follows them."""
        names, step = self.datasets.names, trainer.steps_done
        return Translator(trainer.ema, self.config, names, step, str(self.device), self.precision)


def resolve(
    config: Config, out: Path | None, ranks: Ranks = SINGLE_PROCESS, *, restart: bool = False
) -> ResolvedConfig:
    """Find the device, list the images and inspect their headers; by default, `out` is named after the domains.

    Raises:
        UserError: a folder, a setting or the machine makes training impossible, or ranks differ where they must not.
    """
    device = ranks.device(config.train.device)
    configure(device, config.train.deterministic)
    config = replace(config, data=locate(config.data, out) if out else with_absolute_folders(config.data))
    if config.train.init_from:
        config = replace(config, train=replace(config.train, init_from=absolute_path(config.train.init_from)))
    datasets = open_datasets(config.data, config.train.seed)
    if ranks.is_main:
        _check_headers(datasets, config.data)
    out = out or default_out(config.data)
    if len(os.fsencode(out.name)) > _MAX_NAME:
        raise ConfigError(f"--out {escape(shorten(str(out)))}: is too long a name; give another")
    _refuse_out_among_images(out, datasets, restart)
    _refuse_out_at_source(out, config.train.init_from)
    precision = resolve_precision(config.train.precision, device)
    must_match = {key: value for key, value in config.to_flat_dict().items() if key not in MACHINE_SPECIFIC}
    must_match |= {"torch": torch.__version__, "the precision": precision, "the kind of device": device.type}
    ranks.require_same(must_match | {"the list of training images": datasets.digest()})
    return ResolvedConfig(config, out, device, precision, datasets, ranks)


def default_out(data: DataConfig) -> Path:
    """Return the run directory for runs without --out, named after the domains."""
    names = domain_names(data)
    return Path("runs") / ("streets" if data.synthetic else f"{names.a}-{names.b}")


@contextmanager
def explain_errors(device: torch.device) -> Iterator[None]:
    """Raise torch's errors as `UserError` where the user can do something about them."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            raise UserError(
                f"out of memory on {device}; set train.checkpoint_activations, or lower train.batch_size, "
                "data.crop_size or model.channels. The last checkpoint is good"
            ) from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            reason = escape(next(iter(str(error).splitlines()), type(error).__name__))
            raise UserError(f"train.compile: steps can't be compiled here ({reason}); set it to off") from error
        if isinstance(error, RuntimeError) and (explained := loader_failure(error)):
            raise explained from error
        raise


def _refuse_out_among_images(out: Path, datasets: Datasets, restart: bool) -> None:
    """Compare real paths: a run would train on its own samples, and a restart would move the images with the run."""
    real, resumes = Path(os.path.realpath(out)), not restart and (out / "checkpoints").is_dir()
    for source in (*datasets.train, *datasets.test.images):
        for folder, recursive in source.origins:
            if recursive and real.is_relative_to(folder):
                raise ConfigError(f"--out {escape(out)}: lies among the images of {escape(folder)}; give another")
            is_own = bool(source.folder) and folder != os.path.realpath(source.folder or "")
            if Path(folder).is_relative_to(real) and (is_own or not resumes):  # older runs may contain their images
                raise ConfigError(f"--out {escape(out)}: images are read from {escape(folder)} in it; give another")


def _refuse_out_at_source(out: Path, init_from: str | None) -> None:
    """A run can't start from itself; its directory's default name is that of the domains, which may be the same."""
    source = Path(os.path.realpath(init_from or ""))
    if init_from and Path(os.path.realpath(out)) == (source.parent if source.suffix == ".safetensors" else source):
        raise ConfigError(f"--out {escape(out)}: is the run of --init_from; give another")


def _check_headers(datasets: Datasets, config: DataConfig) -> None:
    """Log what the files' headers reveal, before training; refuse files at which training would stop."""
    findings = [finding for finding in check_headers(datasets, config, _MAX_HEADERS) if finding.level != "note"]
    for line in describe_findings(findings).splitlines():
        log.warning("%s", line)
    errors = [finding for finding in findings if finding.level == "error"]
    if errors and config.on_bad_image == "stop":
        others = f" (and {len(errors) - 1:,} more such files)" if len(errors) > 1 else ""
        raise DataError(
            f"{escape(errors[0].file)}: {CHECKS[errors[0].check].title}{others}; replace or remove what python -m unit "
            "check names, or set data.on_bad_image to skip"
        )

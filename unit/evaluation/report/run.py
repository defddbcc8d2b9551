"""A run directory as a report sees it: each part is read on demand, and may be missing or damaged."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unit.config import Config, DataConfig
from unit.config_file import read_config
from unit.data.datasets import Datasets
from unit.digits.config import AdaptationConfig, read_adaptation_config
from unit.domains import PerDomain
from unit.errors import ConfigError, UserError, escape
from unit.evaluation.run_images import CONFIG_FILE, open_run_datasets, read_environment
from unit.evaluation.run_log import logged_values
from unit.translation.model_file import MODEL_FILE

if TYPE_CHECKING:
    from unit.translation.translator import Translator

_PARTS = (CONFIG_FILE, "environment.json", "metrics.jsonl", "samples", MODEL_FILE)


class Run:
    """The contents of a run directory; every property raises `UserError` where its part is missing or damaged.

    Args:
        path: the run directory.
        device: where to translate the held-out images.
        precision: of the convolutions.
        size: the short side at which the network works, like `translate --size`; None: the image's own.
        seconds: that each measurement may take; None: two minutes.

    Raises:
        ConfigError: the folder is not a run directory.
    """

    def __init__(
        self,
        path: Path,
        device: str = "auto",
        precision: str = "auto",
        size: int | None = None,
        seconds: float | None = None,
    ) -> None:
        if not any(os.path.exists(path / part) for part in _PARTS):  # noqa: PTH110 - Path.exists raises for some names
            raise ConfigError(f"{escape(path)}: not a run directory; give the one that training wrote (--out)")
        self.path, self.name = path, path.resolve().name
        self.size, self.seconds, self._device, self._precision = size, seconds, device, precision

    @cached_property
    def translator(self) -> Translator:
        """The latest model."""
        from unit.translation.translator import Translator  # takes seconds, which mistakes need not wait for

        return Translator.load(self.path, self._device, self._precision)

    @cached_property
    def adaptation(self) -> AdaptationConfig | None:
        """The configuration, if this is a run of `unit adapt`."""
        return read_adaptation_config(self.path / CONFIG_FILE)

    @cached_property
    def config(self) -> Config:
        """The configuration of a run of UNIT, from config.yaml, else from the model."""
        file = self.path / CONFIG_FILE
        return read_config(file) if file.is_file() else self.translator.config

    @cached_property
    def datasets(self) -> Datasets:
        """The images, where they still exist."""
        return open_run_datasets(self.path, self.config)

    @property
    def data(self) -> DataConfig:
        """How to read held-out images: unreadable ones are skipped, even if they would stop training."""
        return replace(self.config.data, on_bad_image="skip")

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """The contents of environment.json."""
        return read_environment(self.path)

    def fact(self, name: str) -> Any:
        """Look up a key of environment.json; None where it is unknown."""
        with suppress(UserError):
            return self.environment.get(name)
        return None

    @cached_property
    def log(self) -> dict[str, dict[int, float]]:
        """Tag → step → value: the finite values in metrics.jsonl by step."""
        curves: dict[str, dict[int, float]] = {}
        for step, values in logged_values(self.path / "metrics.jsonl"):
            for tag, value in values.items():
                curves.setdefault(tag, {})[step] = value
        return {tag: dict(sorted(points.items())) for tag, points in curves.items()}

    @cached_property
    def names(self) -> PerDomain[str]:
        """The user's names of the domains, from the model, else from environment.json, else "a" and "b"."""
        if self.adaptation:
            return PerDomain(self.adaptation.data.source, self.adaptation.data.target)
        with suppress(UserError):
            return self.translator.names
        try:
            return PerDomain(*map(str, self.environment["training_images"]))
        except (UserError, KeyError, TypeError):
            return PerDomain("a", "b")

"""A run's folder as a report sees it: each part read when it is asked for, and none of them taken for granted."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from unit.config import Config, DataConfig
from unit.config_file import read_config
from unit.data.datasets import Datasets, open_datasets
from unit.domains import PerDomain
from unit.errors import ConfigError, UserError, escape
from unit.evaluation.run_log import logged
from unit.translation.translator import MODEL_FILE, Translator

_PARTS = ("config.yaml", "environment.json", "metrics.jsonl", "samples", MODEL_FILE)
_LARGEST = 1e30
"""Of what is drawn: beyond, the length of an axis might be no number any more."""


class Run:
    """What lies in a run's folder; every property raises `UserError` where its part is missing or damaged.

    Raises:
        ConfigError: the folder is no run's.
    """

    def __init__(self, path: Path, device: str = "auto", precision: str = "auto") -> None:
        if not any(os.path.exists(path / part) for part in _PARTS):  # noqa: PTH110 - Path.exists raises for some names
            raise ConfigError(f"{escape(path)}: is no run's folder; give the one that training wrote (--out)")
        self.path = path
        self._device, self._precision = device, precision

    @property
    def name(self) -> str:
        """The folder's own, however it was given."""
        return self.path.resolve().name

    @cached_property
    def translator(self) -> Translator:
        """The model, as it was last written."""
        return Translator.load(self.path, self._device, self._precision)

    @cached_property
    def config(self) -> Config:
        """Of the folder, else of the model."""
        file = self.path / "config.yaml"
        return read_config(file) if file.is_file() else self.translator.config

    @cached_property
    def datasets(self) -> Datasets:
        """The images, where they are still there."""
        return open_datasets(self.config.data, self.config.train.seed)

    @property
    def data(self) -> DataConfig:
        """How held-out images are read: one that can't be is passed over, whatever the training did."""
        return replace(self.config.data, on_bad_image="skip")

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """What environment.json says."""
        file = self.path / "environment.json"
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"{escape(file)}: is missing") from error
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{escape(file)}: can't be read") from error
        if not isinstance(found, dict):
            raise UserError(f"{escape(file)}: holds no facts by name")
        return found

    @cached_property
    def log(self) -> dict[str, dict[int, float]]:
        """Tag, then step, then value: the finite numbers of metrics.jsonl, in the order of their steps."""
        curves: dict[str, dict[int, float]] = {}
        lines = [(step, line) for step, line in logged(self.path / "metrics.jsonl") if 0 <= step <= _LARGEST]
        for step, line in lines:
            for tag, value in json.loads(line).items():
                if tag != "step" and isinstance(value, int | float) and abs(value) <= _LARGEST:  # which NaN is not
                    curves.setdefault(tag, {})[step] = float(value)
        return {tag: dict(sorted(points.items())) for tag, points in curves.items()}

    @property
    def logged_step(self) -> int:
        """The last that the log tells of."""
        return max((next(reversed(points)) for points in self.log.values()), default=0)

    @cached_property
    def names(self) -> PerDomain[str]:
        """What the user calls the domains: as the model has it, else as the start of the run noted it, else a and b."""
        with suppress(UserError):
            return self.translator.names
        try:
            noted = self.environment["training_images"]
            return PerDomain(*map(str, noted))
        except (UserError, KeyError, TypeError):
            return PerDomain("a", "b")

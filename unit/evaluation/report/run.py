"""A run directory as a report sees it: each part is read on demand, and may be missing or damaged."""

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
from unit.files import read_file
from unit.translation.translator import MODEL_FILE, Translator

_PARTS = ("config.yaml", "environment.json", "metrics.jsonl", "samples", MODEL_FILE)
_MAX_ENVIRONMENT = 1_000_000
"""Bytes; a thousand times what is needed."""
_MAX_VALUE = 1e30
"""Larger values are not drawn: the length of an axis might overflow."""


class Run:
    """The contents of a run directory; every property raises `UserError` where its part is missing or damaged.

    Args:
        path: the run directory.
        device: where to translate the held-out images.
        precision: of the convolutions.
        size: the short side at which the network works, like `translate --size`; None: the image's own.

    Raises:
        ConfigError: the folder is not a run directory.
    """

    def __init__(self, path: Path, device: str = "auto", precision: str = "auto", size: int | None = None) -> None:
        if not any(os.path.exists(path / part) for part in _PARTS):  # noqa: PTH110 - Path.exists raises for some names
            raise ConfigError(f"{escape(path)}: not a run directory; give the one that training wrote (--out)")
        self.path, self.name = path, path.resolve().name
        self.size, self._device, self._precision = size, device, precision

    @cached_property
    def translator(self) -> Translator:
        """The latest model."""
        return Translator.load(self.path, self._device, self._precision)

    @cached_property
    def config(self) -> Config:
        """The configuration from config.yaml, else from the model."""
        file = self.path / "config.yaml"
        return read_config(file) if file.is_file() else self.translator.config

    @cached_property
    def datasets(self) -> Datasets:
        """The images, where they still exist."""
        return open_datasets(self.config.data, self.config.train.seed)

    @property
    def data(self) -> DataConfig:
        """How to read held-out images: unreadable ones are skipped, even if they would stop training."""
        return replace(self.config.data, on_bad_image="skip")

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """The contents of environment.json."""
        file = self.path / "environment.json"
        try:
            content = json.loads(read_file(file, _MAX_ENVIRONMENT))
        except (OSError, ValueError, RecursionError) as error:
            detail = f" ({error.strerror})" if isinstance(error, OSError) else ""
            reason = "is missing" if isinstance(error, FileNotFoundError) else f"can't be read{detail}"
            raise UserError(f"{escape(file)}: {reason}") from error
        if not isinstance(content, dict):
            raise UserError(f"{escape(file)}: not a JSON object")
        return content

    def fact(self, name: str) -> Any:
        """Look up a key of environment.json; None where it is unknown."""
        with suppress(UserError):
            return self.environment.get(name)
        return None

    @cached_property
    def log(self) -> dict[str, dict[int, float]]:
        """Tag → step → value: the finite values in metrics.jsonl by step."""
        curves: dict[str, dict[int, float]] = {}
        lines = [(step, line) for step, line in logged(self.path / "metrics.jsonl") if 0 <= step <= _MAX_VALUE]
        for step, line in lines:
            for tag, value in json.loads(line).items():
                if tag != "step" and isinstance(value, int | float) and abs(value) <= _MAX_VALUE:  # False for NaN
                    curves.setdefault(tag, {})[step] = float(value)
        return {tag: dict(sorted(points.items())) for tag, points in curves.items()}

    @cached_property
    def names(self) -> PerDomain[str]:
        """The user's names of the domains, from the model, else from environment.json, else "a" and "b"."""
        with suppress(UserError):
            return self.translator.names
        try:
            return PerDomain(*map(str, self.environment["training_images"]))
        except (UserError, KeyError, TypeError):
            return PerDomain("a", "b")

"""UNIT: unsupervised image-to-image translation networks (Liu, Breuel and Kautz, NIPS 2017).

>>> from unit import Translator
>>> translator = Translator.load("runs/streets")
>>> image = translator(image, "a2b")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unit.config import Config
    from unit.training.loop import train
    from unit.translation.translator import Translator

__all__ = ["Config", "Translator", "train"]
_MODULES = {"Config": "unit.config", "Translator": "unit.translation.translator", "train": "unit.training.loop"}


def __getattr__(name: str) -> Any:
    """Import on first use: importing torch takes seconds, and config, data listing and --help don't need it."""
    if name not in _MODULES:
        raise AttributeError(f"module 'unit' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)

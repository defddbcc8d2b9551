"""UNIT: unsupervised image-to-image translation networks (Liu, Breuel and Kautz, NIPS 2017).

>>> from unit import Translator
>>> translator = Translator.load("runs/streets")
>>> image = translator(image, "a2b")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unit.config import Config
    from unit.training.loop import train
    from unit.translation.translator import Translator

__all__ = ["Config", "Translator", "train"]


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes seconds, and the bottom rooms do without it."""
    match name:
        case "Config":
            from unit.config import Config

            return Config
        case "Translator":
            from unit.translation.translator import Translator

            return Translator
        case "train":
            from unit.training.loop import train

            return train
    raise AttributeError(f"module 'unit' has no attribute {name!r}")

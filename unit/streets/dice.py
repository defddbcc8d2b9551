"""Chance, in a form quick enough for thousands of draws an image."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Rng:
    """Uniform draws from one seed; taken in blocks, since single draws from a NumPy generator are slow."""

    def __init__(self, *seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        self._ready: list[float] = []

    def unit(self) -> float:
        """One draw in [0, 1)."""
        if not self._ready:
            self._ready = self._generator.random(512).tolist()
        return self._ready.pop()

    def between(self, low: float, high: float) -> float:
        """One draw in [low, high)."""
        return low + (high - low) * self.unit()

    def whole(self, low: int, high: int) -> int:
        """One integer in low..high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, share: float) -> bool:
        """True in `share` of the draws."""
        return self.unit() < share

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`."""
        return options[int(self.unit() * len(options))]

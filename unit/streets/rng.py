"""A random number generator that is quick enough for thousands of draws an image."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Rng:
    """Draws from one seed, named as in Python's `random`; NumPy makes them in blocks, since single ones are slow."""

    def __init__(self, *seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        self._block: list[float] = []

    def random(self) -> float:
        """Draw from [0, 1)."""
        if not self._block:
            self._block = self._generator.random(512).tolist()
        return self._block.pop()

    def uniform(self, low: float, high: float) -> float:
        """Draw from [low, high)."""
        return low + (high - low) * self.random()

    def randint(self, low: int, high: int) -> int:
        """Draw an integer from low … high, both included."""
        return low + int(self.random() * (high - low + 1))

    def bernoulli(self, probability: float) -> bool:
        """Draw True with this probability."""
        return self.random() < probability

    def choice(self, options: Sequence[T]) -> T:
        """Draw one of `options`."""
        return options[int(self.random() * len(options))]

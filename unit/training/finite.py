"""Losses and gradients that are no finite numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_NEVER = torch.iinfo(torch.int64).max


class NonFiniteError(Exception):
    """Something that training computed is infinite or no number.

    Args:
        step: the first step of which that is so, counted from 1.
        what: which loss term or gradient, e.g. "the loss term kl_a".
    """

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"step {step}: {what} is not finite")
        self.step, self.what = step, what


class FiniteWatch:
    """Remembers on the device the first step of which a value was not finite, so that nobody waits for the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._first: dict[tuple[str, ...], Tensor] = {}

    def look(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Look at scalars of `step`, by name; raises `NonFiniteError` at once on the CPU, elsewhere `check` does."""
        if not values:
            return
        names = tuple(values)
        finite = torch.stack([value.detach().float() for value in values.values()]).isfinite()
        first = self._first.setdefault(names, torch.full((len(names),), _NEVER, device=self._device))
        first.copy_(torch.where(finite, first, first.clamp(max=step)))
        if self._device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Wait for the device; raises `NonFiniteError` for the first of all that was ever seen."""
        found = [
            (step, what)
            for names, first in self._first.items()
            for what, step in zip(names, first.tolist(), strict=True)
        ]
        step, what = min(found, key=lambda pair: pair[0], default=(_NEVER, ""))
        if step < _NEVER:
            self._first.clear()
            raise NonFiniteError(step, what)

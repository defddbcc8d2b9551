"""Losses and gradients that are no finite numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unit.training.distributed import SINGLE_PROCESS, Ranks

_NEVER = torch.iinfo(torch.int64).max


class NonFiniteError(Exception):
    """Something that training computed is infinite or no number.

    Args:
        step: the first step of which that is so, counted from 1.
        what: which loss term or gradient, e.g. "the loss term kl_a".
    """

    def __init__(self, step: int, what: str) -> None:
        super().__init__(step, what)
        self.step, self.what = step, what

    def __str__(self) -> str:
        return f"step {self.step}: {self.what} is not finite"


class FiniteWatch:
    """Remembers on the device the first step of which a value was not finite, so that nobody waits for the device.

    What one rank finds, all raise: each must look at the same values.
    """

    def __init__(self, device: torch.device, ranks: Ranks = SINGLE_PROCESS) -> None:
        self._device, self._ranks = device, ranks
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
        if not self._first:
            return
        names = [name for group in self._first for name in group]
        firsts = self._ranks.all_reduce_min(torch.cat(list(self._first.values()))).tolist()
        step, what = min(zip(firsts, names, strict=True), key=lambda pair: pair[0])
        if step < _NEVER:
            self._first.clear()
            raise NonFiniteError(step, what)

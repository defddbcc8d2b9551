"""Losses, gradients and weights that are NaN or Inf."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unit.training.distributed import SINGLE_PROCESS, Ranks

_NEVER = torch.iinfo(torch.int64).max


class NonFiniteError(Exception):
    """A value, e.g. "the loss term kl_a", is NaN or Inf at `step`, counted from 1."""

    def __init__(self, step: int, name: str) -> None:
        super().__init__(step, name)
        self.step, self.name = step, name

    def __str__(self) -> str:
        return f"step {self.step}: {self.name} is NaN or Inf"


class FiniteWatch:
    """Record on the device the first step at which each value was NaN or Inf, so that no step waits for the device.

    All ranks must record the same values, and all raise what one of them finds.
    """

    def __init__(self, device: torch.device, ranks: Ranks = SINGLE_PROCESS) -> None:
        self._device, self._ranks = device, ranks
        self._first: dict[tuple[str, ...], Tensor] = {}

    def record(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Record scalars of `step`, by name. `NonFiniteError` is raised here on the CPU, elsewhere by `check`."""
        if not values:
            return
        names = tuple(values)
        finite = torch.stack([value.detach().float() for value in values.values()]).isfinite()
        first = self._first.setdefault(names, torch.full((len(names),), _NEVER, device=self._device))
        first.copy_(torch.where(finite, first, first.clamp(max=step)))
        if self._device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Wait for the device; raise `NonFiniteError` for the first value that was NaN or Inf, if any."""
        if not self._first:
            return
        names = [name for group in self._first for name in group]
        firsts = self._ranks.all_reduce_min(torch.cat(list(self._first.values()))).tolist()
        step, name = min(zip(firsts, names, strict=True), key=lambda pair: pair[0])
        if step < _NEVER:
            self._first.clear()
            raise NonFiniteError(step, name)

"""Random tensors for one step, each image's a function of that image's own seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from unit.domains import Domain

Seeds: TypeAlias = Callable[[str, Domain], list[int]]
"""seeds(purpose, domain): a seed for each of the domain's images in a batch."""


def gaussian(shape: Sequence[int], seeds: Sequence[int], device: torch.device) -> Tensor:
    """Draw N(0, I) of shape (len(seeds), *shape) in fp32; each item depends on its seed and the kind of device."""
    items = []
    for seed in seeds:
        generator = torch.Generator(device).manual_seed(seed)
        items.append(torch.randn(tuple(shape), generator=generator, device=device))
    return torch.stack(items)

"""The noise of the code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gaussian_codes(shape: tuple[int, int, int], seeds: Sequence[int], device: torch.device) -> Tensor:
    """η ~ N(0, I), (len(seeds), *shape) in fp32; each item is a function of its own seed and of the kind of device."""
    items = []
    for seed in seeds:
        generator = torch.Generator(device).manual_seed(seed)
        items.append(torch.randn(shape, generator=generator, device=device))
    return torch.stack(items)

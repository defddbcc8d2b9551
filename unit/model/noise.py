"""What is drawn at random in a step, each item's a function of its own seed."""

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


def patch_places(sizes: Sequence[int], seeds: Sequence[int], most: int, device: torch.device) -> list[Tensor]:
    """For each size (len(seeds), min(most, size)) different numbers below it; each row follows from its own seed."""
    generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    return [
        torch.stack([torch.randperm(size, generator=generator, device=device)[:most] for generator in generators])
        for size in sizes
    ]

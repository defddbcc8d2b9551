"""The noise of the code, and other random tensors: each image's is a function of that image's own seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from unit.domains import Domain, PerDomain
from unit.model.networks import Autoencoders

Seeds: TypeAlias = Callable[[str, Domain], list[int]]
"""seeds(purpose, domain): a seed for each of the domain's images in a batch."""


def gaussian(shape: Sequence[int], seeds: Sequence[int], device: torch.device) -> Tensor:
    """Draw N(0, I) of shape (len(seeds), *shape) in fp32; each item depends on its seed and the kind of device."""
    items = []
    for seed in seeds:
        generator = torch.Generator(device).manual_seed(seed)
        items.append(torch.randn(tuple(shape), generator=generator, device=device))
    return torch.stack(items)


@dataclass(frozen=True)
class Noise:
    """The code's noise η ~ N(0, I), shaped like μ."""

    code: PerDomain[Tensor]
    """for q_i(z|x_i)"""
    cycle: PerDomain[Tensor]
    """for q_j(z|x_i^{i→j})"""


def draw_noise(networks: Autoencoders, images: PerDomain[Tensor], seeds: Seeds, sample: bool = True) -> Noise:
    """Draw η for images (B, 3, H, W); without `sample` it is 0, so that z = μ."""
    scale = 1.0 if sample else 0.0

    def eta(purpose: str, i: Domain) -> Tensor:
        shape = networks.code_shape(*images[i].shape[2:])
        return scale * gaussian(shape, seeds(purpose, i), images[i].device)

    return Noise(PerDomain.of(lambda i: eta("noise", i)), PerDomain.of(lambda i: eta("cycle noise", i)))

"""Training batches of digits, which lie in memory: functions of (seed, domain, index in the global sample sequence)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unit.data.batches import SampleOrder
from unit.digits.source import Digits
from unit.domains import PerDomain


@dataclass(frozen=True)
class DigitBatch:
    """Images of both domains, and the labels that training may know."""

    images: PerDomain[Tensor]
    """(B, C, size, size) in [-1, 1]"""
    labels: PerDomain[Tensor | None]
    """(B,), the digit in each image"""


def digit_batches(
    sources: PerDomain[Digits], seed: int, batches: Iterable[Sequence[int]], device: torch.device
) -> Generator[DigitBatch]:
    """Yield the images and labels at the sample indices of each batch, on `device`."""
    order = SampleOrder(PerDomain(*sources), seed)
    for indices in batches:
        yield read_batch(sources, PerDomain.of(lambda i: [order.index(i, k) for k in indices]), device)  # noqa: B023


def read_batch(sources: PerDomain[Digits], indices: PerDomain[Sequence[int]], device: torch.device) -> DigitBatch:
    """Return the images at these indices of each domain, and their labels."""
    parts = PerDomain.of(lambda i: sources[i].batch(indices[i]))
    labels = parts.map(lambda part: None if part[1] is None else torch.from_numpy(part[1]).to(device))
    return DigitBatch(parts.map(lambda part: to_tensors(part[0], device)), labels)


def to_tensors(pixels: object, device: torch.device) -> Tensor:
    """Convert 8-bit images to floats in [-1, 1]."""
    return torch.as_tensor(pixels).to(device, torch.float32).div_(127.5).sub_(1)

"""Consistency of low frequencies between image and translation (UVCGANv2): for weather and time of day."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from unit.domains import Domain
from unit.model.extras import LossExtra
from unit.model.networks import Autoencoders, Discriminators
from unit.model.objective import Microbatch, Terms
from unit.model.precision import fp32


def low_frequency(image: Tensor, target: Tensor) -> Tensor:
    """Mean of |image − target| after average pooling that leaves about 32 pixels along the short side."""
    difference = fp32(image) - fp32(target)
    window = max(1, min(difference.shape[2:]) // 32)
    return functional.avg_pool2d(difference, window, ceil_mode=True).abs().mean()


class Extra(LossExtra):
    """L1 between x_i^{i→j} and x_i at about 32 × 32."""

    def generator_terms(self, networks: Autoencoders, discriminators: Discriminators, batch: Microbatch) -> Terms:
        """Return the weighted loss of each domain."""
        assert batch.out
        translation = batch.out.translation
        return {f"low_frequency_{i}": self.weight * low_frequency(translation[i], batch.images[i]) for i in Domain}

"""A projected discriminator beside the patch discriminator (Sauer et al. 2021, "Projected GANs Converge Faster").

It judges fixed random projections of a pretrained network's features, so that it sees objects and materials from the
first step on. Here the features are EfficientNet-Lite0's at three depths, mixed across channels (1×1) and from coarse
to fine (3×3); each depth has a small head with a logit for each place, and the loss is the hinge.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from unit.domains import Domain, PerDomain
from unit.model.extras import LossExtra
from unit.model.layers import apply_spectral_norm
from unit.model.losses import ADVERSARIAL, Logits
from unit.model.networks import Autoencoders, Discriminators
from unit.model.objective import Microbatch, Terms
from unit.model.pretrained import CHANNELS, Lite0Features

INTERVAL = 2
"""Updates of D, and of E and G, between two with these terms, which are weighted that much higher."""
_WIDTH = 64
"""Channels of the projections and of the heads."""
_HINGE = ADVERSARIAL["hinge"]


class RandomConvolution(nn.Module):
    """A convolution of stride 1 whose weights stay as they were drawn; it keeps the magnitude, on average."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(outputs, inputs, side, side) / (inputs * side**2) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H, W)."""
        weight = cast(Tensor, self.weight)
        return functional.conv2d(x, weight, padding=weight.shape[-1] // 2)


class ProjectedDiscriminator(nn.Module):
    """The trained and the random part: Lite0's features → logits (B, 1, h, w) at each depth; above 0 means real."""

    def __init__(self) -> None:
        super().__init__()
        self.mix_channels = nn.ModuleList(RandomConvolution(channels, _WIDTH, 1) for channels in CHANNELS)
        self.mix_depths = nn.ModuleList(RandomConvolution(_WIDTH, _WIDTH, 3) for _ in CHANNELS[1:])
        self.heads = nn.ModuleList(_head() for _ in CHANNELS)
        apply_spectral_norm(self.heads)

    def forward(self, features: list[Tensor]) -> Logits:
        """Return the logits of each depth, the finest first."""
        return [head(x) for head, x in zip(self.heads, self._projections(features), strict=True)]

    def _projections(self, features: list[Tensor]) -> list[Tensor]:
        mixed = [mix(x) for mix, x in zip(self.mix_channels, features, strict=True)]
        projections = mixed[-1:]
        for mix, x in zip(reversed(self.mix_depths), reversed(mixed[:-1]), strict=True):
            coarser = functional.interpolate(mix(projections[0]), x.shape[2:], mode="bilinear")
            projections.insert(0, (x + coarser) / 2**0.5)
        return projections


class Extra(LossExtra):
    """Adds the loss of a projected discriminator of each domain, in every second step."""

    TRAINED_WITH = "discriminators"

    def __init__(self, setting: float | str, networks: Autoencoders) -> None:
        super().__init__(setting, networks)
        self.by_domain = nn.ModuleDict({i.value: ProjectedDiscriminator() for i in Domain})
        self._features = [Lite0Features()]  # in a list, so that it is in no checkpoint

    def discriminator_terms(self, discriminators: Discriminators, batch: Microbatch) -> Terms:
        """Return the hinge loss of each domain's projected discriminator."""
        if batch.step % INTERVAL:
            return {}
        real, fake = self._logits(batch.d_real), self._logits(batch.d_fake)
        return {f"projected_discriminator_{i}": self._weight * _HINGE.d_loss(real[i], fake[i]) for i in Domain}

    def generator_terms(self, networks: Autoencoders, discriminators: Discriminators, batch: Microbatch) -> Terms:
        """Return what E and G minimize."""
        if batch.step % INTERVAL:
            return {}
        fake = self._logits(batch.d_fake)
        return {f"projected_{i}": self._weight * _HINGE.g_loss([], fake[i]) for i in Domain}

    @property
    def _weight(self) -> float:
        return INTERVAL * self.weight

    def _logits(self, images: PerDomain[Tensor] | None) -> PerDomain[Logits]:
        assert images
        features = self._features[0].to(images.a.device)
        return PerDomain.of(lambda i: cast(Logits, self.by_domain[i.value](features(images[i]))))


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(_WIDTH, 1, 1))

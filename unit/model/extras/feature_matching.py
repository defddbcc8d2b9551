"""Feature matching in the discriminators (FUNIT, Liu et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unit.domains import Domain
from unit.model.extras import LossExtra
from unit.model.losses import l1
from unit.model.networks import Autoencoders, Discriminators
from unit.model.objective import Microbatch, Terms
from unit.model.precision import fp32


def feature_matching(features: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """|difference| of each channel's mean over (h, w), averaged over images, channels and layers.

    Means, because translations and real images show different scenes.
    """
    pairs = zip(features, targets, strict=True)
    return torch.stack([l1(fp32(x).mean((2, 3)), fp32(y).mean((2, 3))) for x, y in pairs]).mean()


class Extra(LossExtra):
    """Matches D_i's mean features of translations to those of real images, in all layers but the logits."""

    def generator_terms(self, networks: Autoencoders, discriminators: Discriminators, batch: Microbatch) -> Terms:
        """Return the weighted loss of each domain."""
        assert batch.d_real
        assert batch.d_fake
        with torch.no_grad():
            targets = discriminators.features(batch.d_real).map(_without_logits)
        features = discriminators.features(batch.d_fake).map(_without_logits)
        return {f"feature_matching_{i}": self.weight * feature_matching(features[i], targets[i]) for i in Domain}


def _without_logits(scales: list[list[Tensor]]) -> list[Tensor]:
    return [x for layers in scales for x in layers[:-1]]

"""Patches of the encoders' features as points of one space, where PatchNCE compares them (CUT, Park et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from unit.domains import Domain, PerDomain
from unit.model.networks import Autoencoders

PATCHES = 256
"""Patches of each layer of an image."""
_WIDTH = 256


class PatchProjector(nn.Module):
    """A perceptron of two layers for each domain's encoder and each of its layers.

    Trained with the encoders and generators, and needed for nothing else: no part of a finished model.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({domain.value: nn.ModuleList(map(_head, channels)) for domain in Domain})

    def forward(self, features: PerDomain[list[Tensor]], places: PerDomain[list[Tensor]]) -> PerDomain[list[Tensor]]:
        """Unit vectors (B, P, 256) in fp32 of each layer of E_i, of its features (B, C, h, w) at places (B, P)."""

        def of(i: Domain) -> list[Tensor]:
            heads = self.heads[i.value]
            assert isinstance(heads, nn.ModuleList)
            layers = zip(heads, features[i], places[i], strict=True)
            return [functional.normalize(head(_patches(x, at)), dim=2) for head, x, at in layers]

        with torch.autocast(features.a[0].device.type, enabled=False):
            return PerDomain.of(of)


def _patches(features: Tensor, places: Tensor) -> Tensor:
    """(B, C, h, w) at places (B, P), counted along the rows → (B, P, C) in fp32 or better."""
    rows = features.permute(0, 2, 3, 1).flatten(1, 2)
    picked = rows.gather(1, places[..., None].expand(-1, -1, rows.shape[2]))
    return picked.to(torch.promote_types(picked.dtype, torch.float32))


def _head(channels: int) -> nn.Sequential:
    layers = nn.Linear(channels, _WIDTH), nn.Linear(_WIDTH, _WIDTH)
    for layer in layers:
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1])


def build_patch_projector(networks: Autoencoders) -> PatchProjector:
    """For the features of `encode_by_layer`, freshly initialized from torch's global generator."""
    return PatchProjector(networks.feature_channels)

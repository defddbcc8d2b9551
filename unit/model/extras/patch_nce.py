"""PatchNCE on the encoders' features (CUT, Park et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from unit.domains import Domain, PerDomain
from unit.model.extras import LossExtra
from unit.model.networks import Autoencoders, Discriminators
from unit.model.noise import Seeds
from unit.model.objective import Microbatch, Terms
from unit.model.precision import fp32

PATCHES = 256
"""Patches compared in each layer of an image."""
_WIDTH = 256


def patch_nce(queries: Sequence[Tensor], keys: Sequence[Tensor], temperature: float = 0.07) -> Tensor:
    """−log softmax of each query's own key among all keys of its image; mean over patches, images and layers.

    Args:
        queries: for each layer unit vectors (B, P, C) of P patches of a translation.
        keys: those of the input, at the same positions; no gradient reaches them.
        temperature: of the softmax over their products (equation 3 of CUT).
    """
    losses = []
    for query, key in zip(queries, keys, strict=True):
        with torch.autocast(query.device.type, enabled=False):
            similarity = fp32(query) @ fp32(key.detach()).transpose(1, 2) / temperature
        losses.append((similarity.logsumexp(2) - similarity.diagonal(dim1=1, dim2=2)).mean())
    return torch.stack(losses).mean()


def sample_positions(sizes: Sequence[int], seeds: Sequence[int], count: int, device: torch.device) -> list[Tensor]:
    """Draw for each size (len(seeds), min(count, size)) different numbers below it; each row depends on its seed."""
    generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    return [
        torch.stack([torch.randperm(size, generator=generator, device=device)[:count] for generator in generators])
        for size in sizes
    ]


class Extra(LossExtra):
    """Pulls each patch of x_i^{i→j} to its own patch of x_i and away from the others, in the encoders' features.

    Features of each encoder and layer pass through a perceptron of two layers, which only training needs.
    """

    def __init__(self, setting: float | str, networks: Autoencoders) -> None:
        super().__init__(setting, networks)
        self.heads = nn.ModuleDict({i.value: nn.ModuleList(map(_head, networks.feature_channels)) for i in Domain})

    def generator_terms(self, networks: Autoencoders, discriminators: Discriminators, batch: Microbatch) -> Terms:
        """Return the weighted loss of each domain."""
        assert batch.out
        x, translation, encoder = batch.images, batch.out.translation, networks.encoder
        positions = PerDomain.of(lambda i: self._positions(x[i], networks.feature_strides, batch.seeds, i))
        with torch.no_grad():
            features = encoder.features({i: x[i] for i in Domain})
            keys = PerDomain.of(lambda i: self.embed(i, features[i], positions[i]))
        translated = encoder.features({j: translation[j.other] for j in Domain})
        queries = PerDomain.of(lambda i: self.embed(i.other, translated[i.other], positions[i]))
        return {f"patch_nce_{i}": self.weight * patch_nce(queries[i], keys[i]) for i in Domain}

    def _positions(self, images: Tensor, strides: Sequence[int], seeds: Seeds, i: Domain) -> list[Tensor]:
        height, width = images.shape[2:]
        sizes = [(height // stride) * (width // stride) for stride in strides]
        return sample_positions(sizes, seeds("patches", i), PATCHES, images.device)

    def embed(self, domain: Domain, features: Sequence[Tensor], positions: Sequence[Tensor]) -> list[Tensor]:
        """Return unit vectors (B, P, 256) in fp32 of the features (B, C, h, w) of E_domain at positions (B, P)."""
        heads = self.heads[domain.value]
        assert isinstance(heads, nn.ModuleList)
        with torch.autocast(features[0].device.type, enabled=False):
            layers = zip(heads, features, positions, strict=True)
            return [functional.normalize(head(_patches(x, at)), dim=2) for head, x, at in layers]


def _patches(features: Tensor, positions: Tensor) -> Tensor:
    """(B, C, h, w) at positions (B, P), counted row by row → (B, P, C) in fp32 or better."""
    rows = features.permute(0, 2, 3, 1).flatten(1, 2)
    return fp32(rows.gather(1, positions[..., None].expand(-1, -1, rows.shape[2])))


def _head(channels: int) -> nn.Sequential:
    layers = nn.Linear(channels, _WIDTH), nn.Linear(_WIDTH, _WIDTH)
    for layer in layers:
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1])

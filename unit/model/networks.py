"""The networks of UNIT and what they share.

Figure 1 of the paper: E_a and E_b end in the same layers, G_a and G_b begin with the same layers. So one module holds
both encoders and one both generators: private layers by domain, and the shared layers once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unit.config import ModelConfig
from unit.domains import Domain, PerDomain
from unit.model.layers import (
    LEAK,
    BlurPool,
    PixelHead,
    PixelStem,
    ResidualBlocks,
    ToRGB,
    apply_spectral_norm,
    downsample,
    initialize,
    upsample,
)

Direction: TypeAlias = tuple[Domain, Domain]
"""(i, j): from domain i to domain j."""

RECONSTRUCTIONS: tuple[Direction, ...] = tuple((i, i) for i in Domain)
TRANSLATIONS: tuple[Direction, ...] = tuple((i, i.other) for i in Domain)


class Encoder(nn.Module):
    """E_a and E_b: images (B, 3, H, W) in [-1, 1] → μ (B, C, H/s, W/s) of q(z|x) = N(μ, I).

    s is 2 to the power of `model.downsamples`; H and W are multiples of it.
    """

    def __init__(self, private: PerDomain[nn.Sequential], shared: nn.Module) -> None:
        super().__init__()
        self.private = nn.ModuleDict({i.value: private[i] for i in Domain})
        self.shared = shared
        self.checkpoint_activations = False
        """keep only each part's input and recompute the rest in the backward pass (Chen et al. 2016)"""

    def forward(self, images: Mapping[Domain, Tensor]) -> dict[Domain, Tensor]:
        """Return the mean of the code of each domain's images; `images[i]` passes through E_i."""
        return self._shared({i: self._run(self.private[i.value], x) for i, x in images.items()})

    def features(self, images: Mapping[Domain, Tensor]) -> dict[Domain, list[Tensor]]:
        """Return E_i's features after the stem, after each downsampling, and μ."""
        layers = {i: self._private_features(i, x) for i, x in images.items()}
        mu = self._shared({i: features[-1] for i, features in layers.items()})
        return {i: [*features[:-1], mu[i]] for i, features in layers.items()}

    def _private_features(self, domain: Domain, x: Tensor) -> list[Tensor]:
        features = []
        for layer in self.private[domain.value].children():
            x = self._run(layer, x)
            features.append(x)
        return features

    def _shared(self, hidden: Mapping[Domain, Tensor]) -> dict[Domain, Tensor]:
        """Run the shared layers once, on the batches of both domains together."""
        mu = self._run(self.shared, torch.cat(list(hidden.values())))
        return dict(zip(hidden, mu.split([x.shape[0] for x in hidden.values()]), strict=True))

    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        return _run(module, x, self.checkpoint_activations)


class Generator(nn.Module):
    """G_a and G_b: codes z (B, C, H/s, W/s) → images (B, 3, H, W) in [-1, 1]."""

    def __init__(self, shared: nn.Module, private: PerDomain[nn.Module]) -> None:
        super().__init__()
        self.shared = shared
        self.private = nn.ModuleDict({i.value: private[i] for i in Domain})
        self.checkpoint_activations = False
        """as in `Encoder`"""

    def forward(self, codes: Mapping[Domain, Tensor], directions: Collection[Direction]) -> dict[Direction, Tensor]:
        """Return G_j(codes[i]) for each direction (i, j).

        The shared layers run once on all codes together, and G_j's private layers once on all that it decodes.
        """
        hidden = _run(self.shared, torch.cat(list(codes.values())), self.checkpoint_activations)
        parts = dict(zip(codes, hidden.split([z.shape[0] for z in codes.values()]), strict=True))
        images: dict[Direction, Tensor] = {}
        for j in Domain:
            wanted = [direction for direction in directions if direction[1] is j]
            if wanted:
                private = self.private[j.value]
                decoded = _run(private, torch.cat([parts[i] for i, _ in wanted]), self.checkpoint_activations)
                images |= dict(zip(wanted, decoded.split([parts[i].shape[0] for i, _ in wanted]), strict=True))
        return images


def _run(module: nn.Module, x: Tensor, checkpoint_activations: bool) -> Tensor:
    recompute = checkpoint_activations and torch.is_grad_enabled()
    out: Tensor = checkpoint(module, x, use_reentrant=False) if recompute else module(x)
    return out


class Autoencoders(nn.Module):
    """Encoders and generators of both domains, which one optimizer trains and a model file holds."""

    def __init__(self, encoder: Encoder, generator: Generator, widths: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.generator = generator
        self.feature_channels: tuple[int, ...] = (*widths, widths[-1])
        """channels of each of the encoder's `features`"""
        self.feature_strides: tuple[int, ...] = (*strides, strides[-1])
        """image pixels along one side of a pixel of each of these features"""

    def checkpoint_activations(self, enabled: bool) -> None:
        """Trade time for memory: recompute activations in the backward pass instead of keeping them."""
        self.encoder.checkpoint_activations = self.generator.checkpoint_activations = enabled

    def code_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (C, H/s, W/s) of the code of an image of this size."""
        return self.feature_channels[-1], height // self.scale, width // self.scale

    @property
    def scale(self) -> int:
        """s: image pixels along one side of a latent pixel; image sizes must be multiples of it."""
        return self.feature_strides[-1]


class ScaleDiscriminator(nn.Module):
    """One patch discriminator: images (B, 3, H, W) → logits (B, 1, H/2ⁿ, W/2ⁿ) with n layers; above 0 means real."""

    def __init__(self, channels: int, layers: int, downsampling: str = "strided") -> None:
        super().__init__()
        widths = [3] + [channels * 2**layer for layer in range(layers)]
        self.layers = nn.Sequential(*(downsample(widths[n], widths[n + 1], downsampling) for n in range(layers)))
        self.head = nn.Conv2d(widths[-1], 1, 1)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return each layer's output, the logits last."""
        features = []
        for layer in (*self.layers, self.head):
            images = layer(images)
            features.append(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return one logit for each patch."""
        return self.features(images)[-1]


class Discriminator(nn.Module):
    """D_i: a patch discriminator at each scale; each scale sees the images at half the size of the one before."""

    def __init__(self, channels: int, layers: int, scales: int, downsampling: str = "strided") -> None:
        super().__init__()
        self.blur_pool = BlurPool()
        self.scales = nn.ModuleList(ScaleDiscriminator(channels, layers, downsampling) for _ in range(scales))

    def features(self, images: Tensor) -> list[list[Tensor]]:
        """Return each layer's output at each scale, the finest scale first, a scale's logits last."""
        features = []
        for number, scale in enumerate(self.scales):
            assert isinstance(scale, ScaleDiscriminator)
            if number:
                images = self.blur_pool(images)
            features.append(scale.features(images))
        return features

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the logits of each scale, the finest first."""
        return [features[-1] for features in self.features(images)]


class Discriminators(nn.Module):
    """D_a and D_b."""

    def __init__(self, discriminators: PerDomain[nn.Module]) -> None:
        super().__init__()
        self.by_domain = nn.ModuleDict({domain.value: discriminators[domain] for domain in Domain})

    def forward(self, images: PerDomain[Tensor]) -> PerDomain[list[Tensor]]:
        """Return D_i's logits on `images[i]`, a tensor for each scale."""
        return PerDomain.of(lambda i: self.by_domain[i.value](images[i]))

    def features(self, images: PerDomain[Tensor]) -> PerDomain[list[list[Tensor]]]:
        """Return D_i's features of `images[i]`: each layer's output at each scale, a scale's logits last."""
        return PerDomain.of(lambda i: self.by_domain[i.value].features(images[i]))  # type: ignore[operator]

    def real_and_fake_logits(
        self, real: PerDomain[Tensor], fake: PerDomain[Tensor]
    ) -> tuple[PerDomain[list[Tensor]], PerDomain[list[Tensor]]]:
        """Return D_i's logits on `real[i]` and on `fake[i]`, which have the same shape; both in one batch."""
        both = self(PerDomain.of(lambda i: torch.cat([real[i], fake[i]])))
        halves = both.map(lambda scales: [logits.chunk(2) for logits in scales])
        return halves.map(lambda scales: [s[0] for s in scales]), halves.map(lambda scales: [s[1] for s in scales])


def build_autoencoders(config: ModelConfig) -> Autoencoders:
    """Build encoders and generators, initialized from torch's global generator."""
    widths = [config.channels * 2**n for n in range(config.downsamples + 1)]
    private_blocks, scale = config.residual_blocks - config.shared_blocks, 2**config.downsamples
    pixels = 3 * scale**2 if config.pixel_skip else 0

    def blocks(count: int) -> ResidualBlocks:
        return ResidualBlocks(count, widths[-1], config.normalization, pixels)

    def encoder_private(_: Domain) -> nn.Sequential:
        if config.pixel_skip:
            return nn.Sequential(PixelStem(widths[-1], scale), blocks(private_blocks))
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 7, padding=3), nn.LeakyReLU(LEAK, inplace=True))
        downsamples = (downsample(*pair, config.downsampling) for pair in pairwise(widths))
        return nn.Sequential(stem, *downsamples, blocks(private_blocks))

    def generator_private(_: Domain) -> nn.Module:
        if config.pixel_skip:
            head = PixelHead(widths[-1], widths[0], config.downsamples, config.upsampling)
            return nn.Sequential(blocks(private_blocks), head)
        upsamples = (upsample(*pair, config.upsampling) for pair in pairwise(reversed(widths)))
        return nn.Sequential(blocks(private_blocks), *upsamples, ToRGB(widths[0]))

    encoder_shared, generator_shared = blocks(config.shared_blocks), blocks(config.shared_blocks)
    encoder = Encoder(PerDomain.of(encoder_private), encoder_shared)
    generator = Generator(generator_shared, PerDomain.of(generator_private))
    first, second = encoder.private.values()
    for part in (first, encoder.shared, second, generator):  # this order reproduces earlier results
        initialize(part, config.initialization)
    for module in generator.modules():
        if isinstance(module, PixelHead):
            module.begin_as_identity()
    if config.same_init:
        for private in (encoder.private, generator.private):
            private[Domain.B.value].load_state_dict(private[Domain.A.value].state_dict())
    if config.pixel_skip:
        return Autoencoders(encoder, generator, [pixels + widths[-1]], [scale])
    return Autoencoders(encoder, generator, widths, [2**n for n in range(len(widths))])


def build_discriminators(config: ModelConfig) -> Discriminators:
    """Build the discriminators, initialized from torch's global generator."""
    width = config.discriminator_channels or config.channels
    layers, scales = config.discriminator_layers, config.discriminator_scales
    networks = Discriminators(PerDomain.of(lambda _: Discriminator(width, layers, scales, config.downsampling)))
    initialize(networks, config.initialization)
    if config.spectral_norm:
        apply_spectral_norm(networks)
    return networks


def parameter_count(network: nn.Module) -> int:
    """Count parameters, frozen ones too, each shared one once."""
    return sum(parameter.numel() for parameter in network.parameters())

"""The networks of UNIT and what they share.

Figure 1 of the paper: E_a and E_b end in the same layers, G_a and G_b begin with the same layers; "the same" is one
module object that both hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unit.config import ModelConfig
from unit.domains import Domain, PerDomain
from unit.model.layers import (
    LEAK,
    BlurPool,
    ToRGB,
    downsample,
    initialize,
    normalize_spectrally,
    residual_blocks,
    upsample,
)


class Encoder(nn.Module):
    """E_i: images (B, 3, H, W) in [-1, 1] → μ (B, C, H/s, W/s) of q(z|x) = N(μ, I).

    s is 2 to the power of `model.downsamples`; H and W are multiples of it.
    """

    def __init__(self, private: nn.Module, shared: nn.Module) -> None:
        super().__init__()
        self.private = private
        self.shared = shared

    def forward(self, images: Tensor) -> Tensor:
        """The mean of the code."""
        mu: Tensor = self.shared(self.private(images))
        return mu


class Generator(nn.Module):
    """G_i: codes z (B, C, H/s, W/s) → images (B, 3, H, W) in [-1, 1]."""

    def __init__(self, shared: nn.Module, private: nn.Module) -> None:
        super().__init__()
        self.shared = shared
        self.private = private

    def forward(self, codes: Tensor) -> Tensor:
        """The image of the code in this generator's domain."""
        images: Tensor = self.private(self.shared(codes))
        return images


@dataclass(frozen=True)
class Decoded:
    """Images decoded from one code for each domain's image."""

    own: PerDomain[Tensor] | None
    """G_i(z_i), by the domain of the code"""
    other: PerDomain[Tensor] | None
    """G_j(z_i), by the domain of the *code*: `other.a` is a translation a → b"""


class Autoencoders(nn.Module):
    """The encoders and generators of both domains; runs what they share once, on both domains' batch together."""

    def __init__(self, encoders: PerDomain[Encoder], generators: PerDomain[Generator], widths: Sequence[int]) -> None:
        super().__init__()
        self.feature_channels: tuple[int, ...] = (*widths, widths[-1])
        """of each of the features that `encode_by_layer` gives"""
        self.feature_strides: tuple[int, ...] = (*(2**n for n in range(len(widths))), 2 ** (len(widths) - 1))
        """pixels of the image along one side of a pixel of each of these features"""
        self.checkpoint_activations = False
        """keep only what goes into each part, and compute the part again in the backward pass (Chen et al. 2016)"""
        self.encoders = nn.ModuleDict({domain.value: encoders[domain] for domain in Domain})
        self.generators = nn.ModuleDict({domain.value: generators[domain] for domain in Domain})

    def encoder(self, domain: Domain) -> Encoder:
        """E_i."""
        encoder = self.encoders[domain.value]
        assert isinstance(encoder, Encoder)
        return encoder

    def generator(self, domain: Domain) -> Generator:
        """G_i."""
        generator = self.generators[domain.value]
        assert isinstance(generator, Generator)
        return generator

    def code_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, H/s, W/s) of the code of an image of this size."""
        return self.feature_channels[-1], height // self.scale, width // self.scale

    @property
    def scale(self) -> int:
        """s: pixels of the image along one side of a latent pixel; image sizes must be multiples of it."""
        return self.feature_strides[-1]

    def encode(self, images: PerDomain[Tensor]) -> PerDomain[Tensor]:
        """μ of each domain's images (B, 3, H, W); `images[i]` goes through E_i."""
        private = PerDomain.of(lambda i: self._run(self.encoder(i).private, images[i]))
        return self._together(self.encoder(Domain.A).shared, private)

    def encode_by_layer(self, images: PerDomain[Tensor]) -> PerDomain[list[Tensor]]:
        """After the first convolution of E_i, after each halving, and μ: as many as `feature_strides`."""
        private = PerDomain.of(lambda i: _one_by_one(self.encoder(i).private.children(), images[i], self._run))
        mu = self._together(self.encoder(Domain.A).shared, private.map(lambda layers: layers[-1]))
        return PerDomain.of(lambda i: [*private[i][:-1], mu[i]])

    def decode(self, codes: PerDomain[Tensor], *, own: bool, other: bool) -> Decoded:
        """Each code through its own domain's generator, the other's, or both."""
        shared = self._together(self.generator(Domain.A).shared, codes)
        private = PerDomain.of(lambda i: self.generator(i).private)
        if own and other:
            both = PerDomain.of(lambda i: self._run(private[i], torch.cat([shared[i], shared[i.other]])).chunk(2))
            return Decoded(PerDomain.of(lambda i: both[i][0]), PerDomain.of(lambda i: both[i.other][1]))
        return Decoded(
            PerDomain.of(lambda i: self._run(private[i], shared[i])) if own else None,
            PerDomain.of(lambda i: self._run(private[i.other], shared[i])) if other else None,
        )

    def _together(self, module: nn.Module, inputs: PerDomain[Tensor]) -> PerDomain[Tensor]:
        """`module` once, on both domains' batch together."""
        both = self._run(module, torch.cat([inputs.a, inputs.b]))
        a, b = both.split([len(inputs.a), len(inputs.b)])
        return PerDomain(a, b)

    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        again = self.checkpoint_activations and torch.is_grad_enabled()
        out: Tensor = checkpoint(module, x, use_reentrant=False) if again else module(x)
        return out


def _one_by_one(
    modules: Iterable[nn.Module], x: Tensor, run: Callable[[nn.Module, Tensor], Tensor] = lambda module, x: module(x)
) -> list[Tensor]:
    """What each module makes of what the one before it made."""
    made = []
    for module in modules:
        x = run(module, x)
        made.append(x)
    return made


class ScaleDiscriminator(nn.Module):
    """One patch discriminator: images (B, 3, H, W) → logits (B, 1, H/2ⁿ, W/2ⁿ) for n layers; above 0 means real."""

    def __init__(self, channels: int, layers: int, downsampling: str = "strided") -> None:
        super().__init__()
        widths = [3] + [channels * 2**layer for layer in range(layers)]
        self.layers = nn.Sequential(*(downsample(widths[n], widths[n + 1], downsampling) for n in range(layers)))
        self.head = nn.Conv2d(widths[-1], 1, 1)

    def by_layer(self, images: Tensor) -> list[Tensor]:
        """What each layer makes of the images, the logits last."""
        return _one_by_one([*self.layers, self.head], images)

    def forward(self, images: Tensor) -> Tensor:
        """One logit for each patch."""
        return self.by_layer(images)[-1]


class Discriminator(nn.Module):
    """D_i: a patch discriminator at each scale, the images halved from one to the next; logits of each scale."""

    def __init__(self, channels: int, layers: int, scales: int, downsampling: str = "strided") -> None:
        super().__init__()
        self.blur_pool = BlurPool()
        self.scales = nn.ModuleList(ScaleDiscriminator(channels, layers, downsampling) for _ in range(scales))

    def by_layer(self, images: Tensor) -> list[list[Tensor]]:
        """What each layer of each scale makes of the images, finest scale first, a scale's logits last."""
        made = []
        for number, scale in enumerate(self.scales):
            assert isinstance(scale, ScaleDiscriminator)
            if number:
                images = self.blur_pool(images)
            made.append(scale.by_layer(images))
        return made

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits, finest scale first."""
        return [layers[-1] for layers in self.by_layer(images)]


class Discriminators(nn.Module):
    """D_a and D_b."""

    def __init__(self, discriminators: PerDomain[nn.Module]) -> None:
        super().__init__()
        self.by_domain = nn.ModuleDict({domain.value: discriminators[domain] for domain in Domain})

    def forward(self, images: PerDomain[Tensor]) -> PerDomain[list[Tensor]]:
        """D_i's logits, a tensor for each scale, on `images[i]`."""
        return PerDomain.of(lambda i: self.by_domain[i.value](images[i]))

    def by_layer(self, images: PerDomain[Tensor]) -> PerDomain[list[list[Tensor]]]:
        """What each layer of each scale of D_i makes of `images[i]`, a scale's logits last."""
        return PerDomain.of(lambda i: self.by_domain[i.value].by_layer(images[i]))  # type: ignore[operator]

    def compare(
        self, real: PerDomain[Tensor], fake: PerDomain[Tensor]
    ) -> tuple[PerDomain[list[Tensor]], PerDomain[list[Tensor]]]:
        """D_i's logits on `real[i]` and on `fake[i]`, which have the same shape."""
        both = self(PerDomain.of(lambda i: torch.cat([real[i], fake[i]])))
        halves = both.map(lambda scales: [logits.chunk(2) for logits in scales])
        return halves.map(lambda scales: [s[0] for s in scales]), halves.map(lambda scales: [s[1] for s in scales])


def build_autoencoders(config: ModelConfig) -> Autoencoders:
    """Encoders and generators of the configuration, freshly initialized from torch's global generator."""
    widths = [config.channels * 2**n for n in range(config.downsamples + 1)]
    latent = widths[-1]

    def blocks(count: int) -> nn.Sequential:
        return residual_blocks(count, latent, config.normalization)

    def encoder_private(_: Domain) -> nn.Module:
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 7, padding=3), nn.LeakyReLU(LEAK, inplace=True))
        downsamples = (downsample(*pair, config.downsampling) for pair in pairwise(widths))
        return nn.Sequential(stem, *downsamples, blocks(private_blocks))

    def generator_private(_: Domain) -> nn.Module:
        upsamples = (upsample(*pair, config.upsampling) for pair in pairwise(reversed(widths)))
        return nn.Sequential(blocks(private_blocks), *upsamples, ToRGB(widths[0]))

    private_blocks = config.residual_blocks - config.shared_blocks
    encoder_shared, generator_shared = blocks(config.shared_blocks), blocks(config.shared_blocks)
    networks = Autoencoders(
        PerDomain.of(lambda i: Encoder(encoder_private(i), encoder_shared)),
        PerDomain.of(lambda i: Generator(generator_shared, generator_private(i))),
        widths,
    )
    initialize(networks, config.initialization)
    if config.same_init:
        for both in (networks.encoders, networks.generators):
            both[Domain.B.value].load_state_dict(both[Domain.A.value].state_dict())
    return networks


def build_discriminators(config: ModelConfig) -> Discriminators:
    """Discriminators of the configuration, freshly initialized from torch's global generator."""
    width = config.discriminator_channels or config.channels
    layers, scales = config.discriminator_layers, config.discriminator_scales
    networks = Discriminators(PerDomain.of(lambda _: Discriminator(width, layers, scales, config.downsampling)))
    initialize(networks, config.initialization)
    if config.spectral_norm:
        normalize_spectrally(networks)
    return networks


def parameter_count(network: nn.Module) -> int:
    """Trainable numbers, each shared one once."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)

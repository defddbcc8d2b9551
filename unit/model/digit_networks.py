"""The networks of the paper's domain adaptation (section 4 of the paper, as in the authors' release).

Encoders and generators are those of `networks.py` with other layers: here the first layer of each encoder and the last
of each generator are private, and all others shared. The discriminators share all but their first layer too, and end in
two heads: real or generated, and the class. So a classifier that learns from the source's labels also applies to the
target's images, through the target's own first layer.

Images of 32 pixels have the release's sizes. Those of 28 pixels, whose code was not released, have the discriminator of
CoGAN (Liu and Tuzel, NIPS 2016), from the same authors.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from unit.digits.config import CLASSES, AdaptationConfig
from unit.domains import Domain, PerDomain
from unit.model.layers import LEAK, ToRGB, initialize
from unit.model.networks import Autoencoders, Encoder, Generator

_MIN_SD = 1e-3


def gaussian_code(features: Tensor) -> tuple[Tensor, Tensor]:
    """Split the encoders' output into mean and standard deviation of q(z|x) = N(μ, σ²), both (B, C, 1, 1) in fp32."""
    mu, raw = features.float().chunk(2, dim=1)
    return mu, functional.softplus(raw) + _MIN_SD


class Judgement(NamedTuple):
    """What the discriminators say about images of one domain."""

    features: Tensor
    """(B, F), of the last shared layer"""
    logit: Tensor
    """(B, 1), above 0 means real"""
    classes: Tensor
    """(B, 10), logits of the classes"""


class ClassifyingDiscriminators(nn.Module):
    """D_a and D_b, which are also the classifiers of both domains."""

    def __init__(self, private: PerDomain[nn.Module], shared: nn.Module, features: int, dropout: float) -> None:
        super().__init__()
        self.private = nn.ModuleDict({i.value: private[i] for i in Domain})
        self.shared = shared
        self.dropout = nn.Dropout(dropout)
        self.real = nn.Linear(features, 1)
        self.classes = nn.Linear(features, CLASSES)

    def forward(self, images: Mapping[Domain, Tensor]) -> dict[Domain, Judgement]:
        """Judge the images of each domain; the shared layers run once on all of them together."""
        hidden = {i: self.private[i.value](x) for i, x in images.items()}
        features = self.shared(torch.cat(list(hidden.values())))
        kept = self.dropout(features)
        outputs = (features, self.real(kept), self.classes(kept))
        parts = [output.float().split([len(x) for x in images.values()]) for output in outputs]
        return {i: Judgement(*(part[k] for part in parts)) for k, i in enumerate(images)}

    def classify(self, images: Tensor, domain: Domain) -> Tensor:
        """Return the logits of the classes (B, 10) of images of one domain."""
        judgements: dict[Domain, Judgement] = self({domain: images})
        return judgements[domain].classes


def build_digit_autoencoders(config: AdaptationConfig) -> Autoencoders:
    """Build encoders and generators, initialized from torch's global generator.

    The encoders' output has 2 · 8 · channels channels and one pixel: see `gaussian_code`.
    """
    data, width = config.data, config.model.channels
    widths = [width, 2 * width, 4 * width, 8 * width]
    channels = PerDomain(data.channels(data.source), data.channels(data.target))
    encoder_shared = nn.Sequential(
        _normalized(nn.Conv2d(widths[0], widths[1], 5, stride=2, padding=2)),
        _normalized(nn.Conv2d(widths[1], widths[2], data.size // 4)),  # spans all that is left
        _normalized(nn.Conv2d(widths[2], widths[3], 1)),
        nn.Conv2d(widths[3], 2 * widths[3], 1),
    )
    first, decoded = (4, [widths[3], widths[2], widths[1]]) if data.size == 32 else (7, [widths[2], widths[1]])
    generator_shared = nn.Sequential(
        _normalized(nn.ConvTranspose2d(widths[3], decoded[0], first)),
        *(_normalized(_doubling(*pair)) for pair in pairwise(decoded)),
    )
    encoder = Encoder(
        channels.map(lambda count: nn.Sequential(_normalized(nn.Conv2d(count, width, 5, stride=2, padding=2)))),
        encoder_shared,
    )
    generator = Generator(
        generator_shared,
        channels.map(lambda count: nn.Sequential(_normalized(_doubling(widths[1], width)), ToRGB(width, count))),
    )
    for part in (encoder, generator):
        initialize(part, "normal")
    if config.model.same_init:
        for private in (encoder.private, generator.private):
            private[Domain.B.value].load_state_dict(private[Domain.A.value].state_dict())
    return Autoencoders(encoder, generator, widths, (2, 4, data.size, data.size))


def build_classifying_discriminators(config: AdaptationConfig) -> ClassifyingDiscriminators:
    """Build the discriminators, initialized from torch's global generator."""
    data = config.data
    channels = PerDomain(data.channels(data.source), data.channels(data.target))
    if data.size == 32:
        private, padding, features = 64, 2, 512 * 2 * 2
        shared = nn.Sequential(_pooled(64, 128, 2), _pooled(128, 256, 2), _pooled(256, 512, 2), nn.Flatten())
    else:
        private, padding, features = 20, 0, 500
        shared = nn.Sequential(_pooled(20, 50, 0), nn.Flatten(), nn.Linear(50 * 4 * 4, features), nn.ReLU(inplace=True))
    networks = ClassifyingDiscriminators(
        channels.map(lambda count: _pooled(count, private, padding)),
        shared,
        features,
        config.model.head_dropout,
    )
    initialize(networks, "kaiming")
    if config.model.same_init:
        networks.private[Domain.B.value].load_state_dict(networks.private[Domain.A.value].state_dict())
    return networks


def _normalized(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    """Append batch normalization and LeakyReLU, as the release does."""
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.LeakyReLU(LEAK, inplace=True))


def _doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)


def _pooled(inputs: int, outputs: int, padding: int) -> nn.Sequential:
    """conv 5×5, ReLU, max-pooling by 2."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 5, padding=padding), nn.ReLU(inplace=True), nn.MaxPool2d(2))

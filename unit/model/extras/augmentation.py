"""DiffAugment (Zhao et al. 2020): random, differentiable changes of everything that the discriminators see.

Real images and translations are changed in the same ways, so a discriminator cannot memorize small folders, and a
generator is not led to produce changed images. Each image is changed independently of the others.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from unit.domains import PerDomain
from unit.model.extras import LossExtra
from unit.model.noise import Seeds

_SHIFT = 1 / 8
"""Largest translation, relative to the image's side."""
_CUTOUT = 1 / 2
"""Side of the cutout, relative to the image's."""


class Extra(LossExtra):
    """The setting names the kinds, e.g. "color,translation"."""

    def augment(self, images: PerDomain[Tensor], purpose: str, seeds: Seeds) -> PerDomain[Tensor]:
        """Return the changed images."""
        kinds = str(self.setting).split(",")
        return PerDomain.of(lambda i: augmented(images[i], seeds(purpose, i), kinds))


def augmented(images: Tensor, seeds: Sequence[int], kinds: Collection[str]) -> Tensor:
    """Change images (B, 3, H, W) by numbers drawn from its own seed.

    Args:
        images: in [-1, 1]; the result may lie beyond.
        seeds: one for each image.
        kinds: any of "color", "translation" and "cutout", in any order.
    """
    return torch.cat([_augment_image(x, seed, kinds) for x, seed in zip(images.split(1), seeds, strict=True)])


def _augment_image(image: Tensor, seed: int, kinds: Collection[str]) -> Tensor:
    draw = random.Random(seed)
    brightness, saturation, contrast, *offsets = [draw.random() for _ in range(7)]
    if "color" in kinds:
        image = colored(image, brightness - 0.5, 2 * saturation, contrast + 0.5)
    if "translation" in kinds:
        down, right = (_up_to(round(side * _SHIFT), u) for side, u in zip(image.shape[2:], offsets[:2], strict=True))
        image = translated(image, down, right)
    if "cutout" in kinds:
        row, column = (int(u * side) for side, u in zip(image.shape[2:], offsets[2:], strict=True))
        image = cut_out(image, row, column)
    return image


def _up_to(most: int, u: float) -> int:
    """Map u in [0, 1) to an integer from -most to most."""
    return int(u * (2 * most + 1)) - most


def colored(image: Tensor, brightness: float, saturation: float, contrast: float) -> Tensor:
    """Add to the brightness, scale the difference to the pixel's gray, then the difference to the image's mean."""
    image = image + brightness
    gray = image.mean(1, keepdim=True)
    image = gray + saturation * (image - gray)
    mean = image.mean((1, 2, 3), keepdim=True)
    return mean + contrast * (image - mean)


def translated(image: Tensor, down: int, right: int) -> Tensor:
    """Move by whole pixels, filling with 0."""
    return functional.pad(image, (right, -right, down, -down))


def cut_out(image: Tensor, row: int, column: int) -> Tensor:
    """Set a rectangle of half the image's sides around a pixel to 0, clipped at the edges."""
    mask = torch.ones_like(image[:, :1])
    height, width = (round(side * _CUTOUT) for side in image.shape[2:])
    top, left = row - height // 2, column - width // 2
    mask[..., max(0, top) : top + height, max(0, left) : left + width] = 0
    return image * mask

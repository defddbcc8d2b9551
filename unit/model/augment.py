"""What discriminators see, changed at random in ways through which gradients pass (DiffAugment, Zhao et al. 2020).

Real images and translations are changed in the same ways, so a discriminator cannot learn small folders by heart, and
a generator is not led to make changed images. Each image is done by itself: what becomes of it depends on no other.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn import functional

_SHIFT = 1 / 8
"""The farthest that an image is moved, of its side."""
_HOLE = 1 / 2
"""The side of what is cut out, of the image's."""


def augmented(images: Tensor, seeds: Sequence[int], kinds: Collection[str]) -> Tensor:
    """Images (B, 3, H, W), each changed by numbers drawn from its own seed.

    Args:
        images: in [-1, 1]; what comes out may lie beyond.
        seeds: B of them.
        kinds: any of "color", "translation" and "cutout", in whatever order; none: the images themselves.
    """
    if not kinds:
        return images
    return torch.cat([_one(x, seed, kinds) for x, seed in zip(images.split(1), seeds, strict=True)])


def _one(image: Tensor, seed: int, kinds: Collection[str]) -> Tensor:
    draw = random.Random(seed)
    brightness, saturation, contrast, *places = [draw.random() for _ in range(7)]
    if "color" in kinds:
        image = colored(image, brightness - 0.5, 2 * saturation, contrast + 0.5)
    if "translation" in kinds:
        down, right = (_up_to(round(side * _SHIFT), u) for side, u in zip(image.shape[2:], places[:2], strict=True))
        image = moved(image, down, right)
    if "cutout" in kinds:
        row, column = (int(u * side) for side, u in zip(image.shape[2:], places[2:], strict=True))
        image = holed(image, row, column)
    return image


def _up_to(most: int, u: float) -> int:
    """A whole number of -most, …, most from u in [0, 1)."""
    return int(u * (2 * most + 1)) - most


def colored(image: Tensor, brightness: float, saturation: float, contrast: float) -> Tensor:
    """Add to the brightness, then scale what differs from the pixel's gray, then what differs from the image's mean."""
    image = image + brightness
    gray = image.mean(1, keepdim=True)
    image = gray + saturation * (image - gray)
    mean = image.mean((1, 2, 3), keepdim=True)
    return mean + contrast * (image - mean)


def moved(image: Tensor, down: int, right: int) -> Tensor:
    """Move by whole pixels; 0 comes in, and what leaves is lost."""
    return functional.pad(image, (right, -right, down, -down))


def holed(image: Tensor, row: int, column: int) -> Tensor:
    """Put 0 into a rectangle of half the sides around a pixel, as far as it lies within."""
    mask = torch.ones_like(image[:, :1])
    height, width = (round(side * _HOLE) for side in image.shape[2:])
    top, left = row - height // 2, column - width // 2
    mask[..., max(0, top) : top + height, max(0, left) : left + width] = 0
    return image * mask

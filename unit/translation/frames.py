"""A decoded image, with all its frames, through the network."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from unit.domains import Domain
from unit.errors import escape
from unit.images import (
    DecodedImage,
    Frame,
    resize_levels,
    resize_short_side,
    scaled_size,
    to_image,
    to_levels,
    to_tensor,
)
from unit.images.deep import Levels
from unit.translation.translator import Translator

log = logging.getLogger(__name__)


def translate_image(
    translator: Translator,
    image: DecodedImage,
    source: Domain,
    *,
    size: int | None = None,
    seed: int | None = None,
    strength: float = 1.0,
    batch_size: int = 1,
) -> DecodedImage:
    """Translate all frames of an image.

    Args:
        image: of domain `source`, from `unit.images.read_image_file` or `decode_bytes`.
        source: domain of the image.
        size: short side that the network works at; None: the image's own.
        seed: of noise in the code; None: no noise.
        strength: from 0, the reconstruction, to 1, the translation.
        batch_size: frames to translate together.

    Returns:
        The image with translated colours and all that it held besides, for `unit.images.encode`.

    Raises:
        UserError: out of memory.
        ValueError: the model's output contains NaN or Inf.
    """
    scaled = [scale(frame, size) for frame in image.frames]
    tensors = translate_scaled(suited(translator, image.deep), scaled, source, batch_size, seed, strength)
    return replace(image, frames=tuple(map(finish, tensors, image.frames)))


class SizeWarning:
    """Warns once, of the first image over twice the size that the model was trained at, unless a size is set."""

    def __init__(self, translator: Translator, source: Domain, size: int | None) -> None:
        self._translator, self._source = translator, source
        self._trained = translator.config.data.load_size if size is None else None

    def check(self, name: str, size: tuple[int, int]) -> None:
        """Warn if the width and height that the network works at are too large, and no image was before."""
        if self._trained is None or min(size) <= 2 * self._trained:
            return
        if self._translator.is_guided(self._source, size[1], size[0]):
            return
        log.warning(
            "%s: %dx%d, but the model was trained at a short side of %d: such images stay sharp, but large structures "
            "change less than near that size; --detail guided changes them as at that size",
            *(escape(name), *size, self._trained),
        )
        self._trained = None


def translate_scaled(
    translator: Translator,
    scaled: Sequence[Image.Image | Levels],
    source: Domain,
    batch_size: int,
    seed: int | None = None,
    strength: float = 1.0,
) -> Iterator[Tensor]:
    """Translate frames of one size in batches; yield (3, H, W) in [-1, 1] for each."""
    for start in range(0, len(scaled), batch_size):
        x = torch.stack([to_tensor(colors) for colors in scaled[start : start + batch_size]])
        yield from translator.translate(x, source, seed, strength=strength)


def suited(translator: Translator, deep: bool) -> Translator:
    """Return the translator, in fp32 for 16 bits a channel: bf16 has 8 significant bits."""
    if not deep or translator.precision == "fp32":
        return translator
    precise = copy.copy(translator)
    precise.precision = "fp32"
    return precise


def scale(frame: Frame, size: int | None) -> Image.Image | Levels:
    """Scale a frame's colours to the short side that the network works at; None: its own.

    Raises:
        ImageError: the result would be too large.
    """
    if size is None:
        return frame.colors
    if isinstance(frame.colors, Image.Image):
        return resize_short_side(frame.colors, size)
    return resize_levels(frame.colors, scaled_size(frame.size, size), Image.Resampling.BICUBIC)


def finish(tensor: Tensor, frame: Frame) -> Frame:
    """Return a frame's translation from the network's output (3, H, W), at the frame's own size and depth.

    Raises:
        ValueError: a value that is NaN or Inf.
    """
    if isinstance(frame.colors, Image.Image):
        return replace(frame, colors=to_file_size(tensor, frame.size))
    levels = to_levels(tensor)
    if levels.shape[1::-1] != frame.size:
        levels = resize_levels(levels, frame.size, Image.Resampling.LANCZOS)
    return replace(frame, colors=levels)


def to_file_size(tensor: Tensor, size: tuple[int, int]) -> Image.Image:
    """Convert (3, H, W) in [-1, 1] to an image of the size (width, height) of the input's file."""
    return to_image(tensor).resize(size, Image.Resampling.LANCZOS)

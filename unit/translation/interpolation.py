"""A walk between two images through the code, as images, an animation or a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from PIL import Image, ImageOps
from torch import Tensor

from unit.domains import Domain
from unit.images import DecodedImage, Frame, Mark, to_image, write_image, write_image_file
from unit.translation.arrays import require_finite
from unit.translation.translator import Translator
from unit.translation.video.writing import write_images_as_video

Endpoint: TypeAlias = tuple[Image.Image, Domain]
"""An RGB image and its domain."""

RATE = 20
"""frames per second"""


def slerp(first: Tensor, second: Tensor, fraction: float) -> Tensor:
    """Interpolate two codes of one shape spherically (Shoemake 1985): exactly `first` at 0 and `second` at 1.

    The codes of two images are about equally long and far from parallel, so that halfway on the straight line between
    them the code is shorter, and its image hazy; on the arc its length goes from one's to the other's.
    """
    cosine = torch.dot(first.flatten(), second.flatten()).double() / (first.norm() * second.norm())
    angle = cosine.clamp(-1, 1).acos()
    if not angle.sin() > 1e-3:  # no arc, or no shortest one: the same or opposite directions, or a code of zeros
        return torch.lerp(first, second, fraction)
    shares = [float((share * angle).sin() / angle.sin()) for share in (1 - fraction, fraction)]
    return shares[0] * first + shares[1] * second


def walk(translator: Translator, first: Endpoint, second: Endpoint, frames: int) -> Iterator[Image.Image]:
    """Yield the frames of a walk from one image to the other, each twice the first image's width.

    A frame shows one code decoded in both domains, A at the left and B at the right. The walk begins with the first
    image's reconstruction and translation, and ends with those of the second.

    Args:
        translator: the model.
        first: image and domain.
        second: image, which is scaled and cropped around its centre to the size of the first, and domain.
        frames: their number, at least 2.

    Raises:
        UserError: out of memory, or the model's output contains NaN or Inf.
    """
    size = first[0].size
    start = translator.encode(first[0], first[1])
    end = translator.encode(ImageOps.fit(second[0], size, Image.Resampling.BICUBIC), second[1])
    for number in range(frames):
        code = slerp(start, end, number / (frames - 1))
        sides = [translator.decode(code, domain, size[::-1]) for domain in Domain]
        yield to_image(require_finite(torch.cat(sides, dim=2)))


def write_frames(frames: Iterator[Image.Image], outputs: Sequence[Path], mark: Mark | None = None) -> None:
    """Write frames as an image each, or all of them as one GIF, WebP, MP4 or MKV.

    Args:
        frames: at least 2, of one size.
        outputs: an image file for each, or one file for all.
        mark: what the outputs say about themselves.

    Raises:
        ConfigError: a video, without the extra ``video``.
        UserError: it can't be written.
    """
    if len(outputs) > 1:
        for frame, path in zip(frames, outputs, strict=True):
            write_image(frame, path, mark=mark)
    elif outputs[0].suffix.lower() in (".gif", ".webp"):
        shown = tuple(Frame(frame, duration=1000 / RATE) for frame in frames)
        write_image_file(DecodedImage(outputs[0].suffix[1:].upper(), shown), outputs[0], mark=mark)
    else:
        write_images_as_video(outputs[0], frames, RATE, mark=mark)

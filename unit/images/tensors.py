"""RGB image, of 8 or 16 bits ↔ float tensor (3, H, W) in [-1, 1]; resizing, cropping and flipping with torchvision.

Importing torch and torchvision takes seconds, which ``--help`` and mistakes need not wait for: so the functions do it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from unit.errors import ImageError
from unit.images.deep import Levels
from unit.images.formats import MAX_PIXELS
from unit.images.reading import require_memory

_BYTES_PER_PIXEL = 8
"""of a resized image, and of what is between its two passes"""

if TYPE_CHECKING:
    import torch


def to_tensor(image: Image.Image | Levels) -> torch.Tensor:
    """Convert an RGB image to float32 (3, H, W), contiguous, on the CPU: ``v / 127.5 - 1`` maps 0 … 255 to [-1, 1].

    16 bits, (H, W, 3), are mapped by ``v / 32767.5 - 1``.

    Raises:
        ValueError: the image is not RGB.
    """
    import torch
    from torchvision.transforms.v2 import functional

    if not isinstance(image, Image.Image):
        values = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1).contiguous()
        return values.div_(32767.5).sub_(1)
    if image.mode != "RGB":
        raise ValueError(f"expected an RGB image, got {image.mode}")
    levels: torch.Tensor = functional.pil_to_tensor(image)
    return levels.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)


def to_image(tensor: torch.Tensor) -> Image.Image:
    """Convert floats (3, H, W) in [-1, 1], on any device, to an RGB image: clamped, then rounded to nearest.

    Raises:
        ValueError: another shape or dtype, or a value that is NaN or Inf.
    """
    import torch
    from torchvision.transforms.v2 import functional

    if tensor.ndim != 3 or tensor.shape[0] != 3 or not tensor.is_floating_point():
        raise ValueError(f"expected floats of shape (3, H, W), got {tensor.dtype} {tuple(tensor.shape)}")
    values = tensor.detach().to("cpu", torch.float32)
    if not values.isfinite().all():
        raise ValueError("expected finite values, got NaN or Inf")
    image: Image.Image = functional.to_pil_image(values.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8))
    return image


def to_levels(tensor: torch.Tensor) -> Levels:
    """Convert floats (3, H, W) in [-1, 1] to 16 bits, (H, W, 3): clamped, then rounded to nearest.

    Raises:
        ValueError: a value that is NaN or Inf.
    """
    values = tensor.detach().to("cpu").permute(1, 2, 0)
    if not values.isfinite().all():
        raise ValueError("expected finite values, got NaN or Inf")
    levels: Levels = values.double().clamp(-1, 1).add(1).mul(32767.5).round().numpy().astype(np.uint16)
    return levels


def resize_levels(levels: Levels, size: tuple[int, int], resample: Image.Resampling) -> Levels:
    """Scale 16 bits, (H, W, 3), to a width and height, as Pillow scales 8."""
    channels = (Image.fromarray(levels[..., c].astype(np.float32)).resize(size, resample) for c in range(3))
    return np.stack([np.asarray(channel).clip(0, 65535).round().astype(np.uint16) for channel in channels], axis=2)


def resize_short_side(image: Image.Image, size: int) -> Image.Image:
    """Scale an image (bicubic, antialiased) so that its short side is `size`; the long side is rounded.

    Raises:
        ImageError: as `scaled_size`.
    """
    from torchvision.transforms.v2 import InterpolationMode, functional

    if min(image.size) == size:
        return image
    width, height = scaled_size(image.size, size)
    resized: Image.Image = functional.resize(image, [height, width], InterpolationMode.BICUBIC)
    return resized


def scaled_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Return the width and height of an image scaled to a short side.

    Raises:
        ImageError: so thin a strip that the result would have more than `MAX_PIXELS`, or would not fit into memory.
    """
    width, height = (round(side * short_side / min(size)) for side in size)
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"an image of {size[0]}x{size[1]} is too thin to be scaled to a short side of {short_side}; crop it"
        )
    require_memory((width, height), _BYTES_PER_PIXEL)
    return width, height


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Return the middle square of `size`, half a pixel up and left where the margin is odd."""
    return _crop(image, (image.width - size) // 2, (image.height - size) // 2, size)


def random_crop(image: Image.Image, size: int, flip: bool, seed: int) -> Image.Image:
    """Return a square of `size` at a random position, mirrored with probability 1/2 if `flip`."""
    from torchvision.transforms.v2 import functional

    rng = np.random.default_rng(seed)
    left = int(rng.integers(image.width - size + 1))
    top = int(rng.integers(image.height - size + 1))
    image = _crop(image, left, top, size)
    return functional.horizontal_flip(image) if rng.random() < 0.5 and flip else image


def _crop(image: Image.Image, left: int, top: int, size: int) -> Image.Image:
    from torchvision.transforms.v2 import functional

    cropped: Image.Image = functional.crop(image, top, left, size, size)
    return cropped

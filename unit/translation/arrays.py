"""Images as Python programs hold them ↔ batches of float tensors (B, 3, H, W) in [-1, 1].

- PIL images of any mode.
- NumPy arrays (H, W), (H, W, 1) or (H, W, 3): uint8, uint16, or floats from 0 to 1.
- Tensors (C, H, W) or (B, C, H, W) with 1 or 3 channels: uint8, or floats from -1 to 1.

What comes back has 3 channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unit.errors import ImageError, UserError
from unit.images import to_image, to_rgb, to_tensor

AnyImage: TypeAlias = Image.Image | NDArray[Any] | Tensor
ImageT = TypeVar("ImageT", Image.Image, NDArray[Any], Tensor)

_BATCH_PIXELS = 2**20
"""Images of equal size are computed together up to so many pixels; larger batches take memory and save no time."""
_ROUNDING = 1e-3
"""Floats may leave their range by so much, as a conversion of colours makes them do."""


def map_batches(function: Callable[[Tensor], Tensor], images: Sequence[AnyImage]) -> list[Tensor]:
    """Apply a function of batches (B, 3, H, W) to a list, to images of equal size together.

    Returns:
        the part of the function's result for each image, with a batch dimension.

    Raises:
        ImageError: one of them is unusable; the message gives its index.
    """
    sizes = []
    for index, image in enumerate(images):
        with _naming(index):
            sizes.append(_size(image))
    results: dict[int, Tensor] = {}
    for (height, width), group in groupby(sorted(range(len(images)), key=sizes.__getitem__), sizes.__getitem__):
        while indices := list(islice(group, max(1, _BATCH_PIXELS // (height * width)))):
            batches = []
            for index in indices:
                with _naming(index):
                    batches.append(to_batch(images[index]))
            together = torch.cat([batch.to(batches[0].device) for batch in batches])
            parts = function(together).split([len(batch) for batch in batches])
            results |= zip(indices, parts, strict=True)
    return [results[index] for index in range(len(images))]


def to_batch(image: AnyImage) -> Tensor:
    """Convert an image, or a tensor's batch of them, to (B, 3, H, W) in [-1, 1], on the tensor's device or the CPU.

    Raises:
        ImageError: another type, dtype or shape, or values that are out of range, NaN or Inf.
    """
    _size(image)
    if isinstance(image, Image.Image):
        return to_tensor(to_rgb(image))[None]
    batch = _tensor_to_batch(image) if isinstance(image, Tensor) else _array_to_batch(image)
    return batch.expand(-1, 3, -1, -1)


def from_batch(batch: Tensor, like: ImageT) -> ImageT:
    """Convert (B, 3, H, W) in [-1, 1] to the kind, dtype and device of the image that it was computed from.

    Raises:
        UserError: NaN or Inf, which integers can't express.
    """
    if isinstance(like, Image.Image):
        return to_image(require_finite(batch)[0])
    if isinstance(like, Tensor):
        values = batch if like.is_floating_point() else _levels(batch, 255)
        return (values if like.ndim == 4 else values[0]).to(like.device, like.dtype)
    values = batch.add(1).div(2) if like.dtype.kind == "f" else _levels(batch, np.iinfo(like.dtype).max)
    pixels: NDArray[Any] = values[0].permute(1, 2, 0).cpu().numpy()
    return pixels.astype(like.dtype)


def _array_to_batch(image: NDArray[Any]) -> Tensor:
    """Convert an array of a valid shape to (1, C, H, W)."""
    if image.dtype.kind != "f" and image.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise ImageError(f"an array of {image.dtype}: give uint8, uint16, or floats from 0 to 1")
    values = torch.from_numpy(np.array(image, np.float32)).reshape(*image.shape[:2], -1).permute(2, 0, 1)[None]
    if image.dtype.kind != "f":
        return values.div_(np.iinfo(image.dtype).max / 2).sub_(1)
    _require_range(values, 0, 1, "an array of floats")
    return values.mul_(2).sub_(1)


def _tensor_to_batch(image: Tensor) -> Tensor:
    """Convert a tensor of a valid shape to (B, C, H, W)."""
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise ImageError(f"a tensor of {image.dtype}: give torch.uint8, or floats from -1 to 1")
    values = image.detach() if image.ndim == 4 else image.detach()[None]
    if image.dtype == torch.uint8:
        return values.float().div_(127.5).sub_(1)
    _require_range(values, -1, 1, "a tensor of floats")
    return values.float()


def _require_range(values: Tensor, low: int, high: int, kind: str) -> None:
    minimum, maximum = (float(value) for value in values.aminmax())  # NaN if there is any
    if not (low - _ROUNDING <= minimum and maximum <= high + _ROUNDING):
        found = "NaN or Inf" if not values.isfinite().all() else f"{minimum:g} to {maximum:g}"
        raise ImageError(f"{kind} from {low} to {high} is expected, and this one holds {found}")


def _levels(batch: Tensor, white: int) -> Tensor:
    """Scale to 0 … white and round."""
    return require_finite(batch).clamp(-1, 1).add(1).mul(white / 2).round()


def require_finite(batch: Tensor) -> Tensor:
    """Return the model's output, unless it contains NaN or Inf, which integers can't express.

    Raises:
        UserError: it does.
    """
    if batch.isfinite().all():
        return batch
    raise UserError("the model's output contains NaN or Inf; try precision fp32, or a model of an earlier step")


def _size(image: AnyImage) -> tuple[int, int]:
    """Return height and width of an image of a valid type and shape."""
    shape: tuple[int, ...]
    if isinstance(image, Image.Image):
        shape, valid, expected = (image.height, image.width), True, ""
    elif isinstance(image, np.ndarray):
        shape, valid = image.shape, image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))
        expected = "an array (height, width) or (height, width, channels)"
    elif isinstance(image, Tensor):
        shape, valid = tuple(image.shape), image.ndim in (3, 4) and image.shape[-3] in (1, 3)
        expected = "a tensor (channels, height, width) or (batch, channels, height, width)"
    else:
        raise ImageError(
            f"{type(image).__name__} is no image; give a PIL image, a NumPy array, a tensor or a list of them"
        )
    if not valid:
        raise ImageError(f"shape {shape}: {expected} with 1 or 3 channels is expected")
    if 0 in shape:
        raise ImageError(f"shape {shape}: an image without pixels")
    height, width = shape[-2:] if isinstance(image, Tensor) else shape[:2]
    return height, width


@contextmanager
def _naming(index: int) -> Iterator[None]:
    """Put its index in the list before what is wrong with an image."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"images[{index}]: {error}") from None

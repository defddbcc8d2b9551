"""The bytes of an image file as an upload, and those of its translation."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError
from starlette.exceptions import HTTPException
from torch import Tensor

from unit.errors import ConfigError, ImageError
from unit.images import DecodedImage, Mark, decode_bytes, encode, measure_bytes
from unit.images.metadata import METADATA_FORMATS
from unit.machine import available_memory
from unit.translation.frames import finish
from unit.translation.server.batching import OutOfMemoryError

_FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "tiff": "TIFF", "avif": "AVIF"}
_KEPT_FORMATS = (*METADATA_FORMATS, "GIF")
"""Formats of uploads that translations can have too, with the mark that they are translations."""
_BYTES_PER_PIXEL = 60
"""Peak memory of reading and writing, for 16 bits a channel; 8 bits take less."""


class Encoded(NamedTuple):
    """A file to send."""

    content: bytes
    format: str
    """Pillow's name"""
    lost: list[str]
    """names of what the upload holds, but not this file"""


def count_pixels(body: bytes) -> int:
    """Return the pixels of all frames, without decoding them.

    Raises:
        HTTPException: 415, not an image in a format that this server reads; 400, damaged.
    """
    try:
        extent = measure_bytes(body, "the file")
    except ConfigError as error:  # HEIC without its package
        raise HTTPException(415, str(error)) from error
    except ImageError as error:
        status = 415 if body and isinstance(error.__cause__, UnidentifiedImageError) else 400
        raise HTTPException(status, str(error)) from error
    return extent.width * extent.height * extent.frames


def decode(body: bytes, pixels: int) -> DecodedImage:
    """Decode an image of so many pixels in all.

    Raises:
        ImageError: damaged.
        OutOfMemoryError: too little memory for it now.
    """
    if pixels * _BYTES_PER_PIXEL > available_memory():
        raise OutOfMemoryError(f"out of memory for {pixels} pixels; send a smaller image, or try again later")
    return decode_bytes(body, "the file", pixels)


def encode_translation(upload: DecodedImage, tensors: Sequence[Tensor], format_option: str, mark: Mark) -> Encoded:
    """Encode the translation of an upload.

    Args:
        upload: the decoded image, whose metadata, alpha and timing are kept.
        tensors: (3, H, W) in [-1, 1] of each frame.
        format_option: of `Options`.
        mark: that it is a translation.

    Raises:
        HTTPException: 500, the model's output is not finite.
    """
    try:
        image = replace(upload, frames=tuple(map(finish, tensors, upload.frames)))
    except ValueError as error:
        reason = "the model's output contains NaN or Inf; start the server with --precision fp32, or another model"
        raise HTTPException(500, reason) from error
    same = upload.format if upload.format in _KEPT_FORMATS else "PNG"
    image_format = _FORMATS.get(format_option, same)
    content, lost = encode(image, image_format, mark=mark)
    return Encoded(content, image_format, [*upload.lost, *lost])


def archive(samples: Sequence[Encoded]) -> bytes:
    """Pack files, which are compressed already, as 1.png, 2.png, … in a ZIP archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as packed:
        for k, sample in enumerate(samples):
            packed.writestr(f"{k + 1}.{sample.format.lower().replace('jpeg', 'jpg')}", sample.content)
    return content.getvalue()


def media_type(image_format: str) -> str:
    """Return a format's MIME type."""
    return Image.MIME[image_format]

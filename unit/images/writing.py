"""RGB image → file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Protocol

from PIL import ExifTags, Image, PngImagePlugin

from unit.errors import ImageError, UserError, escape
from unit.files import atomic_write
from unit.images.reading import FORMATS_BY_SUFFIX, error_text, read_header

_MARKED_FORMATS = {"JPEG", "PNG", "WEBP", "AVIF", "TIFF"}
"""Formats with EXIF, whose software tag says what wrote the file."""
SOFTWARE = "UNIT image translation"
"""The beginning of the software tag of every output."""
_LOSSY_FORMATS = {"JPEG", "WEBP", "AVIF"}
_LOSSY_QUALITY = 95
_MAX_JPEG_XMP = 65_502  # bytes of a segment, less its length and its name


class Mark(Protocol):
    """What an output says about itself."""

    @property
    def software(self) -> str:
        """EXIF software tag, which begins with `SOFTWARE`."""

    def xmp(self, existing: bytes | None = None) -> bytes:
        """Return an XMP packet that adds the mark to an existing one."""


def write_image(image: Image.Image, path: Path, quality: int | None = None, mark: Mark | None = None) -> None:
    """Write an image atomically, in the format of the path's suffix, creating missing folders, and mark it.

    Args:
        quality: 1 … 100 for JPEG, WebP and AVIF, 95 by default; from 95 on, JPEG keeps chroma at full resolution.
        mark: added to the image's own XMP packet (``info["xmp"]``), which is kept; None: the software tag alone.

    Raises:
        UserError: the file can't be written; the message names it.
    """
    suffix = path.suffix.lower()
    image_format = FORMATS_BY_SUFFIX.get(suffix)
    if image_format is None or image_format not in Image.SAVE:
        raise UserError(
            f"{escape(path)}: can't write {escape(suffix) or 'a file without a suffix'}; use .png, .jpg or .webp"
        )
    options: dict[str, Any] = {}
    if image_format in _LOSSY_FORMATS:
        options["quality"] = _LOSSY_QUALITY if quality is None else quality
        if image_format == "JPEG" and options["quality"] >= 95:
            options["subsampling"] = 0  # 4:4:4
    if image_format == "PNG":
        options["compress_level"] = 1  # three times as fast as the default 6, for files 10 % to 25 % larger
    if image_format in _MARKED_FORMATS:
        options |= _mark_options(image_format, mark, image.info.get("xmp"))
    encoded = io.BytesIO()
    try:
        image.save(encoded, format=image_format, **options)
    except Exception as error:  # encoders raise anything
        raise UserError(f"{escape(path)}: can't be written: {error_text(error)}") from error
    atomic_write(path, encoded.getvalue(), sync=False)


def _mark_options(image_format: str, mark: Mark | None, existing: bytes | None) -> dict[str, Any]:
    """Return the options of Pillow's `save` that write the mark."""
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = mark.software if mark else SOFTWARE
    if mark is None:
        return {"exif": exif}
    xmp = mark.xmp(existing)
    if image_format == "JPEG" and len(xmp) > _MAX_JPEG_XMP:
        xmp = mark.xmp()
    if image_format == "TIFF":
        exif[ExifTags.Base.XMLPacket] = xmp
        return {"exif": exif}
    if image_format == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", xmp.decode())
        return {"exif": exif, "pnginfo": chunks}
    return {"exif": exif, "xmp": xmp}


def is_marked(path: Path) -> bool:
    """True if `write_image` wrote this file, unless other programs have changed its metadata."""
    try:
        return read_header(path).software.startswith(SOFTWARE)
    except ImageError:
        return False


def can_mark(path: Path) -> bool:
    """True if files with this suffix can have the mark."""
    return FORMATS_BY_SUFFIX.get(path.suffix.lower()) in _MARKED_FORMATS

"""Image → file."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from unit.errors import ConfigError, ImageError, UserError, escape
from unit.files import atomic_write
from unit.images.decoding import DecodedImage, Frame
from unit.images.encoding import encode
from unit.images.formats import FORMATS_BY_SUFFIX
from unit.images.metadata import METADATA_FORMATS, SOFTWARE, Mark, Metadata
from unit.images.reading import error_text, read_header


def write_image(image: Image.Image, path: Path, quality: int | None = None, mark: Mark | None = None) -> None:
    """Write an RGB image as `write_image_file` does, with no other metadata than its XMP packet (``info["xmp"]``)."""
    write_image_file(
        DecodedImage("", (Frame(image),), metadata=Metadata(xmp=image.info.get("xmp"))), path, quality, mark=mark
    )


def write_image_file(
    image: DecodedImage,
    path: Path,
    quality: int | None = None,
    *,
    gray: bool = False,
    mark: Mark | None = None,
) -> list[str]:
    """Write an image atomically, in the format of the path's suffix, creating missing folders, and mark it.

    Args:
        image: as for `unit.images.encoding.encode`, like all that follow.

    Returns:
        The names of what the format can't hold.

    Raises:
        UserError: the file can't be written; the message names it.
    """
    image_format = format_of(path)
    try:
        content, lost = encode(image, image_format, quality, gray=gray, mark=mark)
    except Exception as error:  # encoders raise anything
        raise UserError(f"{escape(path)}: can't be written: {error_text(error)}") from error
    atomic_write(path, content, sync=False)
    return lost


def format_of(path: Path) -> str:
    """Return Pillow's name of the format that a path's suffix stands for.

    Raises:
        ConfigError: it can't be written.
    """
    suffix = path.suffix.lower()
    image_format = FORMATS_BY_SUFFIX.get(suffix)
    if image_format is None or image_format not in Image.SAVE:
        raise ConfigError(
            f"{escape(path)}: can't write {escape(suffix) or 'a file without a suffix'}; use .png, .jpg, .webp, .tif "
            "or .avif"
        )
    return image_format


def is_marked(path: Path) -> bool:
    """True if `write_image_file` wrote this file, unless other programs have changed its metadata."""
    try:
        return read_header(path).software.startswith(SOFTWARE)
    except ImageError:
        return False


def can_mark(path: Path) -> bool:
    """True if files with this suffix can have the mark."""
    return FORMATS_BY_SUFFIX.get(path.suffix.lower()) in (*METADATA_FORMATS, "GIF")

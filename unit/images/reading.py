"""Image file → RGB image.

Whatever a file holds (16 bits, grey, CMYK, a palette, transparency, an ICC profile, an EXIF orientation) is read as the
upright 8-bit sRGB image that a viewer shows, or refused with one `ImageError` that names the file.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from PIL import ExifTags, Image, UnidentifiedImageError

from unit.errors import ConfigError, ImageError, escape, format_bytes
from unit.files import require_regular_file
from unit.images.color import NO_WHITE, to_rgb
from unit.images.formats import FORMATS, MAX_BYTES, MAX_PIXELS, is_misnamed
from unit.machine import available_memory

T = TypeVar("T")

# Peak memory while a file is read (measured); other formats hold copies, and animated ones both frame and canvas.
_STREAMED_FORMATS = {"JPEG", "MPO", "PNG", "TIFF", "BMP", "PPM"}
_BYTES_PER_PIXEL, _MAX_BYTES_PER_PIXEL = 12, 25
_SMALL = 10**8  # bytes, below which it isn't worth asking how much memory there is

TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# libjpeg's decoding at 1/n is softer than a full decode, the more so the less scaling follows. Measured on 14 photos:
# 1/2, then scaled by 1.25: 44 dB of PSNR (JPEG quality 90 itself: 42), 91 % of the squared differences between
# neighbouring pixels, half the time. 1/4 and 1/8, then scaled by 1.25: 43 and 40 dB, 87 %, and hardly faster than 1/2.
# Scaled by 2 they reach 47 dB and 93 %, hence the larger margin for 1/4 and 1/8.
_DRAFTS = ((8, 2.0), (4, 2.0), (2, 1.25))  # n, minimum short side after decoding / target short side

_MAX_SCANS = 100  # libtiff's limit for JPEG in TIFF; real files have about ten
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")

_pillow_limit_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Header:
    """The properties of an image that its file's header gives."""

    width: int
    """pixels as stored, before `orientation` is applied"""
    height: int
    mode: str
    """Pillow's mode of the stored image: L, P, RGB, CMYK, I;16, …"""
    software: str
    """EXIF software tag, or a GIF's comment; empty without one"""
    orientation: int
    """EXIF orientation; 1 is upright"""
    transparent: bool
    deep: bool
    """more than 8 bits a channel"""
    animated: bool
    """more than one frame or page"""
    misnamed: bool
    """the suffix belongs to another format"""
    bytes: int
    """file size"""


def read_header(path: Path) -> Header:
    """Read a file's header, without decoding the image; EXIF stored behind a PNG's pixels is not seen.

    Raises:
        ImageError: as `read_image`, where the header shows it; `max_pixels` is not checked.
    """
    with image_errors(path):
        size = require_regular_file(path, MAX_BYTES)
        with path.open("rb") as file, open_image(file) as image:
            if image.mode == "F":
                raise ImageError(NO_WHITE)
            return Header(
                *image.size,
                mode=image.mode,
                software=_software(image),
                orientation=orientation_of(image, decoded=False),
                transparent=image.has_transparency_data,
                deep=is_deep(image),
                animated=is_animated(image),
                misnamed=is_misnamed(path, str(image.format)),
                bytes=size,
            )


def read_image(path: Path, max_pixels: int = MAX_PIXELS, short_side: int | None = None) -> Image.Image:
    """Read a file's first frame as an upright 8-bit RGB image in sRGB, transparent parts over white.

    16-bit grey is scaled by 1/257, never clipped or stretched. Embedded ICC profiles are applied, unless broken or made
    for other channels. The result carries no metadata.

    Args:
        max_pixels: refuse larger images, by their header.
        short_side: the size in pixels that the short side will be scaled to. A much larger JPEG is decoded at 1/2, 1/4
            or 1/8, which is faster, and stays larger than this. None decodes in full.

    Raises:
        ImageError: one line with the file's name: missing, not a regular file, empty, not an image, damaged, larger
            than `max_pixels`, or numbers without a known white (floats, integers outside 0 … 65535).
    """
    with image_errors(path):
        require_regular_file(path, MAX_BYTES)
        with path.open("rb") as file:
            return decode_image(file, max_pixels, short_side)


def decode_image(file: BinaryIO, max_pixels: int, short_side: int | None) -> Image.Image:
    """Decode an open file as `read_image` does.

    Raises:
        Exception: of any type, without the file's name; `image_errors` turns it into an `ImageError`.
    """
    with open_image(file) as image:
        if image.width * image.height > max_pixels:
            raise ImageError(f"{image.width}x{image.height} is more than {max_pixels} pixels; make it smaller")
        if image.format in ("JPEG", "MPO"):
            require_few_scans(file)
            if short_side is not None:
                _draft(image, short_side)
        require_memory(image.size, bytes_per_pixel(image))
        load_image(image)
        transpose = TRANSPOSE_BY_ORIENTATION.get(orientation_of(image))  # after loading: PNG may keep EXIF at its end
        rgb = to_rgb(image)
    rgb.info = {}  # an applied profile must not be written out again
    return rgb if transpose is None else rgb.transpose(transpose)


def bytes_per_pixel(image: Image.Image) -> int:
    """Return the peak memory of decoding an open image."""
    streamed = image.format in _STREAMED_FORMATS and not image.has_transparency_data
    return _BYTES_PER_PIXEL if streamed else _MAX_BYTES_PER_PIXEL


def require_memory(size: tuple[int, int], bytes_per_pixel: int) -> None:
    """Refuse an image that would not fit: the system would kill the program without a message.

    Raises:
        ImageError: without the file's name.
    """
    needed = size[0] * size[1] * bytes_per_pixel
    if needed > _SMALL and needed > (available := available_memory()):
        raise ImageError(
            f"{size[0]}x{size[1]} pixels take {format_bytes(needed)} of memory, but {format_bytes(available)} are "
            "free; make it smaller"
        )


@contextmanager
def image_errors(path: str | Path) -> Iterator[None]:
    """Silence Pillow's warnings, and turn any exception into one `ImageError` that names the file."""
    try:
        # Process-wide before Python 3.14: with several reading threads, one of Pillow's warnings may show.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    except ConfigError as error:  # a package that isn't installed
        raise ConfigError(f"{escape(path)}: {error}") from error
    except Exception as error:  # damaged files make decoders raise anything
        raise ImageError(f"{escape(path)}: {_reason(error)}") from error


def open_image(file: BinaryIO) -> Image.Image:
    """Open an image by its content, whatever the suffix; nothing is decoded."""
    if not file.read(1):
        raise ImageError("the file is empty; replace or remove it")
    file.seek(0)
    try:
        return Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        try:
            with _pillow_limit(None):
                return Image.open(file, formats=[name for name in FORMATS if name != "ICO"])
        except UnidentifiedImageError:  # opening an icon decodes it
            raise ImageError("an icon that holds a giant image; make it smaller") from error


def _draft(image: Image.Image, short_side: int) -> None:
    """Make Pillow decode a JPEG at the smallest scale that is good enough for `short_side`."""
    n = next((n for n, margin in _DRAFTS if min(image.size) >= n * margin * short_side), 1)
    image.draft(None, (image.width // n, image.height // n))


def load_image(image: Image.Image) -> None:
    """Decode; TIFF checks Pillow's limit again, and so do icons, whose images may be larger than declared."""
    try:
        image.load()
    except Image.DecompressionBombError as error:
        if image.format != "TIFF":
            raise ImageError("holds a larger image than its header declares; make it smaller") from error
        with _pillow_limit(None):
            image.load()


@contextmanager
def _pillow_limit(pixels: int | None) -> Iterator[None]:
    """Set Pillow's own pixel limit, a global of the process that is below ours, for one file and one thread."""
    with _pillow_limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def require_few_scans(file: BinaryIO) -> None:
    """Refuse a JPEG of thousands of scans: each may be a few bytes long, but covers the image, which takes hours."""
    position = file.tell()
    file.seek(0)
    # A quick upper bound; thumbnails, or a film behind the image, hold the marker too, so a precise count follows.
    if sum(block.count(b"\xff\xda") for block in iter(lambda: file.read(2**20), b"")) > _MAX_SCANS:
        file.seek(0)
        if _count_scans(file.read()) > _MAX_SCANS:
            raise ImageError(f"a JPEG of more than {_MAX_SCANS} scans, which would take hours; save it again")
    file.seek(position)


def _count_scans(jpeg: bytes) -> int:
    count = position = 0
    while (marker := _JPEG_MARKER.search(jpeg, position)) and marker[1] != b"\xd9":
        count += marker[1] == b"\xda"
        position = marker.end()
        if marker[1] != b"\xd8":  # all but start-of-image carry a length, which includes its own two bytes
            position += int.from_bytes(jpeg[position : position + 2])
    return count


def orientation_of(image: Image.Image, decoded: bool = True) -> int:
    """Return the EXIF orientation. (Pillow's `exif_transpose` rewrites metadata, and fails where it is broken.)"""
    return _exif(image, ExifTags.Base.Orientation, 1, decoded)


def _exif(image: Image.Image, tag: int, default: T, decoded: bool) -> T:
    """Return the value of an EXIF tag, of the default's type."""
    try:
        # A PNG's own `getexif` decodes the image to look behind it.
        exif = image.getexif() if decoded else Image.Image.getexif(image)
        return type(default)(exif.get(tag, default))  # type: ignore[call-arg]
    except Exception:  # broken EXIF is no reason to lose the photo
        return default


def _software(image: Image.Image) -> str:
    if image.format == "GIF":
        comment = image.info.get("comment", b"")
        return comment.decode(errors="replace") if isinstance(comment, bytes) else ""
    return _exif(image, ExifTags.Base.Software, "", decoded=False)


def is_deep(image: Image.Image) -> bool:
    """True for more than 8 bits a channel; for colour only the decoder's arguments tell, e.g. "RGB;16B"."""
    return image.mode.startswith("I") or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def is_animated(image: Image.Image) -> bool:
    """True for more than one frame or page; the second image in a phone's JPEG (MPO) is a depth map or the like."""
    with suppress(Exception):  # the first frame may be fine though the second is damaged
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    return False


def _reason(error: Exception) -> str:
    """Say in one line what is wrong with a file, and what to do."""
    match error:
        case ImageError():
            return str(error)
        case FileNotFoundError():
            return "no such file"
        case IsADirectoryError():
            return "is a folder, not an image"
        case PermissionError():
            return "no permission to read it"
        case UnidentifiedImageError():
            return "is not an image in a supported format; convert it to PNG or JPEG, or remove it"
        case MemoryError():
            return "too large for this machine's memory; make it smaller"
        case OSError(strerror=str()):
            return f"can't be read: {error_text(error)}"
        case _:
            return f"damaged or cut short ({error_text(error)}); replace or remove it"


def error_text(error: Exception) -> str:
    """Return the error's own text as one printable line."""
    text = str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error)
    return escape(" ".join(text.split()))[:200] or type(error).__name__

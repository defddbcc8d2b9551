"""Image file → RGB image.

Whatever a file holds (16 bits, grey, CMYK, a palette, transparency, an ICC profile, an EXIF orientation) is read as the
upright 8-bit sRGB image that a viewer shows, or refused with one `ImageError` that names the file.
"""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from unit.errors import ImageError, escape, format_bytes
from unit.files import require_regular_file
from unit.machine import available_memory

T = TypeVar("T")

MAX_BYTES = 2**31
"""Larger files are refused; `MAX_PIXELS` of 16 bits with alpha, uncompressed, take 1.6 GB."""
MAX_PIXELS = 200_000_000
"""Larger images are refused by their header: 200 megapixels take 800 MB in Pillow, and up to 3 GB with alpha."""

# Peak memory while a file is read (measured); other formats hold copies, and animated ones both frame and canvas.
_STREAMED_FORMATS = {"JPEG", "MPO", "PNG", "TIFF", "BMP", "PPM"}
_BYTES_PER_PIXEL, _MAX_BYTES_PER_PIXEL = 12, 25
_SMALL = 10**8  # bytes, below which it isn't worth asking how much memory there is

# EPS starts Ghostscript, and IPTC opens its payload as any format, EPS included; WMF needs Windows; MPEG, GRIB, BUFR
# and HDF5 are only identified, not decoded; FITS holds physical quantities. Pillow can't read PDF.
_EXCLUDED_FORMATS = {"EPS", "IPTC", "WMF", "MPEG", "GRIB", "BUFR", "HDF5", "FITS"}

logging.getLogger("PIL").setLevel(logging.CRITICAL)  # its log messages name no file; `ImageError` does
Image.init()  # register every format now rather than at the first unknown file
FORMATS_BY_SUFFIX = Image.registered_extensions()
# Formats without a suffix of their own (SPIDER, MCIDAS) have weak signatures and accept files of other kinds.
_FORMATS = tuple(name for name in Image.ID if name in FORMATS_BY_SUFFIX.values() and name not in _EXCLUDED_FORMATS)

SUFFIXES: frozenset[str] = frozenset(
    {".mpo"} | {suffix for suffix, name in FORMATS_BY_SUFFIX.items() if name in _FORMATS}
)
"""Suffixes of image files, in lower case (Pillow registers none for MPO)."""

_UNSUPPORTED = """
avci avif avifs heic heics heif heifs hif jxl jxr wdp hdp
3fr arw cr2 cr3 crw dcr dng erf fff gpr iiq k25 kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f
afphoto ai cdr clip djvu emf eps exr fits hdr kra pct pdn pic pict procreate ps psb svg svgz wmf xcf xwd
3g2 3gp asf avi flv gifv m2ts m4v mkv mov mp4 mpe mpeg mpg mts ogv qt vob webm wmv
"""
UNSUPPORTED_SUFFIXES = frozenset("." + suffix for suffix in _UNSUPPORTED.split()) - SUFFIXES  # Pillow may read AVIF
"""Suffixes of images and videos that can't be read, in lower case."""
# JPEG, PNG, GIF, TIFF; those of WebP, and of HEIC, AVIF and videos (ISO media), follow a size.
_SIGNATURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|II\*\0|MM\0\*|RIFF....WEBP|....ftyp", re.DOTALL)

_TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SRGB_TOLERANCE = 2  # levels; common sRGB profiles differ by no more
_NO_WHITE = "holds floating-point numbers with no known white; convert it to 8- or 16-bit PNG or TIFF"
_SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP", "CUR": "ICO"}  # distinct only to Pillow

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
    """EXIF software tag, empty without one"""
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
        with path.open("rb") as file, _open(file) as image:
            if image.mode == "F":
                raise ImageError(_NO_WHITE)
            return Header(
                *image.size,
                mode=image.mode,
                software=_exif(image, ExifTags.Base.Software, "", decoded=False),
                orientation=_orientation(image, decoded=False),
                transparent=image.has_transparency_data,
                deep=_is_deep(image),
                animated=_is_animated(image),
                misnamed=_is_misnamed(path, str(image.format)),
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
    with _open(file) as image:
        if image.width * image.height > max_pixels:
            raise ImageError(f"{image.width}x{image.height} is more than {max_pixels} pixels; make it smaller")
        if image.format in ("JPEG", "MPO"):
            _require_few_scans(file)
            if short_side is not None:
                _draft(image, short_side)
        streamed = image.format in _STREAMED_FORMATS and not image.has_transparency_data
        require_memory(image.size, _BYTES_PER_PIXEL if streamed else _MAX_BYTES_PER_PIXEL)
        _load(image)
        transpose = _TRANSPOSE_BY_ORIENTATION.get(_orientation(image))  # after loading: PNG may keep EXIF at its end
        rgb = to_rgb(image)
    rgb.info = {}  # an applied profile must not be written out again
    return rgb if transpose is None else rgb.transpose(transpose)


def has_image_content(path: Path) -> bool:
    """True if a file begins as images or videos of the common formats do, whatever its name."""
    with suppress(OSError):
        require_regular_file(path, MAX_BYTES)
        with path.open("rb") as file:
            return _SIGNATURE.match(file.read(16)) is not None
    return False


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
def image_errors(path: Path) -> Iterator[None]:
    """Silence Pillow's warnings, and turn any exception into one `ImageError` that names the file."""
    try:
        # Process-wide before Python 3.14: with several reading threads, one of Pillow's warnings may show.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    except Exception as error:  # damaged files make decoders raise anything
        raise ImageError(f"{escape(path)}: {_reason(error)}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any image to 8-bit RGB in sRGB, as `read_image` does but for the orientation.

    Raises:
        ImageError: floats, or integers outside 0 … 65535, which have no known white.
    """
    # The profile describes the colours alone, so it is applied before they are blended with white.
    colors, alpha = _split_alpha(image)
    profile = image.info.get("icc_profile")
    transform = _srgb_transform(profile, colors.mode) if profile else None
    rgb = transform.apply(colors) if transform else colors.convert("RGB")
    if alpha is None:
        return rgb
    white = Image.new("RGB", image.size, "white")
    white.paste(rgb, mask=alpha)
    return white


def _open(file: BinaryIO) -> Image.Image:
    """Open an image by its content, whatever the suffix; nothing is decoded."""
    if not file.read(1):
        raise ImageError("the file is empty; replace or remove it")
    file.seek(0)
    try:
        return Image.open(file, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        try:
            with _pillow_limit(None):
                return Image.open(file, formats=[name for name in _FORMATS if name != "ICO"])
        except UnidentifiedImageError:  # opening an icon decodes it
            raise ImageError("an icon that holds a giant image; make it smaller") from error


def _draft(image: Image.Image, short_side: int) -> None:
    """Make Pillow decode a JPEG at the smallest scale that is good enough for `short_side`."""
    n = next((n for n, margin in _DRAFTS if min(image.size) >= n * margin * short_side), 1)
    image.draft(None, (image.width // n, image.height // n))


def _load(image: Image.Image) -> None:
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


def _require_few_scans(file: BinaryIO) -> None:
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


def _orientation(image: Image.Image, decoded: bool = True) -> int:
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


def _is_misnamed(path: Path, image_format: str) -> bool:
    expected = FORMATS_BY_SUFFIX.get(path.suffix.lower(), image_format)
    return _SAME_FORMAT.get(expected, expected) != _SAME_FORMAT.get(image_format, image_format)


def _is_deep(image: Image.Image) -> bool:
    """True for more than 8 bits a channel; for colour only the decoder's arguments tell, e.g. "RGB;16B"."""
    return image.mode.startswith("I") or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _is_animated(image: Image.Image) -> bool:
    """True for more than one frame or page; the second image in a phone's JPEG (MPO) is a depth map or the like."""
    with suppress(Exception):  # the first frame may be fine though the second is damaged
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    return False


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return 8-bit colours without palette or alpha, and the alpha channel (None: opaque)."""
    if image.mode == "F":
        raise ImageError(_NO_WHITE)
    if image.mode.startswith("I"):
        return _gray_from_16_bits(image), None
    if image.has_transparency_data:
        if image.mode in ("L", "LA", "La"):
            gray, alpha = image.convert("LA").split()
            return gray, alpha
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    return (image.convert("RGB") if image.mode == "P" else image), None


def _gray_from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("holds integers outside 0 … 65535; convert it to 8- or 16-bit PNG or TIFF")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))  # 65535 = 255 * 257


@lru_cache(maxsize=8)  # a folder's photos mostly share a few profiles
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform to sRGB; None if the profile is broken, made for other channels, or sRGB already."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        transform = ImageCms.ImageCmsTransform(source, srgb, mode, "RGB")  # raises if profile and mode don't match
        noise = np.random.default_rng(0).bytes(64 * 64 * len(Image.new(mode, (1, 1)).getbands()))
        probe = Image.frombytes(mode, (64, 64), noise)
        change = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
    except Exception:  # a broken profile is no reason to lose the photo
        return None
    return transform if np.abs(change).max() > _SRGB_TOLERANCE else None


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

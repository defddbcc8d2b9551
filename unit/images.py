"""Image file ↔ RGB image ↔ float tensor (3, H, W) in [-1, 1].

Whatever the file holds (16 bits, gray, CMYK, a palette, transparency, an ICC profile, a camera on its side) comes out
as the upright 8-bit sRGB image that a person sees in a viewer, or as one `ImageError` that names the file.
"""

from __future__ import annotations

import io
import logging
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from unit.errors import ImageError, UserError, escape
from unit.files import atomic_write

MAX_PIXELS = 200_000_000
"""Larger images are refused from their header: 200 megapixels are 800 MB to Pillow, and up to 3 GB with alpha."""

# EPS starts Ghostscript, and IPTC opens what it wraps as any format, so EPS too; WMF needs Windows; MPEG, GRIB, BUFR
# and HDF5 are only recognised, not decoded; FITS holds physical quantities, no image. PDF can't be read at all.
_LEFT_OUT = {"EPS", "IPTC", "WMF", "MPEG", "GRIB", "BUFR", "HDF5", "FITS"}

logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it logs as errors names no file; the `ImageError` does
Image.init()  # registers every format; Pillow would else do so at the first file it doesn't know
_ENDINGS = Image.registered_extensions()
# A format without an ending of its own (SPIDER, MCIDAS) has hardly a signature either, and takes files that are none.
_FORMATS = tuple(name for name in Image.ID if name in _ENDINGS.values() and name not in _LEFT_OUT)

SUFFIXES: frozenset[str] = frozenset({".mpo"} | {ending for ending, name in _ENDINGS.items() if name in _FORMATS})
"""Endings of the files that are taken for images, in lower case (".mpo" is a JPEG to Pillow)."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SRGB_TOLERANCE = 2  # in levels; the sRGB profiles in use differ by no more
_LOSSY = {"JPEG", "WEBP", "AVIF"}
_LOSSY_QUALITY = 95
_NO_WHITE = "holds floating-point numbers with no known white; convert it to 8- or 16-bit PNG or TIFF"
_KIN = {"MPO": "JPEG", "DIB": "BMP", "CUR": "ICO"}  # what Pillow calls apart and people don't

# A JPEG decoded at 1/n by libjpeg, then scaled, is softer than one decoded in full, the more so the less remains to be
# scaled. 14 photographs, to be scaled by 1.25 after 1/2, kept 44 dB of PSNR (JPEG of quality 90 itself: 42) and 91 % of
# the squared differences between neighbours, in half the time. After 1/4 and 1/8 those were 43 and 40 dB and 87 %, for
# hardly any time: these decode no faster than 1/2. So they have to leave twice the wanted size: 47 dB and 93 %.
_DRAFTS = ((8, 2.0), (4, 2.0), (2, 1.25))  # n, and how many times the short side must be left

_MOST_SCANS = 100  # libtiff's limit for JPEG in TIFF; real ones have some ten
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")

_pillow_limit = threading.Lock()


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about its image before anything is decoded."""

    width: int
    """as stored, in pixels: before the turn that `orientation` asks for"""
    height: int
    mode: str
    """Pillow's, of the stored image: L, P, RGB, CMYK, I;16, …"""
    orientation: int
    """as in EXIF, 1 is upright"""
    transparent: bool
    deep: bool
    """more than 8 bits a channel"""
    frames: bool
    """more than one: an animation or several pages"""
    misnamed: bool
    """the ending is that of another format"""
    bytes: int
    """the file's size"""


def read_header(path: Path) -> Header:
    """What `read_image` would find, from the file's header alone: nothing is decoded, however large the image.

    EXIF that a PNG keeps behind its image is not seen. Raises `ImageError` as `read_image` does, as far as that shows
    without decoding, and but for the number of pixels.
    """
    with _one_line_errors(path):
        size = _require_content(path)
        with path.open("rb") as file, _open(file) as image:
            if image.mode == "F":
                raise ImageError(_NO_WHITE)
            return Header(
                *image.size,
                mode=image.mode,
                orientation=_orientation(image, decoded=False),
                transparent=image.has_transparency_data,
                deep=_is_deep(image),
                frames=_has_frames(image),
                misnamed=_is_misnamed(path, str(image.format)),
                bytes=size,
            )


def read_image(path: Path, max_pixels: int = MAX_PIXELS, short_side: int | None = None) -> Image.Image:
    """The file's first frame as an upright RGB image of 8 bits, in sRGB, transparent parts over white.

    A JPEG much larger than `short_side` (in pixels; None: never) is decoded at 1/2, 1/4 or 1/8 of its size, rounded up,
    which is faster; its short side stays longer than that, and other formats and smaller images are as they are.

    Of 16-bit gray, 65535 becomes 255 (never clipped or stretched). Embedded ICC profiles are applied; a broken one, or
    one for other channels than the file has, is ignored. The result carries no metadata.

    Raises `ImageError`, one line with the file's name, when the file is missing, no file, empty, no image, damaged,
    larger than `max_pixels`, or holds numbers with no known white (floats, integers outside 0 … 65535).
    """
    with _one_line_errors(path):
        return _read(path, max_pixels, short_side)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as RGB of 8 bits in sRGB: what `read_image` makes of a file's content, but for the orientation.

    Raises `ImageError` for floats and integers outside 0 … 65535, which have no known white.
    """
    # The profile is applied to the colours alone, before they meet the white.
    colours, alpha = _apart(image)
    profile = image.info.get("icc_profile")
    transform = _to_srgb(profile, colours.mode) if profile else None
    rgb = transform.apply(colours) if transform else colours.convert("RGB")
    if alpha is None:
        return rgb
    white = Image.new("RGB", image.size, "white")
    white.paste(rgb, mask=alpha)
    return white


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB image as float32 (3, H, W), contiguous, on the CPU: ``v / 127.5 - 1``, so 0 … 255 is [-1, 1].

    Raises `ValueError` for an image that is not RGB.
    """
    if image.mode != "RGB":
        raise ValueError(f"expected an RGB image, got {image.mode}")
    levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return levels.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)


def to_image(tensor: torch.Tensor) -> Image.Image:
    """The inverse of `to_tensor`: (3, H, W), any float type and device, as RGB; clamped to [-1, 1], rounded to nearest.

    Raises `ValueError` for another shape or type, or values that are not finite.
    """
    if tensor.ndim != 3 or tensor.shape[0] != 3 or not tensor.is_floating_point():
        raise ValueError(f"expected floats of shape (3, H, W), got {tensor.dtype} {tuple(tensor.shape)}")
    values = tensor.detach().to("cpu", torch.float32)
    if not values.isfinite().all():
        raise ValueError("an image with values that are not finite")
    levels = values.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def resize_short_side(image: Image.Image, size: int) -> Image.Image:
    """The image scaled, antialiased (bicubic), so that its short side is `size`; itself if that is so already.

    The long side is rounded. Raises `ImageError` for a strip so thin that the result had more than `MAX_PIXELS`.
    """
    short = min(image.size)
    if short == size:
        return image
    width, height = (round(side * size / short) for side in image.size)
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"an image of {image.width}x{image.height} is too thin to be scaled to a short side of {size}; crop it"
        )
    return image.resize((width, height), Image.Resampling.BICUBIC)


def write_image(image: Image.Image, path: Path, quality: int | None = None) -> None:
    """Write the image in the format of the path's ending, all of it or nothing; makes the folders it needs.

    `quality`, 1 … 100, is that of JPEG, WebP and AVIF, 95 by default; from 95 on JPEG keeps colour at full resolution.
    Raises `UserError`, one line with the file's name, when it can't be written.
    """
    suffix = path.suffix.lower()
    form = _ENDINGS.get(suffix)
    if form is None or form not in Image.SAVE:
        raise UserError(
            f"{escape(path)}: can't write {escape(suffix) or 'a file without an ending'}; use .png, .jpg or .webp"
        )
    options: dict[str, int] = {}
    if form in _LOSSY:
        options["quality"] = _LOSSY_QUALITY if quality is None else quality
        if form == "JPEG" and options["quality"] >= 95:
            options["subsampling"] = 0  # 4:4:4
    if form == "PNG":
        options["compress_level"] = 1  # three times as fast as the usual 6, for files of a tenth to a quarter more
    content = io.BytesIO()
    try:
        image.save(content, format=form, **options)
    except Exception as error:  # encoders, too, raise anything
        raise UserError(f"{escape(path)}: can't be written: {_detail(error)}") from error
    atomic_write(path, content.getvalue(), sync=False)


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Silence Pillow's warnings, and turn whatever goes wrong into one `ImageError` that names the file."""
    try:
        # Process-wide before Python 3.14: a warning of Pillow's may show when threads read at once, and no worse.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    except Exception as error:  # damaged files make decoders raise anything
        raise ImageError(f"{escape(path)}: {_why_unread(error)}") from error


def _require_content(path: Path) -> int:
    """The size in bytes of what must be an ordinary file with something in it."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("is a folder, not an image")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise ImageError("is no ordinary file")
    if status.st_size == 0:
        raise ImageError("the file is empty; replace or remove it")
    return status.st_size


def _read(path: Path, max_pixels: int, short_side: int | None) -> Image.Image:
    """`read_image` with errors of any type, `ImageError` without the file's name."""
    _require_content(path)
    with path.open("rb") as file, _open(file) as image:
        if image.width * image.height > max_pixels:
            raise ImageError(f"{image.width}x{image.height} is more than {max_pixels} pixels; make it smaller")
        if image.format in ("JPEG", "MPO"):
            _require_few_scans(file)
            if short_side is not None:
                _draft(image, short_side)
        _load(image)
        upright = _UPRIGHT.get(_orientation(image))  # after loading: PNG may keep EXIF behind the image
        rgb = to_rgb(image)
    rgb.info = {}  # a profile that has been applied must not be written out again
    return rgb if upright is None else rgb.transpose(upright)


def _open(file: BinaryIO) -> Image.Image:
    """The header, nothing decoded. Content decides, not the ending."""
    try:
        return Image.open(file, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        try:
            with _pillow_limit_of(None):
                return Image.open(file, formats=[name for name in _FORMATS if name != "ICO"])
        except UnidentifiedImageError:  # an icon would be decoded here
            raise ImageError("an icon that holds a giant image; make it smaller") from error


def _draft(image: Image.Image, short_side: int) -> None:
    """Have a JPEG decoded at the smallest size that is good enough for `short_side`."""
    n = next((n for n, margin in _DRAFTS if min(image.size) >= n * margin * short_side), 1)
    image.draft(None, (image.width // n, image.height // n))


def _load(image: Image.Image) -> None:
    """Decode. TIFF asks for Pillow's limit again, and so do icons, which may hold more than they say."""
    try:
        image.load()
    except Image.DecompressionBombError as error:
        if image.format != "TIFF":
            raise ImageError("holds a larger image than it says; make it smaller") from error
        with _pillow_limit_of(None):
            image.load()


@contextmanager
def _pillow_limit_of(pixels: int | None) -> Iterator[None]:
    """Pillow's own limit, below ours, belongs to the process: changed for one file, by one thread at a time."""
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _require_few_scans(file: BinaryIO) -> None:
    """Each scan of a JPEG goes over the whole image, and may be a few bytes long: thousands of them take hours."""
    place = file.tell()
    file.seek(0)
    # Whatever stands around the scans (thumbnails, a film behind them) may hold this too: then they are counted one by
    # one, which takes longer.
    if sum(block.count(b"\xff\xda") for block in iter(lambda: file.read(2**20), b"")) > _MOST_SCANS:
        file.seek(0)
        if _scans(file.read()) > _MOST_SCANS:
            raise ImageError(f"a JPEG of more than {_MOST_SCANS} scans, which would take hours; save it anew")
    file.seek(place)


def _scans(jpeg: bytes) -> int:
    count = place = 0
    while (marker := _JPEG_MARKER.search(jpeg, place)) and marker[1] != b"\xd9":
        count += marker[1] == b"\xda"
        place = marker.end()
        if marker[1] != b"\xd8":  # all but the start have a length, which counts its own two bytes
            place += int.from_bytes(jpeg[place : place + 2])
    return count


def _orientation(image: Image.Image, decoded: bool = True) -> int:
    """As in EXIF, 1 is upright. (Pillow's `exif_transpose` also rewrites the metadata, and fails where it's broken.)"""
    try:
        # A PNG's own `getexif` decodes the image to look behind it.
        exif = image.getexif() if decoded else Image.Image.getexif(image)
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken EXIF is no reason to lose the photograph
        return 1


def _is_misnamed(path: Path, form: str) -> bool:
    expected = _ENDINGS.get(path.suffix.lower(), form)
    return _KIN.get(expected, expected) != _KIN.get(form, form)


def _is_deep(image: Image.Image) -> bool:
    """Whether a channel has more than 8 bits; of colour, only the decoder's arguments say so, e.g. "RGB;16B"."""
    return image.mode.startswith("I") or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _has_frames(image: Image.Image) -> bool:
    """More than one frame or page; the second image in a phone's JPEG (MPO) is no frame but, say, a depth map."""
    with suppress(Exception):  # the first frame may be fine where the second is damaged
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    return False


def _apart(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colours of 8 bits a channel, without palette or alpha, and the alpha (None: opaque)."""
    if image.mode == "F":
        raise ImageError(_NO_WHITE)
    if image.mode.startswith("I"):
        return _from_16_bits(image), None
    if image.has_transparency_data:
        if image.mode in ("L", "LA", "La"):
            gray, alpha = image.convert("LA").split()
            return gray, alpha
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    return (image.convert("RGB") if image.mode == "P" else image), None


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("holds integers outside 0 … 65535; convert it to 8- or 16-bit PNG or TIFF")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))  # 65535 = 255 * 257


@lru_cache(maxsize=8)  # the photographs of one folder mostly share a few profiles
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From the profile's colours to sRGB, or None where that is broken, for other channels, or changes nothing."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        transform = ImageCms.ImageCmsTransform(source, srgb, mode, "RGB")  # raises where profile and mode don't fit
        noise = np.random.default_rng(0).bytes(64 * 64 * len(Image.new(mode, (1, 1)).getbands()))
        probe = Image.frombytes(mode, (64, 64), noise)
        change = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
    except Exception:  # a broken profile is no reason to lose the photograph
        return None
    return transform if np.abs(change).max() > _SRGB_TOLERANCE else None


def _why_unread(error: Exception) -> str:
    """What is wrong with a file and what to do, in one line."""
    match error:
        case ImageError():
            return str(error)
        case FileNotFoundError():
            return "no such file"
        case PermissionError():
            return "no permission to read it"
        case UnidentifiedImageError():
            return "is no image that can be read here; convert it to PNG or JPEG, or remove it"
        case MemoryError():
            return "too large for this machine's memory; make it smaller"
        case OSError(strerror=str()):
            return f"can't be read: {_detail(error)}"
        case _:
            return f"damaged or cut short ({_detail(error)}); replace or remove it"


def _detail(error: Exception) -> str:
    """The error's own words, in one printable line."""
    text = str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error)
    return escape(" ".join(text.split()))[:200] or type(error).__name__

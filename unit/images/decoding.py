"""Image file → everything that a translation of it should keep: frames, alpha, depth, metadata."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from unit.errors import ImageError
from unit.files import require_regular_file
from unit.images.color import over_white, profile_transform, srgb_transform, to_rgb_and_alpha
from unit.images.deep import Levels, has_deep_colors, is_gray_with_alpha, read_deep
from unit.images.formats import MAX_BYTES, MAX_PIXELS
from unit.images.heic import is_heic, open_heic
from unit.images.icc import parse_profile
from unit.images.metadata import Metadata, read_metadata
from unit.images.reading import (
    TRANSPOSE_BY_ORIENTATION,
    bytes_per_pixel,
    image_errors,
    is_deep,
    load_image,
    open_image,
    orientation_of,
    require_few_scans,
    require_memory,
)

T = TypeVar("T", Image.Image | Levels, Image.Image | Levels | None)

_ANIMATED_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
_BYTES_PER_DEEP_PIXEL, _BYTES_PER_FRAME_PIXEL = 40, 40
"""Peak memory of decoding 16 bits a channel, and of each further frame of an animation until its translation is written
(measured: 21 and 38)."""


@dataclass(frozen=True)
class Frame:
    """An upright image in sRGB, or its translation."""

    colors: Image.Image | Levels
    """8-bit RGB; or 16 bits, (H, W, 3). Where nothing shows (alpha 0) they are white."""
    alpha: Image.Image | Levels | None = None
    """8-bit L; or (H, W). None: opaque."""
    duration: float = 0
    """in an animation, in milliseconds"""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        if isinstance(self.colors, Image.Image):
            return self.colors.size
        return self.colors.shape[1], self.colors.shape[0]


@dataclass(frozen=True)
class DecodedImage:
    """An image file's content, or its translation."""

    format: str
    """Pillow's name of the file's format: JPEG, PNG, …"""
    frames: tuple[Frame, ...]
    """of an animation; else one"""
    plays: int = 0
    """how often an animation plays; 0: forever"""
    gray: bool = False
    """the file holds no colours"""
    metadata: Metadata = field(default_factory=Metadata)
    lost: tuple[str, ...] = ()
    """names of what the file holds but can't be kept"""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        return self.frames[0].size

    @property
    def deep(self) -> bool:
        """True for 16 bits a channel."""
        return not isinstance(self.frames[0].colors, Image.Image)


def read_image_file(path: Path, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode a file.

    Raises:
        ImageError: as `read_image`.
        ConfigError: the file needs a package that isn't installed.
    """
    with image_errors(path):
        require_regular_file(path, MAX_BYTES)
        with path.open("rb") as file:
            return _decode(file, max_pixels)


def decode_bytes(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode a file's content; errors, as those of `read_image_file`, call it by this name."""
    with image_errors(name):
        return _decode(io.BytesIO(content), max_pixels)


@dataclass(frozen=True)
class Extent:
    """How much an image file holds, from its header."""

    width: int
    """as stored"""
    height: int
    frames: int
    """of an animation; else 1"""
    deep: bool
    """16 bits a channel"""


def read_extent(path: Path) -> Extent:
    """Read how much a file holds, without decoding it; raises as `read_image_file` does."""
    with image_errors(path):
        require_regular_file(path, MAX_BYTES)
        with path.open("rb") as file:
            return _measure(file)


def measure_bytes(content: bytes, name: str) -> Extent:
    """Return how much a file's content holds, without decoding it; raises as `decode_bytes` does."""
    with image_errors(name):
        return _measure(io.BytesIO(content))


def _measure(file: BinaryIO) -> Extent:
    with _open(file) as image:
        count, deep, _ = _plan(image, _color_mode(image))
        return Extent(*image.size, count, deep)


def _decode(file: BinaryIO, max_pixels: int) -> DecodedImage:
    with _open(file) as image:
        if image.width * image.height > max_pixels:
            raise ImageError(f"{image.width}x{image.height} is more than {max_pixels} pixels; make it smaller")
        if image.format in ("JPEG", "MPO"):
            require_few_scans(file)
        mode = _color_mode(image)
        stored = orientation_of(image, decoded=False)  # a TIFF turns when it is loaded, and forgets it
        count, deep, lost = _plan(image, mode)
        per_pixel = _BYTES_PER_DEEP_PIXEL if deep else bytes_per_pixel(image)
        require_memory(image.size, per_pixel + (count - 1) * _BYTES_PER_FRAME_PIXEL)
        frames = [_deep_frame(image, file, mode)] if deep else list(_frames(image, count))
        orientation = orientation_of(image)  # after loading: PNG may keep EXIF at its end
        metadata, unkept = read_metadata(image, rotated=not {stored, orientation}.isdisjoint((5, 6, 7, 8)))
        profile = image.info.get("icc_profile")
        carried = profile and next((m for m in (mode, "RGB") if m != "CMYK" and profile_transform(profile, m)), None)
        if carried:
            metadata = replace(metadata, profile=profile, profile_mode=carried)
        elif profile:
            unkept.append("its ICC profile (the output is in sRGB)")
        if mode == "CMYK":
            unkept.append("CMYK (the output is in RGB)")
        return DecodedImage(
            format="JPEG" if image.format == "MPO" else str(image.format),
            frames=tuple(_upright(frame, orientation) for frame in frames),
            plays=_plays(image),
            gray=mode == "L",
            metadata=metadata,
            lost=(*lost, *unkept),
        )


def _plan(image: Image.Image, mode: str) -> tuple[int, bool, list[str]]:
    """Return the number of frames to decode, whether at 16 bits, and the names of what is left out."""
    lost = []
    count = getattr(image, "n_frames", 1)
    if count > 1 and image.format not in _ANIMATED_FORMATS:
        lost.append("a gain or depth map" if image.format == "MPO" else "further pages or images")
        count = 1
    deep = count == 1 and has_deep_colors(image)
    profile = image.info.get("icc_profile")
    if deep and profile and srgb_transform(profile, mode):
        parsed = parse_profile(profile)
        if parsed is None or len(parsed.curves) != len(mode):
            lost.append("16 bits a channel, as its ICC profile holds tables")
            deep = False
    elif not deep and (is_deep(image) or image.info.get("bit_depth", 8) > 8):
        lost.append("more than 8 bits a channel")
    return count, deep, lost


def _color_mode(image: Image.Image) -> str:
    """Return the mode that an ICC profile of an opened, not yet loaded image describes: L, RGB or CMYK."""
    if image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I") or is_gray_with_alpha(image):
        return "L"
    return "CMYK" if image.mode == "CMYK" else "RGB"


def _open(file: BinaryIO) -> Image.Image:
    try:
        return open_image(file)
    except UnidentifiedImageError:
        file.seek(0)
        if not is_heic(file.read(16)):
            raise
        return open_heic(file)


def _frames(image: Image.Image, count: int) -> Iterator[Frame]:
    """Decode the frames of an animation, or the one image."""
    first = int(count > 1 and bool(image.info.get("default_image")))  # for programs that can't play an animated PNG
    for index in range(first, count):
        if index:
            image.seek(index)
        load_image(image)
        rgb, alpha = to_rgb_and_alpha(image)
        rgb.info = {}  # an applied profile must not be written out again
        if alpha is not None and alpha.getextrema() == (255, 255):
            alpha = None
        if alpha is not None:  # what hides where nothing shows is arbitrary
            rgb = over_white(rgb, alpha.point([0] + [255] * 255))
        yield Frame(rgb, alpha, float(image.info.get("duration") or 0) if count > 1 else 0)


def _deep_frame(image: Image.Image, file: BinaryIO, mode: str) -> Frame:
    def reopen() -> Image.Image:
        file.seek(0)
        return open_image(file)

    levels = read_deep(image, reopen, load_image)
    colors, alpha = levels, None
    key = image.info.get("transparency")
    if levels.ndim == 3 and levels.shape[2] in (2, 4):
        colors, alpha = levels[..., :-1], np.ascontiguousarray(levels[..., -1])
    elif isinstance(key, tuple | int):
        alpha = np.where(np.all(levels.reshape(*levels.shape[:2], -1) == key, -1), 0, 65535).astype(np.uint16)
    profile = image.info.get("icc_profile")
    if profile and srgb_transform(profile, mode) and (parsed := parse_profile(profile)):
        colors = parsed.to_srgb(colors)
    elif mode == "L":
        colors = np.broadcast_to(colors.reshape(*colors.shape[:2], 1), (*colors.shape[:2], 3))
    if alpha is not None and alpha.min() == 65535:
        alpha = None
    if alpha is not None:
        colors = np.where(alpha[..., None] == 0, np.uint16(65535), colors)
    return Frame(np.ascontiguousarray(colors), alpha)


def _upright(frame: Frame, orientation: int) -> Frame:
    return replace(frame, colors=_turned(frame.colors, orientation), alpha=_turned(frame.alpha, orientation))


def _turned(pixels: T, orientation: int) -> T:
    transpose = TRANSPOSE_BY_ORIENTATION.get(orientation)
    if pixels is None or transpose is None:
        return pixels
    if isinstance(pixels, Image.Image):
        return pixels.transpose(transpose)
    if orientation in (5, 7):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 4):
        return np.ascontiguousarray(np.flip(pixels, axis=orientation == 2))
    return np.ascontiguousarray(np.rot90(pixels, {3: 2, 5: 0, 6: 3, 7: 2, 8: 1}[orientation]))


def _plays(image: Image.Image) -> int:
    """Return how often an animation plays; 0: forever. A GIF says how often it is repeated, or nothing."""
    loop = image.info.get("loop")
    if image.format != "GIF":
        return int(loop or 0)
    return 1 if loop is None else loop and int(loop) + 1

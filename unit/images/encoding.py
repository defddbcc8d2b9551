"""A decoded image, or its translation → the bytes of a file in any format that Pillow writes."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageChops

from unit.images.color import into_profile, over_white, srgb_transform
from unit.images.decoding import DecodedImage, Frame
from unit.images.deep import Levels, write_deep
from unit.images.icc import parse_profile
from unit.images.metadata import METADATA_FORMATS, Mark, Metadata, save_options

T = TypeVar("T", Image.Image | Levels, Image.Image | Levels | None)
ANIMATED_FORMATS = ("PNG", "WEBP", "AVIF", "GIF")
_LOSSY_FORMATS = ("JPEG", "WEBP", "AVIF")
_LOSSY_QUALITY = 95
_ALPHA_FORMATS = ("PNG", "WEBP", "TIFF", "AVIF", "GIF")
_GRAY_FORMATS = ("PNG", "TIFF", "JPEG")
_DEEP_FORMATS = ("PNG", "TIFF")
_GRAY_TOLERANCE = 2
_GIF_TRANSPARENT = 255
"""index in the palette"""


def encode(
    image: DecodedImage,
    image_format: str,
    quality: int | None = None,
    *,
    gray: bool = False,
    mark: Mark | None = None,
) -> tuple[bytes, list[str]]:
    """Encode an image with its alpha, depth, frames and metadata, as far as the format holds them.

    Args:
        image: in sRGB; it is converted into the ICC profile of its metadata, which the output carries.
        image_format: Pillow's name: PNG, JPEG, …
        quality: 1 … 100 for JPEG, WebP and AVIF, 95 by default; from 95 on, JPEG keeps chroma at full resolution.
        gray: write luminance alone.
        mark: added to the image's own metadata; None: the software tag alone.

    Returns:
        The file's content, and the names of what it can't hold.

    Raises:
        Exception: of any type, from the format's encoder.
    """
    frames, lost = _fitting_frames(image, image_format)
    try:
        content, unkept = _encode(replace(image, frames=frames), image_format, quality, gray, mark)
    except Exception:
        metadata = Metadata(profile=image.metadata.profile, profile_mode=image.metadata.profile_mode)
        if image.metadata == metadata:
            raise
        # Damaged metadata, which only the encoder notices, are no reason to lose the image.
        content, unkept = _encode(replace(image, frames=frames, metadata=metadata), image_format, quality, gray, mark)
        unkept.append("damaged metadata")
    return mark.seal(content) if mark else content, lost + unkept


def _encode(
    image: DecodedImage, image_format: str, quality: int | None, gray: bool, mark: Mark | None
) -> tuple[bytes, list[str]]:
    """Encode frames that the format can hold."""
    metadata, frames = image.metadata, image.frames
    options, unkept = save_options(metadata, image_format, mark)
    profile = metadata.profile if image_format in METADATA_FORMATS else None
    mode = "L" if gray and image_format in _GRAY_FORMATS and not (profile and metadata.profile_mode == "RGB") else "RGB"
    if profile and metadata.profile_mode != mode:
        profile = None
        del options["icc_profile"]
        unkept.append("the ICC profile of a gray image")
    pixels = [_merge(_in_profile(_luminance(f.colors) if gray else f.colors, profile, mode), f.alpha) for f in frames]
    if image_format == "GIF":
        pixels = [_with_palette(frame) for frame in pixels]
        unkept.append("more than 256 colours")
    if len(frames) > 1:
        options |= _animation_options(image, image_format) | {"append_images": pixels[1:]}
        if image_format == "AVIF" and image.plays:
            unkept.append("how often the animation plays")
    return _encoded(pixels[0], image_format, options | _quality_options(image_format, quality)), unkept


def _quality_options(image_format: str, quality: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if image_format in _LOSSY_FORMATS:
        options["quality"] = _LOSSY_QUALITY if quality is None else quality
        if image_format == "JPEG" and options["quality"] >= 95:
            options["subsampling"] = 0  # 4:4:4
    if image_format == "PNG":
        options["compress_level"] = 1  # three times as fast as the default 6, for files 10 % to 25 % larger
    return options


def has_gray_colors(image: DecodedImage) -> bool:
    """True if a file holds no colours: its mode has none, or its channels are the same, up to a profile's rounding."""
    return image.gray or all(_spread(frame.colors) <= _GRAY_TOLERANCE for frame in image.frames)


def _spread(colors: Image.Image | Levels) -> int:
    """Return the largest difference between two channels of a pixel, in levels of 255."""
    if isinstance(colors, Image.Image):
        red, green, blue = colors.split()
        pairs = ((red, green), (green, blue))
        return max(int(ImageChops.difference(*pair).getextrema()[1]) for pair in pairs)  # type: ignore[arg-type]
    return int((colors.max(axis=2) - colors.min(axis=2)).max()) // 257


def _fitting_frames(image: DecodedImage, image_format: str) -> tuple[tuple[Frame, ...], list[str]]:
    """Return the frames as the format can hold them, and the names of what it can't."""
    frames, lost = image.frames, []
    if len(frames) > 1 and image_format not in ANIMATED_FORMATS:
        frames = frames[:1]
        lost.append("frames after the first")
    if image.deep and image_format not in _DEEP_FORMATS:
        frames = tuple(replace(f, colors=to_8_bits(f.colors), alpha=to_8_bits(f.alpha)) for f in frames)
        lost.append("16 bits a channel")
    if image_format not in _ALPHA_FORMATS and any(frame.alpha is not None for frame in frames):
        frames = tuple(Frame(_over_white(frame), None, frame.duration) for frame in frames)
        lost.append("transparency (it became white)")
    return frames, lost


def _over_white(frame: Frame) -> Image.Image | Levels:
    colors, alpha = frame.colors, frame.alpha
    if isinstance(colors, Image.Image):
        return over_white(colors, alpha if isinstance(alpha, Image.Image) else None)
    if not isinstance(alpha, np.ndarray):
        return colors
    opacity = alpha[..., None] / np.float32(65535)
    blended: Levels = np.rint(colors * opacity + 65535 * (1 - opacity)).astype(np.uint16)
    return blended


def to_8_bits(pixels: T) -> T | Image.Image:
    """Scale 65535ths to 8 bits by 1/257; 8-bit images are returned as they are."""
    if not isinstance(pixels, np.ndarray):
        return pixels
    return Image.fromarray(((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _luminance(colors: Image.Image | Levels) -> Image.Image | Levels:
    if isinstance(colors, Image.Image):
        return colors.convert("L")
    weights = np.array([0.299, 0.587, 0.114], np.float32)  # as Pillow's
    gray: Levels = np.rint(np.minimum(colors @ weights, 65535)).astype(np.uint16)
    return gray


def _in_profile(colors: Image.Image | Levels, profile: bytes | None, mode: str) -> Image.Image | Levels:
    """Convert sRGB, or its luminance, to a mode (L or RGB) in a profile."""
    if isinstance(colors, Image.Image):
        if profile is None:
            return colors.convert(mode)
        return into_profile(colors.convert("RGB"), profile, mode)
    if mode == "RGB" and colors.ndim == 2:
        colors = np.repeat(colors[..., None], 3, axis=2)
    if profile and srgb_transform(profile, mode) and (parsed := parse_profile(profile)):
        return parsed.from_srgb(colors)
    return colors


def _merge(colors: Image.Image | Levels, alpha: Image.Image | Levels | None) -> Image.Image | Levels:
    if isinstance(colors, Image.Image):
        merged = colors.copy()
        merged.info = {}  # the options alone say what is written
        if isinstance(alpha, Image.Image):
            merged.putalpha(alpha)
        return merged
    return colors if not isinstance(alpha, np.ndarray) else np.dstack([colors, alpha])


def _with_palette(pixels: Image.Image | Levels) -> Image.Image:
    """Reduce RGB or RGBA to a GIF's palette, dithered; what is less than half opaque becomes transparent."""
    image = to_8_bits(pixels)
    assert isinstance(image, Image.Image)
    rgb = image.convert("RGB")
    palette = rgb.quantize(_GIF_TRANSPARENT, Image.Quantize.MEDIANCUT)
    indexed = rgb.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    if image.mode == "RGBA":
        indexed.paste(_GIF_TRANSPARENT, mask=image.getchannel("A").point([255] * 128 + [0] * 128))
        indexed.info["transparency"] = _GIF_TRANSPARENT
    return indexed


def _animation_options(image: DecodedImage, image_format: str) -> dict[str, Any]:
    frames = image.frames
    options: dict[str, Any] = {"save_all": True, "duration": [round(frame.duration) for frame in frames]}
    if image_format == "GIF":
        options["disposal"] = 2 if any(frame.alpha is not None for frame in frames) else 1
        if image.plays != 1:  # a GIF says how often it is repeated, if it is
            options["loop"] = max(image.plays - 1, 0)
    elif image_format != "AVIF":
        options["loop"] = image.plays
    return options


def _encoded(pixels: Image.Image | Levels, image_format: str, options: dict[str, Any]) -> bytes:
    if isinstance(pixels, np.ndarray):
        return write_deep(pixels, image_format, options)
    out = io.BytesIO()
    pixels.save(out, format=image_format, **options)
    return out.getvalue()

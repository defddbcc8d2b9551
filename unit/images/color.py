"""Any mode and ICC profile → 8-bit sRGB, and back into a profile."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from unit.errors import ImageError

_SRGB_TOLERANCE = 2  # levels; common sRGB profiles differ by no more
NO_WHITE = "holds floating-point numbers with no known white; convert it to 8- or 16-bit PNG or TIFF"


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any image to 8-bit RGB in sRGB, as `read_image` does but for the orientation.

    Raises:
        ImageError: floats, or integers outside 0 … 65535, which have no known white.
    """
    return over_white(*to_rgb_and_alpha(image))


def to_rgb_and_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours, as `to_rgb` does but not blended with white, and the alpha channel (None: opaque)."""
    # The profile describes the colours alone, so it is applied before they are blended with white.
    colors, alpha = split_alpha(image)
    profile = image.info.get("icc_profile")
    transform = srgb_transform(profile, colors.mode) if profile else None
    return transform.apply(colors) if transform else colors.convert("RGB"), alpha


def over_white(rgb: Image.Image, alpha: Image.Image | None) -> Image.Image:
    """Blend colours with white where they are transparent."""
    if alpha is None:
        return rgb
    white = Image.new("RGB", rgb.size, "white")
    white.paste(rgb, mask=alpha)
    return white


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return 8-bit colours without palette or alpha, and the alpha channel (None: opaque)."""
    if image.mode == "F":
        raise ImageError(NO_WHITE)
    if image.mode.startswith("I"):
        return gray_from_16_bits(image), None
    if image.has_transparency_data:
        if image.mode in ("L", "LA", "La"):
            gray, alpha = image.convert("LA").split()
            return gray, alpha
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    return (image.convert("RGB") if image.mode == "P" else image), None


def gray_from_16_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit gray by 1/257 to 8 bits; raises `ImageError` as `to_rgb` does."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("holds integers outside 0 … 65535; convert it to 8- or 16-bit PNG or TIFF")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))  # 65535 = 255 * 257


@lru_cache(maxsize=8)  # a folder's photos mostly share a few profiles
def srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
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


@lru_cache(maxsize=8)
def profile_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from sRGB into a profile; None if it is broken, for other channels, or for reading only."""
    try:
        target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        return ImageCms.ImageCmsTransform(srgb, target, "RGB", mode)
    except Exception:
        return None


def into_profile(rgb: Image.Image, profile: bytes, mode: str) -> Image.Image:
    """Convert sRGB into a profile that `profile_transform` accepts: the inverse of what `to_rgb` does with it."""
    transform = profile_transform(profile, mode) if srgb_transform(profile, mode) else None
    return transform.apply(rgb) if transform else rgb.convert(mode)

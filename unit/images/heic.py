"""HEIC by the optional package pillow-heif, without entering it into Pillow's registry, which training reads with."""

from __future__ import annotations

import importlib.util
from typing import BinaryIO

from PIL import Image

from unit.errors import ConfigError

MISSING = "the package pillow-heif is not installed; pip install pillow-heif"
_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def is_installed() -> bool:
    """True if pillow-heif is there."""
    return importlib.util.find_spec("pillow_heif") is not None


def is_heic(head: bytes) -> bool:
    """True if a file that begins so is HEIC, or HEIF of another codec."""
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS


def open_heic(file: BinaryIO) -> Image.Image:
    """Open a HEIC file's primary image; nothing is decoded.

    Raises:
        ConfigError: pillow-heif is not installed.
    """
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ConfigError(MISSING) from error
    file.seek(0)
    image: Image.Image = HeifImageFile(file)  # type: ignore[no-untyped-call]
    return image

"""The image formats that are read: by Pillow's name, by suffix and by content."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path

from PIL import Image

from unit.files import require_regular_file

MAX_BYTES = 2**31
"""Larger files are refused; `MAX_PIXELS` of 16 bits with alpha, uncompressed, take 1.6 GB."""
MAX_PIXELS = 200_000_000
"""Larger images are refused by their header: 200 megapixels take 800 MB in Pillow, and up to 3 GB with alpha."""

# EPS starts Ghostscript, and IPTC opens its payload as any format, EPS included; WMF needs Windows; MPEG, GRIB, BUFR
# and HDF5 are only identified, not decoded; FITS holds physical quantities. Pillow can't read PDF.
_EXCLUDED_FORMATS = {"EPS", "IPTC", "WMF", "MPEG", "GRIB", "BUFR", "HDF5", "FITS"}

logging.getLogger("PIL").setLevel(logging.CRITICAL)  # its log messages name no file; `ImageError` does
Image.init()  # register every format now rather than at the first unknown file
FORMATS_BY_SUFFIX = dict(Image.registered_extensions())
# Formats without a suffix of their own (SPIDER, MCIDAS) have weak signatures and accept files of other kinds.
FORMATS = tuple(name for name in Image.ID if name in FORMATS_BY_SUFFIX.values() and name not in _EXCLUDED_FORMATS)

SUFFIXES: frozenset[str] = frozenset(
    {".mpo"} | {suffix for suffix, name in FORMATS_BY_SUFFIX.items() if name in FORMATS}
)
"""Suffixes of image files, in lower case (Pillow registers none for MPO)."""
HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
"""Suffixes of what pillow-heif reads, where it is installed."""

_UNSUPPORTED = """
avci avif avifs heic heics heif heifs hif jxl jxr wdp hdp
3fr arw cr2 cr3 crw dcr dng erf fff gpr iiq k25 kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f
afphoto ai cdr clip djvu emf eps exr fits hdr kra pct pdn pic pict procreate ps psb svg svgz wmf xcf xwd
"""
_VIDEOS = "3g2 3gp asf avi flv gifv m2ts m4v mkv mov mp4 mpe mpeg mpg mts ogv qt vob webm wmv"
VIDEO_SUFFIXES = frozenset("." + suffix for suffix in _VIDEOS.split())
"""Suffixes of videos, in lower case; not .ts, which is mostly TypeScript."""
UNSUPPORTED_SUFFIXES = frozenset("." + suffix for suffix in _UNSUPPORTED.split()) - SUFFIXES | VIDEO_SUFFIXES
"""Suffixes of images and videos that can't be read, in lower case."""
# JPEG, PNG, GIF, TIFF; those of WebP, and of HEIC, AVIF and videos (ISO media), follow a size.
_SIGNATURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|II\*\0|MM\0\*|RIFF....WEBP|....ftyp", re.DOTALL)

_SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP", "CUR": "ICO"}  # distinct only to Pillow


def is_misnamed(path: Path, image_format: str) -> bool:
    """True if the suffix belongs to another format than Pillow found in the file."""
    expected = FORMATS_BY_SUFFIX.get(path.suffix.lower(), image_format)
    return _SAME_FORMAT.get(expected, expected) != _SAME_FORMAT.get(image_format, image_format)


def has_image_content(path: Path) -> bool:
    """True if a file begins as images or videos of the common formats do, whatever its name."""
    with suppress(OSError):
        require_regular_file(path, MAX_BYTES)
        with path.open("rb") as file:
            return _SIGNATURE.match(file.read(16)) is not None
    return False

"""What an image file says besides its pixels, and how each format takes it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import ExifTags, Image, PngImagePlugin

SOFTWARE = "UNIT image translation"
"""The beginning of the software tag of every output."""
# Tags that say how a TIFF stores its pixels (its orientation too), or lie elsewhere in `Metadata` (resolution, XMP,
# ICC), or that no other format takes as tags (IPTC, Photoshop's).
_STORAGE_TAGS = frozenset(
    tag
    for first, last in ((254, 266), (273, 284), (288, 293), (296, 297), (301, 301), (317, 347), (512, 521), (529, 532))
    for tag in (*range(first, last + 1), 700, 33723, 34377, 34675)
)
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>\s*))[2-8]""")
_MAX_SEGMENT = 65_500
"""bytes of EXIF and of XMP in a JPEG"""
_DPI_FORMATS = ("JPEG", "PNG", "TIFF")
METADATA_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")


class Mark(Protocol):
    """What an output says about itself."""

    @property
    def software(self) -> str:
        """EXIF software tag, or a GIF's comment, which begins with `SOFTWARE`; empty: the input's own stays."""

    def xmp(self, existing: bytes | None = None) -> bytes:
        """Return an XMP packet that adds the mark to an existing one; empty: none."""

    def seal(self, content: bytes) -> bytes:
        """Return the content of the output's file, with a signature if there is one."""


@dataclass(frozen=True)
class Metadata:
    """Metadata of an upright image."""

    exif: bytes = b""
    """as Pillow's `Exif.tobytes` gives it, without the orientation and the thumbnail"""
    xmp: bytes | None = None
    profile: bytes | None = None
    """the ICC profile that the output is to carry"""
    profile_mode: str = "RGB"
    """the mode that the profile describes: RGB or L"""
    dpi: tuple[float, float] | None = None
    text: tuple[tuple[str, str], ...] = ()
    """text chunks of a PNG"""


def read_metadata(image: Image.Image, rotated: bool) -> tuple[Metadata, list[str]]:
    """Return a loaded image's metadata but for the profile, and the names of what can't be kept.

    Args:
        image: loaded.
        rotated: width and height, as stored, are exchanged.
    """
    lost = []
    try:
        exif = _upright_exif(image.getexif(), rotated)
    except Exception:  # broken EXIF is no reason to lose the photo
        exif = b""
        lost.append("damaged EXIF")
    xmp = image.info.get("xmp")
    xmp = xmp.encode() if isinstance(xmp, str) else xmp if isinstance(xmp, bytes) else None
    if "photoshop" in image.info or 33723 in getattr(image, "tag_v2", ()):
        lost.append("IPTC captions")
    text = getattr(image, "text", {}) if image.format == "PNG" else {}
    return Metadata(
        exif=exif,
        xmp=xmp and _XMP_ORIENTATION.sub(rb"\g<1>1", xmp.rstrip(b"\0")),
        dpi=_dpi(image.info.get("dpi"), rotated),
        text=tuple(
            (str(key), str(value)) for key, value in text.items() if not key.startswith(("XML:", "Raw profile"))
        ),
    ), lost


def save_options(metadata: Metadata, image_format: str, mark: Mark | None) -> tuple[dict[str, Any], list[str]]:
    """Return Pillow's options that write metadata and mark, and the names of what the format can't hold."""
    software = mark.software if mark else SOFTWARE
    xmp = mark.xmp(metadata.xmp) if mark else metadata.xmp
    if image_format == "GIF":
        lost = ["metadata"] * bool(metadata.exif or metadata.xmp or metadata.profile)
        return {"comment": software.encode()} if software else {}, lost
    if image_format not in METADATA_FORMATS:
        return {}, ["metadata"] * bool(metadata.exif or metadata.xmp or metadata.profile or metadata.dpi)
    options: dict[str, Any] = {}
    lost = []
    exif = _exif(metadata, software, with_dpi=image_format not in _DPI_FORMATS)
    if image_format == "JPEG" and len(exif.tobytes()) > _MAX_SEGMENT:
        lost.append("EXIF of more than 64 KB")
        exif = _exif(Metadata(), software, with_dpi=False)
    if xmp and image_format == "JPEG" and len(xmp) > _MAX_SEGMENT:
        lost.append("XMP of more than 64 KB")
        xmp = mark.xmp() if mark else None
    if xmp and image_format == "TIFF":
        exif[ExifTags.Base.XMLPacket] = xmp
    elif xmp and image_format != "PNG":
        options["xmp"] = xmp
    if image_format == "PNG":
        options["pnginfo"] = _png_text(metadata.text, xmp)
    elif metadata.text:
        lost.append("PNG text")
    if metadata.dpi and image_format in _DPI_FORMATS:
        options["dpi"] = metadata.dpi
    if metadata.profile:
        options["icc_profile"] = metadata.profile
    return options | {"exif": exif}, lost


def _upright_exif(exif: Image.Exif, rotated: bool) -> bytes:
    """Serialize EXIF without orientation, thumbnail (it shows the input) and the tags of a TIFF's storage."""
    kept = Image.Exif()
    for tag in exif:
        if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            kept[tag] = dict(exif.get_ifd(tag))
        elif tag not in _STORAGE_TAGS:
            kept[tag] = exif[tag]
    photo = kept.get(ExifTags.IFD.Exif, {})
    if ExifTags.IFD.Interop in photo:
        photo[ExifTags.IFD.Interop] = exif.get_ifd(ExifTags.IFD.Interop)
    width, height = ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight
    if rotated and width in photo and height in photo:
        photo[width], photo[height] = photo[height], photo[width]
    return kept.tobytes() if len(kept) else b""


def _exif(metadata: Metadata, software: str, with_dpi: bool) -> Image.Exif:
    exif = Image.Exif()
    exif.load(metadata.exif)
    if software:
        exif[ExifTags.Base.Software] = software
    if with_dpi and metadata.dpi:
        exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = metadata.dpi
        exif[ExifTags.Base.ResolutionUnit] = 2  # inches
    return exif


def _png_text(text: tuple[tuple[str, str], ...], xmp: bytes | None) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for key, value in text:
        chunks.add_itxt(key, value)
    if xmp:
        chunks.add_itxt("XML:com.adobe.xmp", xmp.decode(errors="replace"))
    return chunks


def _dpi(value: object, rotated: bool) -> tuple[float, float] | None:
    try:
        x, y = (float(number) for number in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not all(math.isfinite(number) and 1 <= number < 2**20 for number in (x, y)):
        return None
    return (y, x) if rotated else (x, y)

"""16 bits a channel, which Pillow reads and writes for gray images alone.

Reading: Pillow can extract either byte of each channel, so a file is decoded once for the high bytes and once for the
low ones. Writing: Pillow writes the metadata, and this module the pixels.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from unit.errors import ImageError

Levels = NDArray[np.uint16]
"""(H, W) or (H, W, C) in 65535ths"""

_NATIVE, _SWAPPED = (";16L", ";16B") if sys.byteorder == "little" else (";16B", ";16L")
_OTHER_BYTE = {";16L": ";16B", ";16B": ";16L", ";16N": _SWAPPED}
"""By Pillow's raw mode for the high bytes, the one that takes the low bytes for them."""
_GRAY_ALPHA = "LA;16B"
"""Of PNG alone; read as four raw bytes, for which Pillow has a mode too."""
_PNG_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_BLOCK_ROWS = 256
_PNG_UP_FILTER = 2  # each row as its difference from the one above


def has_deep_colors(image: Image.Image) -> bool:
    """True if `read_deep` can read an open, not yet loaded image.

    Raises:
        ImageError: a TIFF of separate, uncompressed 16-bit planes, which Pillow misreads.
    """
    tiles = getattr(image, "tile", [])
    if image.mode.startswith("I"):
        return True
    if image.format == "TIFF" and image.mode != "L" and getattr(image, "tag_v2", {}).get(284) == 2:
        if tiles and tiles[0][0] == "raw" and 16 in image.tag_v2.get(258, ()):  # type: ignore[attr-defined]
            raise ImageError("holds 16-bit channels in separate planes; save it with interleaved channels")
        return False
    return image.mode in ("RGB", "RGBA") and bool(tiles) and all(_is_readable(_raw_mode(tile)) for tile in tiles)


def is_gray_with_alpha(image: Image.Image) -> bool:
    """True for an open, not yet loaded 16-bit image of gray and alpha, which Pillow calls RGBA."""
    tiles = getattr(image, "tile", [])
    return bool(tiles) and _raw_mode(tiles[0]) == _GRAY_ALPHA


def read_deep(image: Image.Image, reopen: Callable[[], Image.Image], load: Callable[[Image.Image], None]) -> Levels:
    """Decode an image that `has_deep_colors` accepts to (H, W), or (H, W, C) with C = 2 (gray and alpha), 3 or 4.

    Args:
        image: opened, not loaded.
        reopen: opens the same file again.
        load: decodes an image.

    Raises:
        ImageError: integers outside 0 … 65535.
    """
    if image.mode.startswith("I"):
        load(image)
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError("holds integers outside 0 … 65535; convert it to 8- or 16-bit PNG or TIFF")
        return values.astype(np.uint16)
    if is_gray_with_alpha(image):
        _replace_raw_mode(image, lambda _: "RGBA")
        load(image)
        return np.asarray(image).view(">u2").astype(np.uint16)
    low = reopen()
    load(image)
    levels = np.asarray(image).astype(np.uint16)
    levels <<= 8
    _replace_raw_mode(low, lambda mode: mode[:-4] + _OTHER_BYTE[mode[-4:]])
    load(low)
    levels |= np.asarray(low)
    return levels


def write_deep(levels: Levels, image_format: str, options: dict[str, Any]) -> bytes:
    """Encode (H, W) or (H, W, C), C = 2, 3 or 4, as a 16-bit PNG or TIFF with the metadata in Pillow's options."""
    levels = levels[..., None] if levels.ndim == 2 else levels
    return _png(levels, options) if image_format == "PNG" else _tiff(levels, options)


def _raw_mode(tile: Any) -> str:
    return str(tile[3] if isinstance(tile[3], str) else tile[3][0])


def _is_readable(raw_mode: str) -> bool:
    return raw_mode == _GRAY_ALPHA or (raw_mode[:-4] in ("RGB", "RGBA") and raw_mode[-4:] in _OTHER_BYTE)


def _replace_raw_mode(image: Any, replaced: Callable[[str], str]) -> None:
    def args(old: Any) -> Any:
        return replaced(old) if isinstance(old, str) else (replaced(old[0]), *old[1:])

    image.tile = [tile._replace(args=args(tile.args)) for tile in image.tile]


def _png(levels: Levels, options: dict[str, Any]) -> bytes:
    """Put the pixels into a PNG of one pixel that Pillow wrote with the metadata."""
    height, width, channels = levels.shape
    shell = io.BytesIO()
    Image.new("RGB", (1, 1)).save(shell, "PNG", **options)
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOR_TYPES[channels], 0, 0, 0)
    out = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    out.seek(0, io.SEEK_END)
    for kind, body in _png_chunks(shell.getvalue()):
        if kind == b"IHDR":
            _write_chunk(out, kind, header)
        elif kind == b"IDAT":
            for compressed in _png_pixels(levels):
                _write_chunk(out, kind, compressed)
        else:
            _write_chunk(out, kind, body)
    return out.getvalue()


def _png_chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position < len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        yield kind, png[position + 8 : position + 8 + length]
        position += length + 12


def _write_chunk(out: BinaryIO, kind: bytes, body: bytes) -> None:
    out.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))


def _png_pixels(levels: Levels) -> Iterator[bytes]:
    compressor = zlib.compressobj(1)
    above = np.zeros((1, levels[0].size * 2), np.uint8)
    for start in range(0, len(levels), _BLOCK_ROWS):
        block = levels[start : start + _BLOCK_ROWS]
        rows = np.vstack([above, block.astype(">u2").reshape(len(block), -1).view(np.uint8)])
        filtered = np.full((len(block), rows.shape[1] + 1), _PNG_UP_FILTER, np.uint8)
        np.subtract(rows[1:], rows[:-1], out=filtered[:, 1:])
        if compressed := compressor.compress(filtered.tobytes()):
            yield compressed
        above = rows[-1:]
    yield compressor.flush()


def _tiff(levels: Levels, options: dict[str, Any]) -> bytes:
    """Write a little-endian TIFF, deflated with horizontal differences, in strips (TIFF 6.0, sections 3 and 14)."""
    height, width, channels = levels.shape
    strips = []
    for start in range(0, height, _BLOCK_ROWS):
        rows = levels[start : start + _BLOCK_ROWS].astype("<u2")
        rows[:, 1:] -= rows[:, :-1].copy()
        strips.append(zlib.compress(rows.tobytes(), 6))
    lengths = [len(strip) for strip in strips]
    directory = _tiff_metadata(options)
    directory[256], directory[257] = width, height
    directory[258] = (16,) * channels
    directory[259] = 8  # deflate
    directory[262] = 1 if channels < 3 else 2  # gray or RGB
    directory[273] = tuple(sum(lengths[:k]) for k in range(len(strips)))  # offsets, which saving adjusts
    directory[277], directory[278], directory[279], directory[284] = channels, _BLOCK_ROWS, tuple(lengths), 1
    directory[317] = 2  # horizontal differences
    if channels in (2, 4):
        directory[338] = (2,)  # alpha, not premultiplied
    out = io.BytesIO()
    directory.save(out)
    out.write(b"".join(strips))
    return out.getvalue()


def _tiff_metadata(options: dict[str, Any]) -> TiffImagePlugin.ImageFileDirectory_v2:
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    exif: Image.Exif = options["exif"]
    for tag in exif:
        directory[tag] = exif.get_ifd(tag) if tag in (0x8769, 0x8825) else exif[tag]
    if "dpi" in options:
        directory[282], directory[283] = options["dpi"]
        directory[296] = 2  # inches
    if "icc_profile" in options:
        directory.tagtype[34675] = 7  # undefined bytes
        directory[34675] = options["icc_profile"]
    return directory

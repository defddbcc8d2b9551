"""16 bits a channel come and go exactly, by the judgement of other libraries."""

from __future__ import annotations

import io
from itertools import product
from typing import Any

import numpy as np
import png
import pytest
import tifffile
from PIL import Image

from tests.test_images import ADOBE_PROFILE, icc
from unit.errors import ImageError
from unit.images import DecodedImage, Frame, decode_bytes, encode, to_levels, to_tensor
from unit.images.deep import Levels

COLOR_TYPES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def levels(channels: int, height: int = 37, width: int = 29, seed: int = 0) -> Levels:
    """Noise, with no pixel quite transparent."""
    values = np.random.default_rng(seed).integers(0, 65536, (height, width, channels), dtype=np.uint16)
    if channels in (2, 4):
        values[..., -1] |= 1
    return values


def png_file(values: Levels, **options: Any) -> bytes:
    height, width, channels = values.shape
    out = io.BytesIO()
    writer = png.Writer(width, height, bitdepth=16, greyscale=channels < 3, alpha=channels in (2, 4), **options)
    rows = values.reshape(height, -1).tolist()
    writer.write_array(out, [v for row in rows for v in row]) if options.get("interlace") else writer.write(out, rows)
    return out.getvalue()


def tiff_file(values: Levels, **options: Any) -> bytes:
    out = io.BytesIO()
    alpha = {"extrasamples": ["unassalpha"]} if values.shape[2] == 4 else {}
    gray = values.shape[2] == 1
    photometric = "minisblack" if gray else "rgb"
    tifffile.imwrite(out, values[..., 0] if gray else values, photometric=photometric, **alpha, **options)
    return out.getvalue()


def read_png(content: bytes) -> Levels:
    width, height, rows, info = png.Reader(bytes=content).read()
    assert info["bitdepth"] == 16
    return np.array(list(rows), np.uint16).reshape(height, width, info["planes"])


def decoded(content: bytes) -> tuple[DecodedImage, Levels]:
    """Return the image, and its colours with alpha."""
    image = decode_bytes(content, "x")
    assert image.deep
    (frame,) = image.frames
    assert isinstance(frame.colors, np.ndarray)
    return image, frame.colors if frame.alpha is None else np.dstack([frame.colors, np.asarray(frame.alpha)])


def as_rgb(values: Levels) -> Levels:
    return np.dstack([values[..., [0, 0, 0]], values[..., 1:]]) if values.shape[2] < 3 else values


@pytest.mark.parametrize(("channels", "interlace"), [*product((1, 2, 3, 4), (False, True))])
def test_png_is_read_exactly(channels: int, interlace: bool) -> None:
    values = levels(channels)
    image, got = decoded(png_file(values, interlace=interlace))
    assert np.array_equal(got, as_rgb(values))
    assert image.gray == (channels < 3)
    assert image.lost == ()


@pytest.mark.parametrize(
    "options",
    [{}, {"byteorder": ">"}, {"tile": (16, 16)}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_is_read_exactly(channels: int, options: dict[str, Any]) -> None:
    values = levels(channels)
    _, got = decoded(tiff_file(values, **options))
    assert np.array_equal(got, as_rgb(values))


@pytest.mark.parametrize("compressed", [False, True])
def test_separate_planes_are_read_right_or_refused(compressed: bool) -> None:
    values = levels(3)
    planes = np.ascontiguousarray(values.transpose(2, 0, 1))
    out = io.BytesIO()
    tifffile.imwrite(
        out, planes, photometric="rgb", planarconfig="separate", compression="zlib" if compressed else None
    )
    if compressed:
        image = decode_bytes(out.getvalue(), "x")
        assert image.lost == ("more than 8 bits a channel",)
        assert np.array_equal(np.asarray(image.frames[0].colors), values >> 8)
    else:
        with pytest.raises(ImageError, match="x: holds 16-bit channels in separate planes"):
            decode_bytes(out.getvalue(), "x")


@pytest.mark.parametrize(("channels", "image_format"), [*product((3, 4), ("PNG", "TIFF"))])
@pytest.mark.parametrize("size", [(37, 29), (1, 1), (600, 3)])
def test_what_is_written_is_exact(channels: int, image_format: str, size: tuple[int, int]) -> None:
    values = levels(channels, *size)
    alpha = values[..., 3] if channels == 4 else None
    content, lost = encode(DecodedImage("", (Frame(values[..., :3], alpha),)), image_format)
    assert lost == []
    got = read_png(content) if image_format == "PNG" else tifffile.imread(io.BytesIO(content))
    assert got.dtype == np.uint16
    assert np.array_equal(got.reshape(values.shape), values)
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == COLOR_TYPES[channels]
        image.load()


@pytest.mark.parametrize(("channels", "image_format"), [*product((1, 2), ("PNG", "TIFF"))])
def test_gray_is_written_in_gray(channels: int, image_format: str) -> None:
    values = levels(channels)
    alpha = values[..., 1] if channels == 2 else None
    content, _ = encode(DecodedImage("", (Frame(values[..., [0, 0, 0]], alpha),)), image_format, gray=True)
    got = read_png(content) if image_format == "PNG" else tifffile.imread(io.BytesIO(content))
    assert np.array_equal(got.reshape(values.shape), values)


def test_formats_of_8_bits_get_the_nearest_levels() -> None:
    values = levels(3)
    content, lost = encode(DecodedImage("", (Frame(values),)), "BMP")
    assert lost == ["16 bits a channel"]
    got = np.asarray(Image.open(io.BytesIO(content)))
    assert np.abs(got * 257.0 - values).max() <= 128.5


def test_every_level_survives_the_network_s_scale() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)[..., None].repeat(3, axis=2)
    values[..., 1] = values[::-1, :, 1]
    tensor = to_tensor(values)
    assert (tensor.min(), tensor.max(), tensor.shape) == (-1, 1, (3, 256, 256))
    assert np.array_equal(to_levels(tensor), values)
    assert to_levels(tensor * 3).max() == 65535


def test_hidden_colors_are_white_and_a_transparent_color_becomes_alpha() -> None:
    values = levels(4)
    values[3, 4] = (1, 2, 3, 0)
    _, got = decoded(png_file(values))
    assert got[3, 4].tolist() == [65535, 65535, 65535, 0]
    assert np.array_equal(np.delete(got.reshape(-1, 4), 3 * 29 + 4, 0), np.delete(values.reshape(-1, 4), 3 * 29 + 4, 0))
    opaque = levels(3)
    opaque[5, 6] = (300, 301, 302)
    _, got = decoded(png_file(opaque, transparent=(300, 301, 302)))
    assert got.shape[2] == 4
    assert np.argwhere(got[..., 3] == 0).tolist() == [[5, 6]]


@pytest.mark.parametrize("channels", [1, 3])
def test_turning_is_that_of_8_bits(channels: int) -> None:
    values = levels(channels)
    shallow = Image.fromarray((as_rgb(values) >> 8).astype(np.uint8))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        out = io.BytesIO()
        shallow.save(out, "PNG", exif=exif)
        expected = np.asarray(decode_bytes(out.getvalue(), "x").frames[0].colors)
        tag = [(274, "H", 1, orientation, True)]
        _, got = decoded(tiff_file(values, extratags=tag))
        assert np.array_equal(got >> 8, expected), orientation


def test_a_profile_is_applied_at_16_bits_and_taken_back() -> None:
    values = levels(3) // 2 + 16384
    values[::2] = values[::2] // 257 * 257  # which 8 bits hold too
    shallow = Image.fromarray((values // 257).astype(np.uint8))
    out = io.BytesIO()
    shallow.save(out, "TIFF", icc_profile=ADOBE_PROFILE)
    expected = np.asarray(decode_bytes(out.getvalue(), "x").frames[0].colors)
    image, got = decoded(tiff_file(values, iccprofile=ADOBE_PROFILE))
    assert np.abs(got / 257 - expected)[::2].max() < 1.5  # LittleCMS's own rounding
    assert np.abs(got.astype(int) - values).max() > 5 * 257
    inside = (got.min(2) > 0) & (got.max(2) < 65535)  # the gamut of sRGB
    content, lost = encode(image, "TIFF")
    assert lost == []
    back = tifffile.imread(io.BytesIO(content))
    assert np.abs(back.astype(int) - values)[inside].max() <= 12
    assert len(np.unique(back)) > 1000  # not 256
    with Image.open(io.BytesIO(content)) as written:
        assert written.info["icc_profile"] == ADOBE_PROFILE


def test_a_profile_of_tables_is_applied_in_8_bits_and_that_is_said() -> None:
    table = (
        b"mft1\0\0\0\0\x03\x03\x02\0"
        + b"".join(int(65536 * (i % 4 == 0)).to_bytes(4, "big") for i in range(9))
        + bytes(range(256)) * 3
        + bytes(255 * c // 1 if c else 0 for i in range(8) for c in ((i >> 2) & 1, (i >> 1) & 1, i & 1))
        + bytes(range(256)) * 3
    )
    profile = icc(b"RGB ", b"Lab ", {b"A2B0": table})
    image = decode_bytes(tiff_file(levels(3), iccprofile=profile), "x")
    assert not image.deep
    assert any("16 bits" in name for name in image.lost)

"""Every file comes out as the image a person would see, or as one line that names it."""

from __future__ import annotations

import errno
import io
import os
import random
import struct
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from unit import images
from unit.errors import ImageError, UserError, escape
from unit.images import (
    MAX_PIXELS,
    SUFFIXES,
    read_image,
    resize_short_side,
    to_image,
    to_tensor,
    write_image,
)

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)]
RAMP = np.linspace(0, 65535, 64 * 4).astype(np.uint16).reshape(4, 64)


def patches() -> Image.Image:
    """Six 16x16 patches of plain colour: survives JPEG, and has no symmetry."""
    image = Image.new("RGB", (48, 32))
    for index, color in enumerate(COLORS):
        image.paste(color, (index % 3 * 16, index // 3 * 16, index % 3 * 16 + 16, index // 3 * 16 + 16))
    return image


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def assert_like(got: Image.Image, expected: Image.Image, tolerance: int = 0) -> None:
    assert got.mode == "RGB"
    assert got.size == expected.size
    assert np.abs(pixels(got) - pixels(expected)).max() <= tolerance


def read_back(image: Image.Image, path: Path, **options: object) -> Image.Image:
    image.save(path, **options)
    return read_image(path)


def refusal(path: Path, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path, max_pixels)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(escape(path))
    return message


# Modes and formats


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tga", "ppm", "pcx", "sgi"])
def test_rgb_is_read_exactly(tmp_path: Path, ending: str) -> None:
    assert_like(read_back(patches(), tmp_path / f"x.{ending}"), patches())


@pytest.mark.parametrize("ending", ["jpg", "webp", "jp2"])
def test_rgb_is_read_from_lossy_formats(tmp_path: Path, ending: str) -> None:
    options = {} if ending == "jp2" else {"quality": 100}
    got = read_back(patches(), tmp_path / f"x.{ending}", **options)
    assert np.abs(pixels(got) - pixels(patches())).mean() <= 6


@pytest.mark.parametrize(
    ("mode", "ending"),
    [
        *[("L", "png"), ("LA", "png"), ("RGBA", "png"), ("P", "png"), ("P", "gif"), ("1", "png"), ("CMYK", "tif")],
        *[("YCbCr", "tif"), ("LAB", "tif"), ("PA", "tif"), ("L", "jpg"), ("CMYK", "jpg"), ("RGBX", "tif")],
    ],
)
def test_every_mode_shows_its_colours(tmp_path: Path, mode: str, ending: str) -> None:
    image = patches()
    if mode == "PA":
        image = image.convert("P", palette=Image.Palette.ADAPTIVE)
    elif mode == "LA":
        image = image.convert("L")
    image = image.convert(mode, palette=Image.Palette.ADAPTIVE)
    expected = patches().convert("RGB" if mode not in ("L", "LA", "1") else mode[0]).convert("RGB")
    options = {"compression": "tiff_lzw"} if mode == "YCbCr" else {}  # uncompressed, Pillow 11 can't read its own
    assert_like(read_back(image, tmp_path / f"x.{ending}", **options), expected, {"LAB": 24, "YCbCr": 4}.get(mode, 2))


def test_hsv_is_understood_though_no_format_holds_it() -> None:
    assert_like(images.to_rgb(patches().convert("HSV")), patches(), 2)


@pytest.mark.parametrize(
    ("mode", "color", "options"),
    [
        ("LA", (0, 0), {}),
        ("RGBA", (10, 20, 30, 0), {}),
        ("L", 7, {"transparency": 7}),
        ("1", 0, {"transparency": 0}),
        ("RGB", (7, 8, 9), {"transparency": (7, 8, 9)}),
        ("P", 3, {"transparency": 3}),
        ("P", 3, {"transparency": b"\xff\xff\xff\x00"}),
    ],
)
def test_transparent_is_white(tmp_path: Path, mode: str, color: object, options: dict[str, object]) -> None:
    image = Image.new(mode, (4, 4), color)  # type: ignore[arg-type]
    if mode == "P":
        image.putpalette(bytes(range(48)))
    assert_like(read_back(image, tmp_path / "x.png", **options), Image.new("RGB", (4, 4), "white"))


def test_half_transparent_is_half_white(tmp_path: Path) -> None:
    got = read_back(Image.new("RGBA", (2, 2), (200, 0, 100, 102)), tmp_path / "x.png")
    assert got.getpixel((0, 0)) == (233, 153, 193)  # 0.4 of the colour, 0.6 of white
    assert read_back(Image.new("LA", (2, 2), (100, 102)), tmp_path / "y.png").getpixel((1, 1)) == (193, 193, 193)


@pytest.mark.parametrize("form", ["png", "tif", "big-endian tif", "pgm", "I tif"])
def test_16_bit_gray_keeps_its_gradient(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"x.{form[-3:]}"
    if form == "big-endian tif":
        Image.frombytes("I;16B", (64, 4), RAMP.astype(">u2").tobytes()).save(path)
    elif form == "I tif":
        Image.fromarray(RAMP.astype(np.int32)).save(path)
    elif form == "pgm":
        path.write_bytes(b"P5 64 4 65535\n" + RAMP.astype(">u2").tobytes())
    else:
        Image.fromarray(RAMP).save(path)
    got = pixels(read_image(path))
    assert np.array_equal(got[..., 0], np.round(RAMP / 257))
    assert np.array_equal(got[..., 0], got[..., 1])
    assert np.array_equal(got[..., 0], got[..., 2])


def test_dark_16_bit_gray_is_not_stretched(tmp_path: Path) -> None:
    assert pixels(read_back(Image.fromarray(RAMP // 8), tmp_path / "x.png")).max() == 32


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_16_bit_colour_png_keeps_its_gradient(tmp_path: Path, kind: int, channels: int) -> None:
    values = np.repeat(RAMP[..., None], channels, axis=2)
    if channels in (2, 4):
        values[..., -1] = 65535
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 64, 4, 16, kind, 0, 0, 0)
    path = tmp_path / "x.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )
    assert np.abs(pixels(read_image(path)) - (RAMP / 257)[..., None]).max() <= 1


@pytest.mark.parametrize(
    "array", [np.ones((4, 4), np.float32), np.full((4, 4), 65536, np.int32), np.full((4, 4), -1, np.int32)]
)
def test_numbers_without_a_known_white_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(tmp_path / "x.tif")
    assert "convert it to 8- or 16-bit PNG" in refusal(tmp_path / "x.tif")


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_the_first_frame_counts(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    got = read_back(frames[0], tmp_path / f"x.{ending}", save_all=True, append_images=frames[1:])
    assert_like(got, frames[0], 3)


# Orientation


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright(tmp_path: Path, ending: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # How a camera held so stores the upright image.
    stored = {1: np.array, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud}
    stored |= {5: lambda x: x.transpose(1, 0, 2), 6: np.rot90, 7: lambda x: np.rot90(x, 2).transpose(1, 0, 2)}
    stored |= {8: lambda x: np.rot90(x, -1)}
    image = Image.fromarray(np.ascontiguousarray(stored[orientation](np.asarray(patches()))))
    options = {"lossless": True} if ending == "webp" else {"quality": 95, "subsampling": 0} if ending == "jpg" else {}
    assert_like(
        read_back(image, tmp_path / f"x.{ending}", exif=exif, **options), patches(), 12 if ending == "jpg" else 0
    )


def test_broken_exif_leaves_the_photograph(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        for exif in (
            b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
            b"Exif\0\0nonsense",
            b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x09",
        ):
            assert_like(read_back(patches(), tmp_path / "x.jpg", exif=exif, quality=100, subsampling=0), patches(), 3)
    assert not leaked


# Large JPEGs


def photograph(width: int, height: int) -> Image.Image:
    """Noise of all sizes down to a few pixels, in colour."""
    rng = np.random.default_rng(0)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (height // n + 2, width // n + 2, 3), np.uint8)).resize(
                (width, height)
            )
        )
        for n in (100, 30, 10, 4)
    ]
    return Image.fromarray((np.tensordot([0.4, 0.3, 0.2, 0.1], layers, 1)).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "short_side", "read"),
    [
        *[((1280, 720), 288, (640, 360)), ((1280, 720), 289, (1280, 720)), ((720, 1280), 288, (360, 640))],
        *[((803, 641), 64, (201, 161)), ((803, 641), 81, (402, 321)), ((803, 641), 40, (101, 81))],
        *[
            ((803, 641), 8, (101, 81)),
            ((803, 641), 900, (803, 641)),
            ((803, 641), None, (803, 641)),
            ((9, 9), 8, (9, 9)),
        ],
    ],
)
def test_a_large_jpeg_is_read_no_larger_than_needed(
    tmp_path: Path, size: tuple[int, int], short_side: int | None, read: tuple[int, int]
) -> None:
    Image.new("RGB", size).save(tmp_path / "x.jpg")
    assert read_image(tmp_path / "x.jpg", short_side=short_side).size == read


@pytest.mark.parametrize("form", ["JPEG", "MPO", "gray", "CMYK", "profile", "progressive", *range(2, 9)])
def test_a_jpeg_read_smaller_shows_the_same(tmp_path: Path, form: str | int) -> None:
    exif, image, path = Image.Exif(), photograph(804, 640), tmp_path / "x.jpg"
    if isinstance(form, int):
        exif[0x0112] = form
    options: dict[str, object] = {"icc_profile": ADOBE_PROFILE} if form == "profile" else {}
    options |= {"progressive": True} if form == "progressive" else {}
    if form == "MPO":
        options |= {"save_all": True, "append_images": [Image.new("RGB", (804, 640))]}
    image = image.convert({"gray": "L", "CMYK": "CMYK"}.get(str(form), "RGB"))
    image.save(path, "MPO" if form == "MPO" else "JPEG", exif=exif, quality=92, **options)
    full_decode = resize_short_side(read_image(path), 100)
    smaller = read_image(path, short_side=100)
    assert sorted(smaller.size) == [320, 402]  # at 1/2: 1/4 leaves 1.6 times as much as is wanted
    error = pixels(resize_short_side(smaller, 100)) - pixels(full_decode)
    assert (error**2).mean() < 2  # 45 dB


@pytest.mark.parametrize("ending", ["png", "webp", "tif", "bmp"])
def test_other_formats_are_read_in_full(tmp_path: Path, ending: str) -> None:
    photograph(803, 641).save(tmp_path / f"x.{ending}", **({"compression": "jpeg"} if ending == "tif" else {}))
    assert (
        read_image(tmp_path / f"x.{ending}", short_side=8).tobytes() == read_image(tmp_path / f"x.{ending}").tobytes()
    )


def test_a_large_jpeg_stays_within_its_limit(tmp_path: Path) -> None:
    Image.new("RGB", (803, 641)).save(tmp_path / "x.jpg")
    with pytest.raises(ImageError, match=r"x\.jpg: 803x641 is more than 500000 pixels"):
        read_image(tmp_path / "x.jpg", 500_000, short_side=8)


# Colour profiles


def icc(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A version-2 profile of these tags."""
    white = struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    device = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">4xI4s4s4s12x4s28x12s48x", 0x02100000, device, space, connection, b"acsp", white)
    tags = {b"wtpt": b"XYZ \0\0\0\0" + white} | tags
    table, bodies, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        body += b"\0" * (-len(body) % 4)
        table += struct.pack(">4sII", name, offset + len(bodies), len(body))
        bodies += body
    return struct.pack(">I", offset + len(bodies)) + head + struct.pack(">I", len(tags)) + table + bodies


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
ADOBE_PROFILE = icc(
    b"RGB ",
    b"XYZ ",
    {f"{c}XYZ".encode(): xyz(*ADOBE[:, i]) for i, c in enumerate("rgb")}
    | {f"{c}TRC".encode(): gamma(2.2) for c in "rgb"},
)
GRAY_PROFILE = icc(b"GRAY", b"XYZ ", {b"kTRC": gamma(1.0)})
# Paper is white, any colour the same mid grey, black black: nothing that a conversion without the profile would give.
CMYK_PROFILE = icc(
    b"CMYK",
    b"Lab ",
    {
        b"A2B0": b"mft1\0\0\0\0\x04\x03\x02\0"
        + struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
        + bytes(range(256)) * 4
        + bytes([255, 128, 128])
        + (bytes([0, 128, 128]) + bytes([128, 128, 128])) * 7
        + bytes([0, 128, 128])
        + bytes(range(256)) * 3
    },
)


def test_a_wider_profile_is_converted_to_srgb(tmp_path: Path) -> None:
    colors = np.array([[[150, 120, 100], [100, 140, 120], [128, 128, 128]]], np.uint8)
    got = read_back(Image.fromarray(colors), tmp_path / "x.png", icc_profile=ADOBE_PROFILE)
    linear = (colors / 255) ** 2.2 @ ADOBE.T @ np.linalg.inv(SRGB).T
    expected = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear) * 255
    assert np.abs(pixels(got) - expected).max() <= 1.5
    assert np.abs(pixels(got) - colors.astype(int)).max() > 4
    assert "icc_profile" not in got.info  # or it would be applied twice


def test_an_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = Image.frombytes("RGB", (64, 64), random.Random(0).randbytes(64 * 64 * 3))
    assert_like(read_back(noise, tmp_path / "x.png", icc_profile=srgb), noise)
    parametric = {f"{c}XYZ".encode(): xyz(*SRGB[:, i]) for i, c in enumerate("rgb")}
    curve = b"para\0\0\0\0\0\x03\0\0" + struct.pack(
        ">5i", *(round(v * 65536) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
    )
    foreign = icc(b"RGB ", b"XYZ ", parametric | {f"{c}TRC".encode(): curve for c in "rgb"})
    assert_like(read_back(noise, tmp_path / "y.png", icc_profile=foreign), noise)


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_gray_profile_is_converted(tmp_path: Path, mode: str) -> None:
    image = Image.new("L", (4, 4), 55).convert(mode)
    got = read_back(image, tmp_path / "x.png", icc_profile=GRAY_PROFILE)
    assert np.abs(pixels(got) - 128).max() <= 1  # a fifth of the light


def test_a_gray_profile_goes_with_a_transparent_level(tmp_path: Path) -> None:
    image = Image.new("L", (4, 4), 55)
    image.putpixel((0, 0), 9)
    got = read_back(image, tmp_path / "x.png", icc_profile=GRAY_PROFILE, transparency=9)
    assert got.getpixel((0, 0)) == (255, 255, 255)
    assert np.abs(pixels(got)[1:] - 128).max() <= 1


@pytest.mark.parametrize(("mode", "ending"), [("P", "png"), ("RGBA", "png"), ("RGBX", "tif")])
def test_a_profile_goes_with_every_way_to_hold_rgb(tmp_path: Path, mode: str, ending: str) -> None:
    plain = Image.new("RGB", (4, 4), (150, 120, 100))
    image = plain.quantize(4) if mode == "P" else plain.convert(mode)
    got = read_back(image, tmp_path / f"x.{ending}", icc_profile=ADOBE_PROFILE)
    assert_like(got, read_back(plain, tmp_path / "y.png", icc_profile=ADOBE_PROFILE))
    assert got.getpixel((0, 0)) != (150, 120, 100)


def test_a_profile_is_applied_before_the_white_shows_through(tmp_path: Path) -> None:
    image = Image.new("LA", (4, 4), (55, 51))
    got = read_back(image, tmp_path / "x.png", icc_profile=GRAY_PROFILE)
    assert np.abs(pixels(got) - (0.2 * 128 + 0.8 * 255)).max() <= 1


def test_a_profile_close_to_srgb_still_counts(tmp_path: Path) -> None:
    tags = {f"{c}XYZ".encode(): xyz(*SRGB[:, i]) for i, c in enumerate("rgb")}
    plain_gamma = icc(b"RGB ", b"XYZ ", tags | {f"{c}TRC".encode(): gamma(2.2) for c in "rgb"})
    got = read_back(Image.new("RGB", (2, 2), (20, 20, 20)), tmp_path / "x.png", icc_profile=plain_gamma)
    assert np.abs(pixels(got) - 12.1).max() <= 1


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_a_cmyk_profile_is_converted(tmp_path: Path, ending: str) -> None:
    image = Image.new("CMYK", (32, 16), (0, 0, 0, 0))
    image.paste((255, 0, 0, 0), (0, 0, 16, 16))
    options = {"quality": 100} if ending == "jpg" else {}
    got = pixels(read_back(image, tmp_path / f"x.{ending}", icc_profile=CMYK_PROFILE, **options))
    assert np.abs(got[:, 20:] - 255).max() <= 3
    assert np.abs(got[:, :12] - 119).max() <= 4


@pytest.mark.parametrize("profile", [b"nonsense", ADOBE_PROFILE[:150], CMYK_PROFILE, GRAY_PROFILE, b"\0" * 200])
def test_a_broken_or_unfitting_profile_is_ignored(tmp_path: Path, profile: bytes) -> None:
    assert_like(read_back(patches(), tmp_path / "x.png", icc_profile=profile), patches())


# What can't be read


def test_missing(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "x.png")


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    assert "is a folder, not" in refusal(tmp_path / "x.png")


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    assert "the file is empty" in refusal(tmp_path / "x.png")


@pytest.mark.parametrize("content", [b"GIF, not really", b"<html>404</html>", bytes(1000)])
def test_no_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    refusal(tmp_path / "x.jpg")


def test_postscript_never_reaches_its_interpreter(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    assert "not an image in a supported format" in refusal(tmp_path / "x.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    assert "not a regular file" in refusal(tmp_path / "x.jpg")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    patches().save(tmp_path / "x.png")
    (tmp_path / "x.png").chmod(0)
    assert "no permission to read" in refusal(tmp_path / "x.png")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs names of arbitrary bytes")
@pytest.mark.parametrize("name", [b"two\nlines.png", b"\xff\xfe.png", b"tab\t\x1b[31m.png"])
def test_odd_names_stay_one_printable_line(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    refusal(path)
    assert_like(read_back(patches(), path), patches())
    with pytest.raises(UserError) as caught:
        write_image(patches(), path / "below.png")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "error",
    [
        OSError("two\nlines"),
        OSError(errno.EIO, "I/O error"),
        SyntaxError("x"),
        struct.error("x"),
        ValueError(),
        EOFError(),
        *[
            IndexError(),
            TypeError(),
            MemoryError(),
            KeyError("x"),
            RecursionError(),
            PermissionError(),
            AssertionError(),
        ],
    ],
)
def test_any_error_of_a_decoder_is_an_image_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    patches().save(tmp_path / "x.png")
    monkeypatch.setattr(Image.Image, "getexif", lambda _: {})
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", fail)
    refusal(tmp_path / "x.png")


def test_ctrl_c_is_not_an_image_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    patches().save(tmp_path / "x.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "gif", "bmp", "jp2"])
def test_damage_is_only_ever_an_image_error(tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str) -> None:
    encoded = io.BytesIO()
    options = {"compression": "tiff_lzw"} if ending == "tif" else {}
    form = Image.registered_extensions()[f".{ending}"]
    patches().save(encoded, format=form, icc_profile=ADOBE_PROFILE, **options)
    data = encoded.getvalue()
    rng = random.Random(ending)
    path = tmp_path / f"x.{ending}"
    refused: list[str] = []
    for trial in range(80):
        damaged = bytearray(data)
        if trial % 2:
            del damaged[rng.randrange(len(data)) :]
        else:
            for _ in range(rng.choice([1, 3, 20])):
                damaged[rng.randrange(min(len(data), rng.choice([64, len(data)])))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            assert read_image(path, max_pixels=100_000).mode == "RGB"
        except ImageError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert all(message.isprintable() and message.startswith(str(path)) for message in refused)
    assert ending == "tif" or capfd.readouterr().err == ""  # libtiff writes there by itself


# Size


def giant(width: int, height: int) -> bytes:
    """A PNG's header and nothing else."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"")


@pytest.mark.parametrize("side", [10_000, 14_143, 100_000])
def test_giants_are_refused_from_the_header(tmp_path: Path, side: int) -> None:
    (tmp_path / "x.png").write_bytes(giant(side, side))
    before = Image.MAX_IMAGE_PIXELS
    assert ("more than 200000000 pixels" in refusal(tmp_path / "x.png")) == (side > 14_142)
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_limit_is_inclusive(tmp_path: Path) -> None:
    patches().save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", 48 * 32).size == (48, 32)
    assert "48x32 is more than 1535 pixels" in refusal(tmp_path / "x.png", 48 * 32 - 1)


@pytest.mark.parametrize("limit", [100, 1000])
def test_pillows_own_limit_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # 1536 pixels: an error below 768, a warning below 1536
    assert_like(read_back(patches(), tmp_path / "x.png"), patches())
    assert limit == Image.MAX_IMAGE_PIXELS


# Files, threads


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_files_are_closed(tmp_path: Path) -> None:
    patches().save(tmp_path / "x.tif", compression="tiff_lzw")
    (tmp_path / "y.tif").write_bytes((tmp_path / "x.tif").read_bytes()[:-200])
    count = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        read_image(tmp_path / "x.tif")
        refusal(tmp_path / "y.tif")
    assert len(os.listdir("/proc/self/fd")) == count  # noqa: PTH208


def test_threads_read_the_same(tmp_path: Path) -> None:
    patches().save(tmp_path / "x.png", icc_profile=ADOBE_PROFILE)
    expected = read_image(tmp_path / "x.png").tobytes()
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.append(read_image(tmp_path / "x.png").tobytes())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [expected] * 8


def test_suffixes_are_photographs() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".mpo"} <= SUFFIXES
    assert SUFFIXES.isdisjoint(
        {".pdf", ".eps", ".ps", ".mpg", ".mpeg", ".h5", ".grib", ".bufr", ".wmf", ".emf", ".fits"}
    )
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


# Tensors


def test_all_levels_survive_the_round_trip() -> None:
    levels = np.arange(256, dtype=np.uint8)
    image = Image.fromarray(np.stack([levels, levels[::-1], np.roll(levels, 7)], -1).reshape(16, 16, 3))
    tensor = to_tensor(image)
    assert to_image(tensor).tobytes() == image.tobytes()
    assert to_image(tensor.double().requires_grad_()).tobytes() == image.tobytes()
    assert to_image(tensor.half()).tobytes() == image.tobytes()


def test_a_tensor_is_channels_height_width() -> None:
    tensor = to_tensor(Image.fromarray(np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)))
    assert tensor.shape == (3, 2, 5)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert torch.equal(tensor[1, 1, 2], torch.tensor((1 * 5 + 2) * 3 + 1) / 127.5 - 1)
    ends = to_tensor(Image.fromarray(np.array([[[0, 255, 0]]], np.uint8))).flatten().tolist()
    assert ends == [-1, 1, -1]


@given(st.lists(st.floats(-3, 3, width=32, allow_subnormal=False), min_size=3, max_size=3))
def test_values_are_clamped_and_rounded_to_nearest(values: list[float]) -> None:
    got = to_image(torch.tensor(values).reshape(3, 1, 1)).getpixel((0, 0))
    exact = (np.clip(values, -1, 1) + 1) * 127.5
    assert np.abs(np.array(got) - exact).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_no_stretching(dtype: torch.dtype) -> None:
    assert to_image(torch.full((3, 2, 2), 0.5, dtype=dtype)).getpixel((0, 0)) == (191, 191, 191)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    tensor = torch.zeros(3, 2, 2)
    tensor[1, 1, 1] = value
    with pytest.raises(ValueError, match="finite"):
        to_image(tensor)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(1, 2, 2), torch.zeros(1, 3, 2, 2), torch.zeros(3, 2, 2, dtype=torch.uint8)]
)
def test_tensors_and_images_of_other_kinds_are_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected floats"):
        to_image(tensor)
    with pytest.raises(ValueError, match="expected an RGB"):
        to_tensor(Image.new("L", (2, 2)))


# Resizing


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40))
def test_the_short_side_gets_the_size(width: int, height: int, size: int) -> None:
    got = resize_short_side(Image.new("RGB", (width, height), (10, 20, 30)), size)
    assert min(got.size) == size
    exact = max(width, height) * size / min(width, height)
    assert abs(max(got.size) - exact) <= 0.5
    assert (got.width >= got.height) == (width >= height) or got.width == got.height
    assert got.getextrema() == ((10, 10), (20, 20), (30, 30))


def test_nothing_is_done_to_the_right_size() -> None:
    image = patches()
    assert resize_short_side(image, 32) is image


def test_shrinking_is_antialiased() -> None:
    board = np.indices((64, 64)).sum(0) % 2 * 255
    got = resize_short_side(Image.fromarray(board.astype(np.uint8)).convert("RGB"), 8)
    assert np.abs(pixels(got) - 127.5).max() < 8


def test_a_strip_too_thin_is_refused() -> None:
    with pytest.raises(ImageError, match="too thin"):
        resize_short_side(Image.new("RGB", (1, 20_000)), 256)


# Writing


@pytest.mark.parametrize("ending", ["png", "PNG", "tif", "bmp"])
def test_what_is_written_reads_back(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "new" / "folder" / f"x.{ending}"
    write_image(patches(), path)
    assert_like(read_image(path), patches())
    before = path.stat().st_ino
    write_image(patches(), path)
    assert path.stat().st_ino != before  # replaced, not overwritten
    assert os.listdir(path.parent) == [path.name]  # noqa: PTH208


def test_quality(tmp_path: Path) -> None:
    noise = Image.frombytes("RGB", (64, 64), random.Random(0).randbytes(64 * 64 * 3))
    for ending in ("jpg", "jpeg", "webp"):
        sizes = []
        for quality in (30, None, 100):
            write_image(noise, tmp_path / f"x.{ending}", quality)
            sizes.append((tmp_path / f"x.{ending}").stat().st_size)
        assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(("quality", "sampling"), [(None, 1), (95, 1), (94, 2)])
def test_good_jpegs_keep_colour_at_full_resolution(tmp_path: Path, quality: int | None, sampling: int) -> None:
    write_image(patches(), tmp_path / "x.jpg", quality)
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.layer[0][1] == sampling  # type: ignore[attr-defined]


def test_an_existing_image_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    write_image(patches(), path)

    def full(_: Image.Image, file: io.BufferedWriter, **__: object) -> None:
        file.write(b"half an image")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(Image.Image, "save", full)
        with pytest.raises(UserError, match=r"x\.png: can't be written: No space left on device") as caught:
            write_image(Image.new("RGB", (2, 2)), path)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["x.png"]  # noqa: PTH208
    assert_like(read_image(path), patches())


def test_nothing_stays_behind_after_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_image(patches(), tmp_path / "x.png")
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.parametrize("name", ["x.xyz", "x", "x.psd", "x.grib"])
def test_endings_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: can't ") as caught:
        write_image(patches(), tmp_path / name)
    assert str(caught.value).isprintable()
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_a_file_or_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "x.png").mkdir()
    for path in (tmp_path / "file" / "x.png", tmp_path / "x.png"):
        with pytest.raises(UserError, match=r"x\.png: can't be written"):
            write_image(patches(), path)
    assert sorted(os.listdir(tmp_path)) == ["file", "x.png"]  # noqa: PTH208


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    write_image(patches(), tmp_path / ("x" * 251 + ".png"))

"""What a file holds is decoded, and encoded again into every format that can hold it; the rest is named."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageDraw

from tests.test_images import ADOBE_PROFILE, CMYK_PROFILE, GRAY_PROFILE
from unit.errors import ConfigError, ImageError
from unit.images import DecodedImage, decode_bytes, encode, has_gray_colors, read_extent, read_image, read_image_file

ANIMATED_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
METADATA_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d" tiff:Make="Brand"/></rdf:RDF></x:xmpmeta>'
    b'<?xpacket end="w"?>'
)


def noise(width: int = 24, height: int = 16, channels: int = 3, seed: int = 0) -> Image.Image:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def smooth(width: int = 48, height: int = 32) -> Image.Image:
    """Colours that lossy formats keep, and that sRGB has too where a wider profile describes them."""
    x, y = np.meshgrid(np.linspace(110, 160, width), np.linspace(110, 160, height))
    return Image.fromarray(np.dstack([x, y, (x + y) / 2]).astype(np.uint8))


def saved(image: Image.Image, image_format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    lossless = {"WEBP": {"lossless": True, "exact": True}, "AVIF": {"quality": 100}, "JPEG": {"quality": 100}}
    image.save(out, image_format, **(lossless.get(image_format, {}) | options))
    return out.getvalue()


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def array(image: Any) -> np.ndarray:
    return np.asarray(image).astype(int)


def through(content: bytes, image_format: str, **options: Any) -> tuple[DecodedImage, Image.Image, list[str]]:
    """Decode and encode; return the decoded image, the output, opened, and all that is not kept."""
    image = decode_bytes(content, "x")
    output, lost = encode(image, image_format, **options)
    return image, opened(output), [*image.lost, *lost]


def photo_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "Someone"
    exif[ExifTags.Base.Software] = "Camera 1.0"
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.DateTimeOriginal: "2024:05:06 07:08:09",
        ExifTags.Base.ExposureTime: 0.004,
        ExifTags.Base.ExifImageWidth: 24,
        ExifTags.Base.ExifImageHeight: 16,
    }
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (48.0, 8.0, 14.5)}
    loaded = Image.Exif()
    loaded.load(exif.tobytes())
    return loaded


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
def test_an_image_comes_out_upright_and_says_so(tmp_path: Path, image_format: str, orientation: int) -> None:
    file = tmp_path / "x"
    xmp = {} if image_format != "WEBP" else {"xmp": XMP % orientation}
    file.write_bytes(saved(noise(), image_format, exif=photo_exif(orientation), **xmp))
    _, output, lost = through(file.read_bytes(), "PNG")
    assert np.array_equal(output, read_image(file))
    exif = output.getexif()
    assert exif.get(ExifTags.Base.Orientation, 1) == 1
    assert exif[ExifTags.Base.Artist] == "Someone"
    assert exif[ExifTags.Base.Software] == "UNIT image translation"
    photo = exif.get_ifd(ExifTags.IFD.Exif)
    assert photo[ExifTags.Base.DateTimeOriginal] == "2024:05:06 07:08:09"
    assert (photo[ExifTags.Base.ExifImageWidth], photo[ExifTags.Base.ExifImageHeight]) == output.size
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] == (48.0, 8.0, 14.5)
    if xmp:
        assert output.info["xmp"] == XMP % 1
    assert lost == []


@pytest.mark.parametrize(("source", "target"), [*product(METADATA_FORMATS, METADATA_FORMATS)])
def test_exif_xmp_profile_and_resolution_pass_between_all_formats(source: str, target: str) -> None:
    exif, options = photo_exif(1), {}
    if source == "TIFF":
        exif[ExifTags.Base.XMLPacket] = XMP % 1
    elif source != "PNG":
        options["xmp"] = XMP % 1
    if source in ("JPEG", "PNG", "TIFF"):
        options["dpi"] = (300, 200)
    content = saved(smooth(), source, exif=exif, icc_profile=ADOBE_PROFILE, **options)
    _, output, lost = through(content, target, quality=100)
    assert lost == []
    assert output.getexif()[ExifTags.Base.Artist] == "Someone"
    assert output.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == pytest.approx(0.004)
    assert output.info.get("xmp") == (XMP % 1 if source != "PNG" else None)
    assert output.info["icc_profile"] == ADOBE_PROFILE
    if "dpi" in options:
        exif_dpi = [output.getexif().get(tag) for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution)]
        assert output.info.get("dpi", exif_dpi) == pytest.approx((300, 200), abs=0.1)
    assert np.abs(array(output) - array(smooth())).max() <= 6  # lossy, and sRGB in between


def test_resolution_turns_with_the_image() -> None:
    content = saved(noise(), "JPEG", dpi=(300, 200), exif=photo_exif(6))
    _, output, _ = through(content, "JPEG")
    assert output.info["dpi"] == (200, 300)


def test_the_thumbnail_of_the_input_is_not_kept() -> None:
    thumbnail = saved(noise(8, 8, seed=5), "JPEG")
    tags = b"II*\0\x08\0\0\0" + b"\x01\0" + b"\x3b\x01\x02\0\x03\0\0\0Me\0\0" + (26).to_bytes(4, "little")
    first = b"\x02\0" + b"\x01\x02\x04\0\x01\0\0\0" + (56).to_bytes(4, "little")
    first += b"\x02\x02\x04\0\x01\0\0\0" + len(thumbnail).to_bytes(4, "little") + bytes(4)
    content = saved(noise(), "JPEG", exif=b"Exif\0\0" + tags + first + thumbnail)
    assert thumbnail in content
    assert opened(content).getexif().get_ifd(ExifTags.IFD.IFD1)
    output, _ = encode(decode_bytes(content, "x"), "JPEG")
    assert thumbnail not in output
    assert opened(output).getexif()[ExifTags.Base.Artist] == "Me"


def test_text_of_a_png_is_kept_in_a_png() -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Title", "Straße")
    info.add_itxt("XML:com.adobe.xmp", (XMP % 3).decode())
    _, output, lost = through(saved(noise(), "PNG", pnginfo=info), "PNG")
    assert (output.info["Title"], output.info["xmp"], lost) == ("Straße", XMP % 1, [])
    assert through(saved(noise(), "PNG", pnginfo=info), "JPEG")[2] == ["PNG text"]


def test_broken_exif_and_giant_metadata_are_named_and_left_out() -> None:
    big = Image.Exif()
    big[ExifTags.Base.Artist] = "x" * 70_000
    _, output, lost = through(saved(noise(), "PNG", exif=big), "JPEG")
    assert lost == ["EXIF of more than 64 KB"]
    assert output.getexif()[ExifTags.Base.Software]
    _, output, lost = through(saved(noise(), "WEBP", xmp=XMP % 1 + b" " * 70_000), "JPEG")
    assert lost == ["XMP of more than 64 KB"]
    _, output, lost = through(saved(noise(), "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"), "PNG")
    assert output.getexif()[ExifTags.Base.Software]


# Profiles


def test_the_output_looks_the_same_under_its_profile(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(saved(smooth(), "PNG", icc_profile=ADOBE_PROFILE))
    image, output, _ = through(file.read_bytes(), "PNG")
    assert np.array_equal(image.frames[0].colors, read_image(file))  # what the network sees
    assert np.abs(array(image.frames[0].colors) - array(smooth())).max() > 5
    out = tmp_path / "y.png"
    out.write_bytes(encode(image, "PNG")[0])
    assert np.abs(array(read_image(out)) - array(read_image(file))).max() <= 1
    assert np.abs(array(output) - array(smooth())).max() <= 2


def test_an_srgb_profile_is_kept_and_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    _, output, lost = through(saved(noise(), "PNG", icc_profile=profile), "PNG")
    assert np.array_equal(output, noise())
    assert (output.info["icc_profile"], lost) == (profile, [])


def test_profiles_that_the_output_cannot_carry_are_named() -> None:
    for profile, mode in ((b"broken", "RGB"), (CMYK_PROFILE, "RGB")):
        _, output, lost = through(saved(noise().convert(mode), "PNG", icc_profile=profile), "PNG")
        assert lost == ["its ICC profile (the output is in sRGB)"]
        assert "icc_profile" not in output.info
    _, output, lost = through(saved(noise().convert("CMYK"), "TIFF", icc_profile=CMYK_PROFILE), "TIFF")
    assert (output.mode, lost) == ("RGB", ["its ICC profile (the output is in sRGB)", "CMYK (the output is in RGB)"])
    _, output, lost = through(saved(smooth(), "PNG", icc_profile=ADOBE_PROFILE), "BMP")
    assert lost == ["metadata"]
    assert np.abs(array(output) - array(smooth())).max() > 5  # sRGB, as no profile says otherwise


# Transparency


@pytest.mark.parametrize(("source", "target"), [*product(("PNG", "WEBP", "TIFF"), ("PNG", "TIFF"))])
def test_transparency_is_kept_exactly(source: str, target: str) -> None:
    rgba = noise(channels=4)
    alpha = array(rgba)[..., 3:]
    image, output, lost = through(saved(rgba, source), target)
    assert (output.mode, lost) == ("RGBA", [])
    assert np.array_equal(output, np.where(alpha == 0, [255, 255, 255, 0], array(rgba)))
    assert isinstance(image.frames[0].colors, Image.Image)
    assert image.frames[0].colors.mode == "RGB"


@pytest.mark.parametrize("target", ["WEBP", "AVIF"])
def test_transparency_is_kept_in_lossy_formats(target: str) -> None:
    rgba = smooth()
    rgba.putalpha(smooth().getchannel(0))
    _, output, lost = through(saved(rgba, "PNG"), target)
    assert (output.mode, lost) == ("RGBA", [])
    assert np.abs(array(output)[..., 3] - array(rgba)[..., 3]).max() <= 4


@pytest.mark.parametrize("target", ["JPEG", "BMP"])
def test_what_holds_no_transparency_gets_white(tmp_path: Path, target: str) -> None:
    file = tmp_path / "x.png"
    rgba = smooth()
    rgba.putalpha(smooth().getchannel(0))
    file.write_bytes(saved(rgba, "PNG"))
    _, output, lost = through(file.read_bytes(), target, quality=100)
    assert lost == ["transparency (it became white)"]
    assert np.abs(array(output) - array(read_image(file))).max() <= 5


def test_an_opaque_alpha_channel_is_dropped() -> None:
    _, output, lost = through(saved(noise().convert("RGBA"), "PNG"), "JPEG")
    assert (output.mode, lost) == ("RGB", [])


def test_opaque_images_are_what_training_reads(tmp_path: Path) -> None:
    file = tmp_path / "x"
    for mode, image_format in (("RGB", "JPEG"), ("L", "JPEG"), ("P", "PNG"), ("1", "PNG"), ("CMYK", "JPEG")):
        file.write_bytes(saved(noise().convert(mode), image_format))
        assert np.array_equal(read_image_file(file).frames[0].colors, read_image(file)), mode


# Gray


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF"])
def test_gray_stays_gray_on_request(image_format: str) -> None:
    gray = smooth().getchannel(0)
    for stored in (gray, gray.convert("RGB")):
        image = decode_bytes(saved(stored, image_format), "x")
        assert has_gray_colors(image)
        output = opened(encode(image, image_format, 100, gray=True)[0])
        assert output.mode == "L"
        assert np.abs(array(output) - array(gray)).max() <= 2 * (image_format == "JPEG")
        assert opened(encode(image, image_format)[0]).mode == "RGB"
    assert not has_gray_colors(decode_bytes(saved(smooth(), image_format), "x"))


def test_a_gray_image_keeps_its_profile_in_gray() -> None:
    gray = smooth().getchannel(0)
    content = saved(gray, "PNG", icc_profile=GRAY_PROFILE)
    _, output, lost = through(content, "PNG", gray=True)
    assert (output.mode, output.info["icc_profile"], lost) == ("L", GRAY_PROFILE, [])
    assert np.abs(array(output) - array(gray)).max() <= 2
    _, output, lost = through(content, "PNG")
    assert (output.mode, lost) == ("RGB", ["the ICC profile of a gray image"])
    assert "icc_profile" not in output.info


# Animations


def frames_of(content: bytes) -> tuple[list[np.ndarray], list[float]]:
    frames, durations = [], []
    with Image.open(io.BytesIO(content)) as image:
        for k in range(getattr(image, "n_frames", 1)):
            image.seek(k)
            image.load()
            frames.append(array(image.convert("RGBA")))
            durations.append(image.info.get("duration"))
    return frames, durations


def animation(image_format: str, frames: Sequence[Image.Image], **options: Any) -> bytes:
    return saved(frames[0], image_format, save_all=True, append_images=frames[1:], **options)


DURATIONS = [50, 100, 150, 20]


@pytest.mark.parametrize(("source", "target"), [*product(ANIMATED_FORMATS, ANIMATED_FORMATS)])
def test_all_frames_of_an_animation_are_kept(tmp_path: Path, source: str, target: str) -> None:
    frames = [Image.fromarray((array(smooth()) + 12 * k).astype(np.uint8)) for k in range(4)]
    content = animation(source, frames, duration=DURATIONS)
    before, _ = frames_of(content)
    image = decode_bytes(content, "x")
    assert [frame.duration for frame in image.frames] == DURATIONS
    output, _ = encode(image, target, 100)
    after, durations = frames_of(output)
    assert durations == DURATIONS
    assert len(after) == 4
    assert max(np.abs(a - b).mean() for a, b in zip(after, before, strict=True)) < 4
    (tmp_path / "x").write_bytes(content)
    extent = read_extent(tmp_path / "x")
    assert (extent.width, extent.height, extent.frames, extent.deep) == (48, 32, 4, False)


@pytest.mark.parametrize("plays", [0, 1, 3])
@pytest.mark.parametrize(("source", "target"), [*product(("GIF", "WEBP", "PNG"), ("GIF", "WEBP", "PNG"))])
def test_an_animation_plays_as_often(source: str, target: str, plays: int) -> None:
    def loop_of(image_format: str) -> dict[str, int]:
        if image_format == "GIF":  # says how often it is repeated
            return {} if plays == 1 else {"loop": max(plays - 1, 0)}
        return {"loop": plays}

    content = animation(source, [noise(), noise(seed=1)], duration=100, **loop_of(source))
    image = decode_bytes(content, "x")
    assert image.plays == plays
    output = opened(encode(image, target)[0])
    assert output.info.get("loop") == loop_of(target).get("loop")


@pytest.mark.parametrize("target", ["GIF", "WEBP", "PNG"])
def test_transparent_animations_show_nothing_of_earlier_frames(target: str) -> None:
    frames = []
    for k in range(3):
        frame = Image.new("RGBA", (30, 10), (0, 0, 0, 0))
        ImageDraw.Draw(frame).ellipse((10 * k, 0, 10 * k + 9, 9), (200, 30 * k, 10, 255))
        frames.append(frame)
    content = animation("GIF", frames, duration=100, disposal=2)
    after, _ = frames_of(encode(decode_bytes(content, "x"), target, 100)[0])
    for k, frame in enumerate(after):
        assert np.array_equal(frame[..., 3] > 0, array(frames[k])[..., 3] > 0), k


def test_what_holds_no_animation_gets_the_first_frame() -> None:
    content = animation("GIF", [noise().quantize(64), noise(seed=1).quantize(64)], duration=100)
    _, output, lost = through(content, "TIFF")
    assert lost == ["frames after the first"]
    assert np.array_equal(array(output.convert("RGB")), frames_of(content)[0][0][..., :3])


def test_further_pages_are_named() -> None:
    _, output, lost = through(animation("TIFF", [noise(), noise(seed=1)]), "TIFF")
    assert lost == ["further pages or images"]
    assert np.array_equal(output, noise())


def test_a_giant_animation_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = animation("GIF", [noise(400, 300, seed=k).convert("L") for k in range(30)])
    monkeypatch.setattr("unit.images.reading._SMALL", 0)
    monkeypatch.setattr("unit.images.reading.available_memory", lambda: 20_000_000)
    with pytest.raises(ImageError, match=r"x: 400x300 pixels take .* of memory"):
        decode_bytes(content, "x")


# HEIC


def heic(image: Image.Image, **options: Any) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, quality=100, **options)
    return out.getvalue()


def test_heic_is_read_with_its_metadata(tmp_path: Path) -> None:
    content = heic(smooth(), exif=photo_exif(6).tobytes(), icc_profile=None)
    image, output, lost = through(content, "JPEG", quality=100)
    assert image.format == "HEIF"
    assert lost == []
    assert output.size == (32, 48)  # upright
    assert np.abs(array(output) - array(smooth().transpose(Image.Transpose.ROTATE_270))).mean() < 4
    assert output.getexif()[ExifTags.Base.Artist] == "Someone"
    assert output.getexif().get(ExifTags.Base.Orientation, 1) == 1
    file = tmp_path / "x.heic"
    file.write_bytes(content)
    assert read_extent(file).frames == 1
    with pytest.raises(ImageError):  # training reads what it always read
        read_image(file)


def test_without_pillow_heif_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "x.heic"
    file.write_bytes(heic(smooth()))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ConfigError) as caught:
        read_image_file(file)
    assert str(caught.value) == f"{file}: the package pillow-heif is not installed; pip install pillow-heif"


# Damage


@pytest.mark.parametrize("image_format", ["TIFF", "WEBP", "JPEG", "GIF", "AVIF"])
def test_damage_anywhere_is_an_image_error_or_harmless(image_format: str) -> None:
    """Whatever the metadata became, it never costs an image that can be decoded."""
    options = {} if image_format == "GIF" else {"exif": photo_exif(6), "icc_profile": ADOBE_PROFILE}
    content = bytearray(saved(noise(12, 8).convert("P" if image_format == "GIF" else "RGB"), image_format, **options))
    rng = np.random.default_rng(0)
    survived = 0
    for _ in range(60):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 3):
            damaged[position] = rng.integers(256)
        try:
            image = decode_bytes(bytes(damaged), "x")
        except ImageError:
            continue
        survived += 1
        for target in METADATA_FORMATS:
            opened(encode(image, target)[0])
    assert survived > 5

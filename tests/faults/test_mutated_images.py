"""Thousands of damaged and hostile images: each is an image or one line, soon, and in little memory.

They are read in a process of its own, `python -m tests.faults.test_mutated_images`, so that a crash, a hang and the
memory it takes are seen. Mutant number k is always the same.
"""

from __future__ import annotations

import faulthandler
import io
import json
import logging
import random
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from unit.errors import ImageError, escape
from unit.images import MAX_PIXELS, read_header, read_image

SECONDS = 10
"""that a file may take"""
MEGABYTES = 100
"""that all files together may add to the process, at most `PIXELS` each"""
PIXELS = 1_000_000

# Whole files


def photograph(mode: str = "RGB", width: int = 40, height: int = 24) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3))
    colors = np.stack([x * 4, y * 7, (x + y) * 3], -1) % 196 + noise
    return Image.fromarray(colors.astype(np.uint8)).convert(mode)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png(
    width: int, height: int, data: bytes, before: bytes = b"", depth: int = 8, kind: int = 2, lace: int = 0
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, lace)
    return SIGNATURE + chunk(b"IHDR", header) + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def interlaced_png() -> bytes:
    gray = np.asarray(photograph("L"))
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]
    rows = (row for y, dy, x, dx in passes for row in gray[y::dy, x::dx])
    return png(*gray.shape[::-1], zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)), kind=0, lace=1)


def deep_png() -> bytes:
    rows = [b"\0" + random.Random(y).randbytes(40 * 8) for y in range(24)]
    return png(40, 24, zlib.compress(b"".join(rows)), depth=16, kind=6)


def tiff(width: int, height: int, data: bytes, tags: dict[int, tuple[int, int, int]], order: str = "<") -> bytes:
    """One directory behind the data, which begins at byte 8; a tag is (type, count, value)."""
    entries = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
    entries |= {273: (4, 1, 8), 278: (4, 1, height), 279: (4, 1, len(data))} | tags
    value = {1: "B3x", 3: "H2x", 4: "L", 7: "L"}
    directory = b"".join(
        struct.pack(f"{order}HHL", tag, kind, count) + struct.pack(order + value[kind if count == 1 else 4], number)
        for tag, (kind, count, number) in sorted(entries.items())
    )
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}L", 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(entries)) + directory + bytes(4)


def tiled_tiff(order: str, pack: Callable[[bytes], bytes], compression: int) -> bytes:
    """16x16 tiles, the places and lengths of which lie before them."""
    tiles = [pack(random.Random(n).randbytes(128) * 2) for n in range(6)]
    offsets = [8 + 48]
    for tile in tiles[:-1]:
        offsets.append(offsets[-1] + len(tile))
    table = struct.pack(f"{order}12L", *offsets, *map(len, tiles))
    tags = {259: (3, 1, compression), 322: (3, 1, 16), 323: (3, 1, 16), 324: (4, 6, 8), 325: (4, 6, 8 + 24)}
    return tiff(40, 24, table + b"".join(tiles), tags, order)


def planar_tiff() -> bytes:
    planes = photograph().split()
    table = struct.pack("<6L3Hxx", *(8 + 32 + n * 960 for n in range(3)), 960, 960, 960, 8, 8, 8)
    tags = {258: (3, 3, 8 + 24), 262: (3, 1, 2), 277: (3, 1, 3), 284: (3, 1, 2), 273: (4, 3, 8), 279: (4, 3, 8 + 12)}
    return tiff(40, 24, table + b"".join(plane.tobytes() for plane in planes), tags)


def make_originals() -> dict[str, list[bytes]]:
    """By the ending; each is read as it is."""
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010E: "a photograph", 0x8769: {0x9003: "2020:01:01 00:00:00"}, 0x8825: {1: "N"}})
    about = {"exif": exif.tobytes(), "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 60, zip=True)
    text.add_itxt("XML:com.adobe.xmp", "<x tiff:Orientation='3'/>", zip=True)
    deep = Image.fromarray(np.arange(960, dtype=np.uint16).reshape(24, 40) * 68)
    rgb, palette = photograph(), photograph().quantize(32)
    films = {"save_all": True, "append_images": [photograph().rotate(turn) for turn in (90, 180)], "duration": 50}
    pages = {"save_all": True, "append_images": [photograph("L"), photograph("1")]}
    return {
        "png": [
            *(saved(photograph(mode), "PNG") for mode in ("1", "L", "LA", "RGB", "RGBA")),
            *(saved(palette, "PNG", bits=bits) for bits in (8, 4)),
            saved(palette, "PNG", transparency=3),
            *(saved(deep, "PNG"), deep_png(), interlaced_png()),
            *(saved(rgb, "PNG", pnginfo=text, **about), saved(rgb, "PNG", **films)),
        ],
        "jpg": [
            *(saved(photograph(mode), "JPEG") for mode in ("L", "RGB", "CMYK")),
            *(saved(rgb, "JPEG", quality=95, subsampling=0, comment=b"a comment"), saved(rgb, "JPEG", **about)),
            *(saved(rgb, "JPEG", progressive=True), saved(rgb, "JPEG", restart_marker_blocks=2, optimize=True)),
            saved(rgb, "MPO", save_all=True, append_images=[rgb]),
        ],
        "webp": [
            *(saved(rgb, "WEBP"), saved(rgb, "WEBP", lossless=True), saved(rgb, "WEBP", **about, xmp=b"<x/>")),
            *(saved(photograph("RGBA"), "WEBP", lossless=lossless) for lossless in (False, True)),
            saved(rgb, "WEBP", **films),
        ],
        "tif": [
            *(saved(photograph(mode), "TIFF") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB")),
            *(saved(rgb, "TIFF", compression=f"tiff_{how}") for how in ("lzw", "adobe_deflate", "jpeg")),
            *(saved(rgb, "TIFF", compression=how) for how in ("packbits", "zstd", "lzma")),
            *(saved(photograph("1"), "TIFF", compression=f"group{n}") for n in (3, 4)),
            *(saved(photograph("YCbCr"), "TIFF", compression="tiff_lzw"), saved(deep, "TIFF"), planar_tiff()),
            *(tiled_tiff("<", bytes, 1), tiled_tiff(">", bytes, 1), tiled_tiff("<", zlib.compress, 8)),
            *(saved(rgb, "TIFF", **about), saved(rgb, "TIFF", big_tiff=True), saved(rgb, "TIFF", **pages)),
        ],
        "gif": [
            *(saved(photograph(mode), "GIF") for mode in ("1", "L", "RGB")),
            *(saved(palette, "GIF", interlace=lace, comment=b"a comment" * 40) for lace in (0, 1)),
            *(saved(palette, "GIF", transparency=3), saved(rgb, "GIF", **films, loop=0, disposal=2)),
        ],
    }


# Damage

Damage = Callable[[bytearray, random.Random, bytes], None]
ODD = [0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]


def random_offset(data: bytearray, rng: random.Random) -> int:
    """Often near the start, where the header is."""
    return rng.randrange(max(1, min(len(data), rng.choice([32, 128, len(data)]))))


def cut(data: bytearray, rng: random.Random, other: bytes) -> None:
    del data[random_offset(data, rng) :]


def flip(data: bytearray, rng: random.Random, other: bytes) -> None:
    for _ in range(rng.choice([1, 1, 4, 30]) if data else 0):
        data[random_offset(data, rng)] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, rng: random.Random, other: bytes) -> None:
    for _ in range(rng.choice([1, 3, 20]) if data else 0):
        data[random_offset(data, rng)] = rng.randrange(256)


def lie(data: bytearray, rng: random.Random, other: bytes) -> None:
    """An odd number in some field: a size, an offset, a count."""
    size, order = rng.choice([1, 2, 4]), rng.choice(["big", "little"])
    start = random_offset(data, rng)
    data[start : start + size] = (rng.choice(ODD) % 256**size).to_bytes(size, order)


def repeat(data: bytearray, rng: random.Random, other: bytes) -> None:
    start, length = random_offset(data, rng), rng.choice([1, 16, 200])
    data[start:start] = data[start : start + length] * rng.choice([1, 3, 50])


def remove(data: bytearray, rng: random.Random, other: bytes) -> None:
    start = random_offset(data, rng)
    del data[start : start + rng.choice([1, 2, 12, 100])]


def splice(data: bytearray, rng: random.Random, other: bytes) -> None:
    data[random_offset(data, rng) :] = other[rng.randrange(len(other)) :]


def regions(data: bytes) -> list[int]:
    """Where PNG's chunks, RIFF's chunks and JPEG's segments begin, as far as they can be followed."""
    starts, here = [], {b"\x89P": 8, b"RI": 12, b"\xff\xd8": 2}.get(bytes(data[:2]), len(data))
    while here + 8 <= len(data):
        starts.append(here)
        match data[:1]:
            case b"\x89":
                here += 12 + int.from_bytes(data[here : here + 4])
            case b"R":
                here += 8 + int.from_bytes(data[here + 4 : here + 8], "little")
            case _:
                here += 2 + int.from_bytes(data[here + 2 : here + 4])
    return starts


def shuffle(data: bytearray, rng: random.Random, other: bytes) -> None:
    """Whole chunks doubled, dropped or in another order, or one with a wrong length."""
    starts = regions(bytes(data))
    if len(starts) < 2:
        return lie(data, rng, other)
    if rng.random() < 0.3:
        field, size = {b"\x89": (0, 4), b"R": (4, 4)}.get(bytes(data[:1]), (2, 2))
        start = rng.choice(starts) + field
        data[start : start + size] = (rng.choice(ODD) % 256**size).to_bytes(size, rng.choice(["big", "little"]))
        return None
    parts = [data[a:b] for a, b in pairwise([*starts, len(data)])]
    data[starts[0] :] = b"".join(rng.choices(parts, k=rng.randrange(1, 2 * len(parts))))
    return None


def beneath(data: bytearray, rng: random.Random, other: bytes) -> None:
    """Within a chunk of a PNG, of pixels before they are packed, so that length, checksum and unpacking go well."""
    starts = regions(bytes(data)) if data.startswith(SIGNATURE) else []
    if not starts:
        return flip(data, rng, other)
    start = rng.choice(starts)
    end = start + 12 + int.from_bytes(data[start : start + 4])
    kind, body = bytes(data[start + 4 : start + 8]), data[start + 8 : end - 4]
    damage = rng.choice([cut, flip, overwrite, lie, repeat, remove])
    try:
        packed = bytearray(zlib.decompress(body)) if kind == b"IDAT" else body
    except zlib.error:
        return None
    damage(packed, rng, other)
    data[start:end] = chunk(kind, zlib.compress(packed) if kind == b"IDAT" else bytes(packed))
    return None


def resize(data: bytearray, rng: random.Random, other: bytes) -> None:
    """Another width and height: mostly giant, sometimes a little larger than the data."""
    width, height = (rng.choice([0, 1, 41, 400, 999, 1001, 16383, 65535, 2**31 - 1]) for _ in range(2))
    if data.startswith(b"\x89PNG"):
        data[16:24] = struct.pack(">II", width, height)
    elif data.startswith(b"GIF"):
        data[6:10] = struct.pack("<HH", width % 65536, height % 65536)
    elif data.startswith(b"\xff\xd8"):
        frames = [start for start in regions(bytes(data)) if data[start + 1] in (0xC0, 0xC2)]
        if frames:
            data[frames[0] + 5 : frames[0] + 9] = struct.pack(">HH", height % 65536, width % 65536)
    elif data[12:16] == b"VP8X":
        data[24:30] = b"".join((side % 2**24).to_bytes(3, "little") for side in (width, height))
    elif data.startswith((b"II", b"MM")):
        order = "little" if data.startswith(b"II") else "big"
        directory = int.from_bytes(data[4:8], order) + 2
        for tag, side in ((256, width), (257, height)):
            entry = data.find(tag.to_bytes(2, order), directory)
            if entry >= 0:
                data[entry + 2 : entry + 12] = b"".join(
                    n.to_bytes(size, order) for n, size in ((4, 2), (1, 4), (side, 4))
                )


def sealed(data: bytes) -> bytes:
    """A PNG with the checksums that its chunks should have, so that the damage goes unnoticed at first."""
    fixed = bytearray(data)
    for start in regions(data) if data.startswith(SIGNATURE) else []:
        end = start + 8 + int.from_bytes(data[start : start + 4])
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(data[start + 4 : end])) if end + 4 <= len(data) else b""
    return bytes(fixed)


DAMAGES: list[Damage] = [cut, flip, overwrite, lie, repeat, remove, splice, shuffle, resize, *[beneath] * 4]


def mutant(number: int, originals: dict[str, list[bytes]]) -> tuple[str, bytes]:
    """Ending and content of a damaged file."""
    rng = random.Random(number)
    ending = list(originals)[number % len(originals)]
    data = bytearray(rng.choice(originals[ending]))
    other = rng.choice(originals[rng.choice([ending, *originals])])
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        rng.choice(DAMAGES)(data, rng, other)
    return ending, sealed(bytes(data)) if rng.random() < 0.7 else bytes(data)


# Reading them


def attempt(path: Path, max_pixels: int) -> str:
    """The outcome of reading: "read" or the reason; anything but an image or a proper `ImageError` is an error."""
    try:
        header = read_header(path)
        assert header.width > 0
        assert header.height > 0
    except ImageError as error:
        reason_of(error, path)
    try:
        image = read_image(path, max_pixels)
    except ImageError as error:
        return reason_of(error, path)
    assert image.mode == "RGB"
    assert 0 < image.width * image.height <= max_pixels
    assert len(image.tobytes()) == 3 * image.width * image.height
    return "read"


def reason_of(error: ImageError, path: Path) -> str:
    message, name = str(error), f"{escape(path)}: "
    assert message.startswith(name), message
    assert message.isprintable(), message
    assert len(message) < len(name) + 400, message
    assert "this machine's memory" not in message, message  # of which it has far more than it should need
    return message.removeprefix(name)


def memory() -> int:
    """The most this process has held, in MB; not `ru_maxrss`, which begins with that of the process that started us."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) // 1000 for line in status.splitlines() if line.startswith("VmHWM"))


def read_all(files: Iterable[tuple[str, Path]], max_pixels: int) -> dict[str, Any]:
    """Read the files of these kinds and delete them; one that crashes or hangs is left."""
    logging.basicConfig(stream=sys.stdout)  # a decoder's own message would be a line of our report
    resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))  # spares the machine, should we be wrong
    faulthandler.enable()
    before = memory()
    counts, reasons, slowest, started = Counter[str](), dict[str, str](), (0.0, ""), time.monotonic()
    for kind, path in files:
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        begun = time.monotonic()
        reasons[kind] = attempt(path, max_pixels)
        slowest = max(slowest, (time.monotonic() - begun, path.name))
        counts[f"{kind} {'read' if reasons[kind] == 'read' else 'refused'}"] += 1
        path.unlink()
    faulthandler.cancel_dump_traceback_later()
    seconds = time.monotonic() - started
    return {
        "counts": counts,
        "reasons": reasons,
        "slowest": slowest,
        "seconds": seconds,
        "megabytes": memory() - before,
    }


def mutants(folder: Path, count: int) -> Iterator[tuple[str, Path]]:
    originals = make_originals()
    for number in range(count):
        ending, content = mutant(number, originals)
        path = folder / f"{number}.{ending}"
        path.write_bytes(content)
        yield ending, path


def in_a_process(*words: str | Path) -> dict[str, Any]:
    command = [sys.executable, "-W", "error", "-m", __name__, *map(str, words)]
    done = subprocess.run(command, capture_output=True, check=False, cwd=Path(__file__).parents[2])
    said = done.stdout.decode() + done.stderr.decode(errors="replace")[-4000:]
    assert done.returncode == 0, f"{said}\nstatus {done.returncode}; the file that did it is the one left over"
    (line,) = done.stdout.splitlines()
    report: dict[str, Any] = json.loads(line)
    return report


linux = pytest.mark.skipif(sys.platform != "linux", reason="measures memory in /proc")


# The tests


def test_the_original_files_are_read(tmp_path: Path) -> None:
    for ending, files in make_originals().items():
        for number, original in enumerate(files):
            path = tmp_path / f"{number}.{ending}"
            path.write_bytes(original)
            assert attempt(path, PIXELS) == "read", f"{ending} {number}"


@linux
def test_mutants(tmp_path: Path, long: bool, capsys: pytest.CaptureFixture[str]) -> None:
    count = 25_000 if long else 900
    report = in_a_process("mutants", tmp_path, str(count))
    counts = report["counts"]
    assert sum(counts.values()) == count
    for ending in make_originals():
        share = counts[f"{ending} read"] * len(make_originals()) / count
        assert 0.1 < share < 0.9, f"{ending}: {share}"  # neither all harmless nor all refused at the first byte
    assert report["megabytes"] < MEGABYTES
    assert list(tmp_path.iterdir()) == []
    if long:
        with capsys.disabled():
            print(f"\nmutated images: {json.dumps(report | {'reasons': None})}")


ORIGINALS = make_originals()


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([(ending, n) for ending, originals in ORIGINALS.items() for n in range(len(originals))]),
    st.lists(st.tuples(st.integers(0, 999), st.integers(0, 20), st.binary(max_size=20)), max_size=5),
    st.booleans(),
)
def test_any_edit(
    tmp_path_factory: pytest.TempPathFactory, original: tuple[str, int], edits: list[tuple[int, int, bytes]], seal: bool
) -> None:
    """The same from Hypothesis, which makes what fails small."""
    data = bytearray(ORIGINALS[original[0]][original[1]])
    for where, removed, added in edits:
        start = where * len(data) // 1000
        data[start : start + removed] = added
    path = tmp_path_factory.getbasetemp() / f"any.{original[0]}"
    path.write_bytes(sealed(bytes(data)) if seal else data)
    assert attempt(path, PIXELS)
    path.unlink()


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(
        [b"", SIGNATURE, b"\xff\xd8\xff", b"RIFF\x40\0\0\0WEBPVP8X", b"II*\0\x08\0\0\0", b"MM\0+", b"GIF89a"]
    ),
    st.binary(max_size=200),
)
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, head: bytes, rest: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.png"
    path.write_bytes(head + rest)
    assert attempt(path, PIXELS)
    path.unlink()


# Bombs: small files that would be large, or would take long

ROW = zlib.compress((b"\0" + bytes(24)) * 8)  # 8x8
ZEROS = zlib.compress(bytes(50_000_000), 9)


def giant_jpeg() -> bytes:
    data = bytearray(saved(photograph(), "JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = b"\xff" * 4
    return bytes(data)


def jpeg_of_many_scans(count: int) -> bytes:
    """Its last scan again and again: 48 bytes, and a pass over 25 megapixels each."""
    data = saved(Image.new("L", (5000, 5000)), "JPEG", progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * count + data[-2:]


def giant_gif() -> bytes:
    data = bytearray(saved(photograph("L"), "GIF"))
    data[6:10] = b"\xff" * 4
    return bytes(data)


def giant_icon() -> bytes:
    """Pillow decodes it when it is opened."""
    image = png(60_000, 60_000, b"", depth=1, kind=0)
    return struct.pack("<3H4B2H2L", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(image), 22) + image


def gif_with(extra: Callable[[bytes], bytes]) -> bytes:
    """8x8, with something, made of its one frame, before that."""
    data = saved(Image.new("1", (8, 8)), "GIF")
    start = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:start] + extra(data[start:-1]) + data[start:]


def giant_webp() -> bytes:
    frame = bytes(6) + (7).to_bytes(3, "little") * 2 + bytes(4) + saved(photograph("RGB", 8, 8), "WEBP")[12:]
    parts = {b"VP8X": b"\2\0\0\0" + b"\xfe\x3f\0" * 2, b"ANIM": bytes(6), b"ANMF": frame}  # 16383x16383
    body = b"WEBP" + b"".join(name + struct.pack("<L", len(part)) + part for name, part in parts.items())
    return b"RIFF" + struct.pack("<L", len(body)) + body


def many_tags(count: int, size: int) -> bytes:
    """All of them hold the same megabyte."""
    tags = b"".join(struct.pack("<HHLL", 1000 + n, 7, size, 8) for n in range(count))
    return b"II*\0" + struct.pack("<L", 8 + size) + bytes(size) + struct.pack("<H", count) + tags + bytes(4)


def many_pages(count: int) -> bytes:
    page = saved(Image.new("L", (1, 1)), "TIFF")
    start = int.from_bytes(page[4:8], "little")
    directory = page[start : start + 2 + 12 * int.from_bytes(page[start : start + 2], "little")]
    ends = (len(page) + (n + 1) * (len(directory) + 4) for n in range(count))
    first = page[: start + len(directory)] + struct.pack("<L", len(page)) + page[start + len(directory) + 4 :]
    return first + b"".join(directory + struct.pack("<L", end) for end in ends)


def exif_in_jpeg(exif: bytes) -> bytes:
    data = saved(photograph(), "JPEG")
    parts = [exif[start : start + 65_000] for start in range(0, len(exif), 65_000)]
    heads = (b"\xff\xe1" + struct.pack(">H", 8 + len(part)) + b"Exif\0\0" for part in parts)
    return data[:2] + b"".join(head + part for head, part in zip(heads, parts, strict=True)) + data[2:]


def odd_tiff(**tags: tuple[int, int, int]) -> bytes:
    return tiff(8, 8, bytes(64), {int(tag[1:]): value for tag, value in tags.items()})


def looping_tiff() -> bytes:
    data = tiff(8, 8, bytes(64), {})
    return data[:-4] + data[4:8]


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "giant.png": (lambda: png(2**31 - 1, 2**31 - 1, b""), "pixels; make it smaller"),
    "wide.png": (lambda: png(2**31 - 1, 1, b""), "pixels; make it smaller"),
    "giant.tif": (lambda: tiff(2**32 - 1, 2**32 - 1, b"", {}), "pixels; make it smaller"),
    "giant.webp": (giant_webp, "pixels; make it smaller"),
    "giant.gif": (giant_gif, "pixels; make it smaller"),
    "giant.ico": (giant_icon, "an icon that holds a giant image"),
    "giant.jpg": (giant_jpeg, "pixels; make it smaller"),
    "ztxt.png": (lambda: png(8, 8, ROW, chunk(b"zTXt", b"c\0\0" + ZEROS)), "too large"),
    "itxt.png": (lambda: png(8, 8, ROW, chunk(b"iTXt", b"c\0\1\0\0\0" + ZEROS)), "too large"),
    "iccp.png": (lambda: png(8, 8, ROW, chunk(b"iCCP", b"c\0\0" + ZEROS)), "too large"),
    "texts.png": (
        lambda: png(8, 8, ROW, chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(10**6))) * 100),
        "Too much memory used in text chunks",
    ),
    "long.png": (lambda: png(8, 8, ZEROS), "read"),
    "chunks.png": (lambda: png(8, 8, ROW, chunk(b"tEXt", b"c\0x") * 20_000), "read"),
    "idats.png": (lambda: png(8, 8, ROW, chunk(b"IDAT", b"") * 100_000), "read"),
    "scans.jpg": (lambda: jpeg_of_many_scans(2000), "JPEG of more than 100 scans"),
    "exif.jpg": (lambda: exif_in_jpeg(many_tags(30_000, 10**6)), "read"),
    "exif.png": (lambda: png(8, 8, ROW, chunk(b"eXIf", many_tags(30_000, 10**6))), "read"),
    "frames.gif": (lambda: gif_with(lambda frame: frame * 20_000), "read"),
    "comment.gif": (lambda: gif_with(lambda _: b"!\xfe" + (b"\xff" + bytes(255)) * 40_000 + b"\0"), "read"),
    "tags.tif": (lambda: many_tags(30_000, 10**6), "not an image"),
    "pages.tif": (lambda: many_pages(20_000), "read"),
    "loop.tif": (looping_tiff, "read"),
    "strips.tif": (lambda: odd_tiff(t273=(4, 2**31, 8), t279=(4, 2**31, 8)), ""),
    "samples.tif": (lambda: odd_tiff(t277=(3, 1, 65535)), "not an image"),
    "tile.tif": (
        lambda: odd_tiff(t259=(3, 1, 5), t322=(4, 1, 65520), t323=(4, 1, 65520), t324=(4, 1, 8), t325=(4, 1, 64)),
        "damaged",
    ),
    "rows.tif": (lambda: odd_tiff(t259=(3, 1, 8), t278=(4, 1, 2**32 - 1)), "damaged"),
}


@linux
def test_bombs(tmp_path: Path, capsys: pytest.CaptureFixture[str], long: bool) -> None:
    for name, (content, _) in BOMBS.items():
        (tmp_path / name).write_bytes(content())
    report = in_a_process("files", tmp_path)
    assert report["reasons"].keys() == BOMBS.keys()
    for name, (_, words) in BOMBS.items():
        assert words in report["reasons"][name], name
    assert report["megabytes"] < MEGABYTES
    assert report["slowest"][0] < 5
    if long:
        with capsys.disabled():
            print(f"\nbombs: {json.dumps(report | {'reasons': None, 'counts': None})}")


def mac_icon(side: int) -> bytes:
    """A header that claims 128x128."""
    image = saved(Image.new("RGBA", (side, side)), "PNG")
    return struct.pack(">4sL4sL", b"icns", 16 + len(image), b"ic07", 8 + len(image)) + image


def test_an_icon_that_holds_more_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    path = tmp_path / "x.icns"
    path.write_bytes(mac_icon(128))
    assert read_image(path, 20_000).size == (128, 128)
    path.write_bytes(mac_icon(200))
    assert "holds a larger image than its header declares" in attempt(path, 20_000)
    assert Image.MAX_IMAGE_PIXELS == 10_000


@pytest.mark.parametrize("ending", ["tif", "png", "webp", "gif", "jpg"])
def test_pillows_own_limit_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """TIFF asks for it when it decodes, too."""
    path = tmp_path / f"x.{ending}"
    photograph().save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert attempt(path, 960) == "read"
    assert "40x24 is more than 959 pixels" in attempt(path, 959)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_markers_outside_the_image_are_not_counted_as_scans(tmp_path: Path) -> None:
    """A film behind the photograph, a thumbnail before it, as phones write them."""
    path, looks = tmp_path / "x.jpg", b"\xff\xda\0\x08" * 10_000
    photo = saved(photograph(), "JPEG", progressive=True)
    before = b"\xff\xe5" + struct.pack(">H", 2 + len(looks)) + looks
    path.write_bytes(photo[:2] + before + photo[2:] + looks)
    assert attempt(path, PIXELS) == "read"
    path.write_bytes(photo[:2] + before + jpeg_of_many_scans(101)[2:])
    assert "scans" in attempt(path, MAX_PIXELS)


if __name__ == "__main__":
    what, here, *number = sys.argv[1:]
    given_files = sorted(Path(here).iterdir())
    todo = mutants(Path(here), int(number[0])) if what == "mutants" else ((path.name, path) for path in given_files)
    print(json.dumps(read_all(todo, PIXELS if what == "mutants" else MAX_PIXELS)))

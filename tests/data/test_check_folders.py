"""Each class of finding is found on the files that have it, and on no clean photograph."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from unit.config import DataConfig
from unit.data.check import CHECKS, Finding, Report, check_folders, check_headers, describe_findings, pixels
from unit.data.check.parallel import parallel_map
from unit.data.check.pixels import find_similar
from unit.data.datasets import Datasets, open_datasets
from unit.data.shard_writer import write_shards
from unit.errors import UserError
from unit.images import read_header

SIZES = DataConfig(load_size=40, crop_size=32)


def photo(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """An image with structure of its own: bright and dark patches of a random position and colour."""
    patches = np.random.default_rng(seed).integers(20, 236, (6, 8, 3), np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def save(folder: Path, seeds: range, ending: str = "png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        photo(seed).save(folder / f"{seed:04}.{ending}")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two clean folders, and clean test folders."""
    for number, name in enumerate(("trainA", "trainB", "testA", "testB")):
        save(tmp_path / name, range(1000 * number, 1000 * number + 3))
    return tmp_path


def opened(root: Path) -> tuple[Datasets, DataConfig]:
    config = replace(SIZES, root=str(root))
    return open_datasets(config), config


def found(root: Path, decode: bool = True) -> list[tuple[str, str]]:
    """Class and file's name, but for that there are few images."""
    report = check_folders(*opened(root), decode=decode)
    return [(finding.check, Path(finding.file).name) for finding in report.findings if finding.check != "too-few"]


def test_clean_folders_have_no_findings(tmp_path: Path) -> None:
    for number, name in enumerate(("trainA", "trainB")):
        save(tmp_path / name, range(1000 * number, 1000 * number + 106), ("jpg", "png")[number])
    report = check_folders(*opened(tmp_path))
    assert report.findings == []
    assert report.usable
    assert sum(summary.images for summary in report.folders.values()) == 212
    assert report.folders["trainA"].short_side == 48
    assert report.folders["trainA"].brightness == pytest.approx((128, 5), abs=6)


def test_the_built_in_streets_have_no_findings() -> None:
    config = replace(SIZES, streets_train=3, streets_test=2)
    datasets = open_datasets(config)
    assert check_headers(datasets, config) == []
    assert check_folders(datasets, config) == Report({}, [])


# Headers


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def deep_color(path: Path) -> None:
    """A PNG of 16 bits a channel, which Pillow can't write."""
    rows = b"".join(b"\0" + bytes(64 * 6) for _ in range(48))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    content = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(content))


def other_ending(path: Path) -> None:
    photo(9).save(path, format="WEBP")


FILES: list[tuple[str, Callable[[Path], object], set[str]]] = [
    ("x.jpg", lambda path: path.write_text("<html>404</html>"), {"unreadable"}),
    ("x.png", lambda path: path.touch(), {"unreadable"}),
    ("x.jpg", os.mkfifo, {"unreadable"}),
    ("x.jpg", lambda path: path.symlink_to("/nowhere"), {"unreadable"}),
    ("x.jpg", lambda path: path.symlink_to("/dev/zero"), {"unreadable"}),
    ("x.tif", lambda path: Image.new("F", (64, 48)).save(path), {"unreadable"}),
    ("a\nb.png", lambda path: path.touch(), {"unreadable"}),
    ("x.png", lambda path: Image.new("1", (20_000, 10_001)).save(path), {"gray", "too-large"}),
    ("x.png", lambda path: Image.new("RGB", (1, 125_001)).save(path), {"too-thin", "too-small", "aspect"}),
    ("x.png", lambda path: photo(9, 31, 60).save(path), {"too-small"}),
    ("x.png", lambda path: photo(9, 32, 129).save(path), {"aspect"}),
    ("x.png", lambda path: photo(9, 128, 32).save(path), set()),
    *[(name, other_ending, {"misnamed"}) for name in ("x.jpg", "x.JPG")],
    *[(name, lambda path: path.touch(), {"unsupported"}) for name in ("x.HEIC", "x.cr2", "x.mp4")],
    ("x", lambda path: photo(9).save(path, format="JPEG"), {"unsupported"}),
    ("x.JPEG", lambda path: photo(9).save(path), set()),
    ("x.PNG", lambda path: photo(9).save(path), set()),
    *[
        (name, lambda path: photo(9).save(path, format="MPO", save_all=True, append_images=[photo(8)]), set())
        for name in ("x.mpo", "x.jpg")
    ],
    *[(f"x.{e}", lambda path: photo(9).save(path, exif=turned(6)), {"rotated"}) for e in ("jpg", "png", "tif", "webp")],
    ("x.jpg", lambda path: photo(9).save(path, exif=turned(1)), set()),
    ("x.jpg", lambda path: photo(9).save(path, exif=turned(77)), set()),
    *[(f"x.{e}", lambda path: photo(9).convert("L").save(path), {"gray"}) for e in ("jpg", "png", "tif")],
    ("x.png", lambda path: photo(9).convert("1").save(path), {"gray"}),
    ("x.png", lambda path: photo(9).convert("LA").save(path), {"gray", "alpha"}),
    ("x.png", lambda path: photo(9).convert("RGBA").save(path), {"alpha"}),
    ("x.png", lambda path: photo(9).save(path, transparency=(1, 2, 3)), {"alpha"}),
    ("x.gif", lambda path: photo(9).save(path), {"palette"}),
    ("x.png", lambda path: photo(9).quantize(9).save(path, transparency=3), {"palette", "alpha"}),
    *[(f"x.{e}", lambda path: photo(9).convert("CMYK").save(path), {"cmyk"}) for e in ("jpg", "tif")],
    ("x.tif", lambda path: photo(9).convert("LAB").save(path), set()),
    ("x.png", lambda path: Image.new("I;16", (64, 48)).save(path), {"gray", "16-bit"}),
    ("x.tif", lambda path: Image.new("I", (64, 48)).save(path), {"gray", "16-bit"}),
    ("x.png", deep_color, {"16-bit"}),
    ("x.pgm", lambda path: path.write_bytes(b"P5 64 48 65535\n" + bytes(64 * 48 * 2)), {"gray", "16-bit"}),
    *[
        (f"x.{e}", lambda path: photo(9).save(path, save_all=True, append_images=[photo(8)]), kinds)
        for e, kinds in (
            ("gif", {"palette", "animated"}),
            ("webp", {"animated"}),
            ("png", {"animated"}),
            ("tif", {"animated"}),
        )
    ],
]


@pytest.mark.parametrize(("name", "make", "kinds"), FILES)
@pytest.mark.parametrize("folder", ["trainB", "testA"])
def test_the_header_tells_the_class(
    root: Path, folder: str, name: str, make: Callable[[Path], object], kinds: set[str]
) -> None:
    make(root / folder / name)
    assert sorted(found(root, decode=False)) == sorted((kind, name) for kind in kinds)
    report = check_folders(*opened(root), decode=False)
    assert report.usable == (not kinds & {"unreadable", "too-large", "too-thin"})
    of_images = [finding for finding in report.findings if finding.check != "unsupported"]  # which opening them logs
    assert check_headers(*opened(root)) == of_images
    assert describe_findings(report.findings).replace("\n", "").isprintable()


@pytest.mark.parametrize("level", ["error", "warning", "note"])
def test_every_class_is_tried_here(level: str) -> None:
    of_images = {
        "damaged",
        "leak",
        "in-both",
        "duplicate",
        "near-duplicate",
        "dark",
        "overexposed",
        "blank",
        "brightness",
    }
    tried = of_images | {"too-few", "unbalanced", "sharpness"}.union(*(kinds for _, _, kinds in FILES))
    assert {name for name, kind in CHECKS.items() if kind.level == level} <= tried


def test_a_socket_and_a_file_without_permission_are_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "trainA")  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("x.jpg")
    locked = root / "trainB" / "0000.png"
    locked.write_bytes(b"x")
    really_open = Path.open

    def refuse(path: Path, *arguments: object, **options: object) -> object:
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return really_open(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)  # root may open everything
    assert found(root) == [("unreadable", "x.jpg"), ("unreadable", "0000.png")]


def test_a_file_that_vanishes_is_named(root: Path) -> None:
    datasets, config = opened(root)
    (root / "trainA" / "0001.png").unlink()
    (finding,) = [finding for finding in check_folders(datasets, config).findings if finding.check != "too-few"]
    assert finding == Finding(str(root / "trainA" / "0001.png"), "unreadable", "no such file")


def test_headers_are_read_without_decoding(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x.png", "x.jpg", "x.gif", "x.tif", "x.bmp"):
        photo(9).save(root / "trainA" / name)

    def decode(_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    assert found(root, decode=False) == [("palette", "x.gif")]


def test_a_header_has_the_files_metrics(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    photo(1, 50, 40).save(path, exif=turned(8))
    header = read_header(path)
    assert (header.width, header.height, header.mode, header.orientation) == (50, 40, "RGB", 8)
    assert header.bytes == path.stat().st_size
    assert not header.misnamed
    assert not read_header(path.rename(tmp_path / "without an ending")).misnamed


def test_of_a_large_folder_an_even_part_is_looked_at(tmp_path: Path) -> None:
    for name in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / name).mkdir()
        for k in range(100 if name == "trainA" else 10):
            (tmp_path / name / f"{k:03}.png").touch()
    datasets, config = opened(tmp_path)
    findings = check_headers(datasets, config, limit=10)
    names = [Path(finding.file).name for finding in findings if "trainA" in finding.file]
    assert names == [f"{k:03}.png" for k in range(0, 100, 10)]
    assert len(findings) == 40 + 2  # all files of the others; and few images, and far fewer than the other's, in trainB
    assert len([finding for finding in check_headers(datasets, config) if "trainA" in finding.file]) == 100


def test_too_few_are_few_in_training_alone(root: Path) -> None:
    findings = check_folders(*opened(root)).findings
    assert findings == [Finding(str(root / name), "too-few", "3 to train on") for name in ("trainA", "trainB")]


@pytest.mark.parametrize(("a", "b", "unbalanced"), [(4, 40, True), (40, 4, True), (4, 16, False), (100, 100, False)])
@pytest.mark.parametrize("shards", [False, True])
def test_few_and_unbalanced_images_are_remarked(tmp_path: Path, a: int, b: int, unbalanced: bool, shards: bool) -> None:
    paths = {}
    for name, count in (("a", a), ("b", b), ("test_a", 1), ("test_b", 1)):
        paths[name] = str(save(tmp_path / name, range(count)))
        if shards:
            paths[name] = write_shards(Path(paths[name]), tmp_path / "shards", 1000, 100)
    config = replace(SIZES, **paths)
    findings = check_headers(open_datasets(config), config)
    few = [finding for finding in findings if finding.check == "too-few"]
    assert [finding.detail for finding in few] == [f"{count} to train on" for count in (a, b) if count < 100]
    details = [finding.detail for finding in findings if finding.check == "unbalanced"]
    assert details == ([f"{min(a, b)} to train on, and {max(a, b)} of the other"] if unbalanced else [])


@pytest.mark.parametrize(
    ("side_a", "side_b", "blurred"), [(40, 30, "trainB"), (30, 400, "trainA"), (40, 400, None), (30, 30, None)]
)
def test_domains_of_different_sharpness(root: Path, side_a: int, side_b: int, blurred: str | None) -> None:
    for name, side in (("trainA", side_a), ("trainB", side_b)):
        for path in (root / name).iterdir():
            with Image.open(path) as image:
                image.resize((side, side)).save(path)
    names = [name for kind, name in found(root) if kind == "sharpness"]
    assert names == ([blurred] if blurred else [])


# Images


def test_a_file_cut_short_is_found_by_decoding_alone(root: Path) -> None:
    path = root / "trainA" / "x.jpg"
    photo(9, 300, 300).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert found(root, decode=False) == []
    assert found(root) == [("damaged", "x.jpg")]
    assert not check_folders(*opened(root)).usable


def test_a_file_that_vanishes_while_it_is_compared_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(0).save(root / "trainA" / "twin.png")

    def vanish(file: str) -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(pixels, "_digest", vanish)
    assert {kind for kind, _ in found(root)} == {"damaged"}


def test_black_white_and_plain_images_are_found_but_no_night(root: Path) -> None:
    night = Image.new("RGB", (64, 48), (3, 3, 5))
    for x in (8, 24, 40):
        night.paste((120, 110, 60), (x, 30, x + 8, 44))  # lamps, and their light on the street
    images = {"dark": Image.new("RGB", (64, 48), (4, 4, 9)), "overexposed": Image.new("RGB", (64, 48), "white")}
    images |= {"blank": Image.new("RGB", (64, 48), (90, 120, 200)), "night": night}
    for name, image in images.items():
        image.save(root / "testB" / f"{name}.png")
    assert found(root) == [(kind, f"{kind}.png") for kind in ("dark", "overexposed", "blank")]


@pytest.mark.parametrize(("factor", "kinds"), [(0.5, [("brightness", "trainB")]), (0.8, [])])
def test_domains_of_different_brightness(root: Path, factor: float, kinds: list[tuple[str, str]]) -> None:
    for path in (root / "trainB").iterdir():
        with Image.open(path) as image:
            image.point(lambda level: int(level * factor)).save(path)
    assert found(root) == kinds
    assert check_folders(*opened(root)).usable


# Copies


def test_copies_leaks_and_images_in_both_domains_are_distinguished(root: Path) -> None:
    for source, copy in (
        ("trainA/0000.png", "trainA/sub/copy.png"),
        ("trainA/0001.png", "testA/leak.png"),
        ("testB/3000.png", "testB/twice.png"),
        ("trainA/0002.png", "trainB/both.png"),
        ("testA/2000.png", "testB/scene.png"),
    ):
        (root / copy).parent.mkdir(exist_ok=True)
        shutil.copy(root / source, root / copy)
    assert found(root) == [
        ("leak", "leak.png"),
        ("in-both", "scene.png"),
        ("in-both", "both.png"),
        ("duplicate", "twice.png"),
        ("duplicate", "copy.png"),
    ]
    (leak,) = [finding for finding in check_folders(*opened(root)).findings if finding.check == "leak"]
    assert leak.detail == f"same file as {root / 'trainA' / '0001.png'}"


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_links_to_images_of_another_folder_are_found_without_reading(
    root: Path, link: Callable[[Path, Path], None]
) -> None:
    link(root / "trainA" / "0000.png", root / "trainB" / "in-both.png")
    link(root / "trainB" / "1001.png", root / "testB" / "leak.png")
    expected = {("in-both", "in-both.png"), ("leak", "leak.png")}
    assert expected == set(found(root, decode=False))
    assert expected <= {(f.check, Path(f.file).name) for f in check_headers(*opened(root), limit=1)}


def test_files_of_one_size_are_no_copies_for_that(root: Path) -> None:
    for seed in (50, 51):
        photo(seed).save(root / "trainA" / f"{seed}.bmp")
    assert (root / "trainA" / "50.bmp").stat().st_size == (root / "trainA" / "51.bmp").stat().st_size
    assert found(root) == []


@pytest.mark.parametrize("folder", ["trainA", "testA"])
@pytest.mark.parametrize(
    "change",
    [
        lambda image, path: image.save(path, quality=30),
        lambda image, path: image.resize((160, 120)).save(path),
        lambda image, path: image.point(lambda level: int(level * 0.8)).save(path),
        lambda image, path: image.convert("L").save(path),
        lambda image, path: image.save(path, exif=turned(1)),
    ],
)
def test_changed_copies_are_found(root: Path, folder: str, change: Callable[[Image.Image, Path], None]) -> None:
    photo(7, 320, 240).save(root / "trainA" / "a.jpg", quality=95)
    change(photo(7, 320, 240), root / folder / "b.jpg")
    findings = [pair for pair in found(root) if pair[0] != "gray"]
    assert findings == [("leak" if folder == "testA" else "near-duplicate", "b.jpg")]


def test_what_is_held_out_is_compared_with_what_is_trained_on(tmp_path: Path) -> None:
    for name in ("sunny", "rainy"):
        save(tmp_path / name, range(40) if name == "sunny" else range(100, 140))
    config = replace(SIZES, a=str(tmp_path / "sunny"), b=str(tmp_path / "rainy"))
    held = open_datasets(config).test.images.a.name(0)
    shutil.copy(tmp_path / "sunny" / held, tmp_path / "sunny" / "again.png")  # by its name, this one is trained on
    leaks = [finding for finding in check_folders(open_datasets(config), config).findings if finding.check == "leak"]
    assert [Path(finding.file).name for finding in leaks] == [held]


def test_a_single_image_is_not_its_own_leak(tmp_path: Path) -> None:
    for number, name in enumerate(("trainA", "trainB")):
        save(tmp_path / name, range(number, number + 1))
    assert found(tmp_path) == []


def test_different_streets_are_not_alike() -> None:
    datasets = open_datasets(DataConfig(load_size=32, crop_size=32, streets_train=60, streets_test=1))
    for source in datasets.train:
        assert set(find_similar(thumbnails([source.image(k) for k in range(60)]))) == {-1}


def thumbnails(images: list[Image.Image]) -> np.ndarray:
    small = [image.convert("L").resize((16, 16), Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image) for image in small])


def test_plain_and_smooth_images_are_like_nothing() -> None:
    ramp = np.linspace(0, 40, 16)
    sky = np.stack([np.full((16, 16), 9.0), *(np.add.outer(ramp, np.full(16, base)) for base in (100, 120))])
    assert find_similar(np.repeat(sky, 2, axis=0).astype(np.uint8)) == [-1] * 6


def test_edges_of_both_directions_count() -> None:
    stripes = np.repeat(np.random.default_rng(0).integers(0, 256, (16, 1), np.uint8), 16, axis=1)
    assert find_similar(np.stack([stripes, stripes.T, stripes, stripes.T])) == [-1, -1, 0, 1]


@pytest.mark.parametrize(("weight", "alike"), [(0.8, True), (0.7, False)])  # correlations of 0.97 and 0.92
def test_how_much_may_differ(weight: float, alike: bool) -> None:
    one, other = np.random.default_rng(0).integers(0, 256, (2, 16, 16))
    mixed = weight * one + (1 - weight) * other
    assert find_similar(np.stack([one, mixed]).astype(np.uint8)) == [-1, 0 if alike else -1]


def test_the_first_that_looks_alike_is_found_among_thousands() -> None:
    random = np.random.default_rng(0)
    cells = random.integers(0, 256, (2100, 16, 16), np.uint8)
    copies = {5: 3, 1023: 0, 1024: 1023, 1500: 7, 2099: 1500, 2000: 1030}
    for copy, original in copies.items():
        cells[copy] = cells[original] * 0.5 + random.integers(0, 9, (16, 16))
    expected = {5: 3, 1023: 0, 1024: 0, 1500: 7, 2099: 7, 2000: 1030}  # of a copy's copy, the original
    assert {k: found for k, found in enumerate(find_similar(cells)) if found >= 0} == expected
    assert find_similar(cells[:0]) == []


# All together


def test_several_processes_find_what_one_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "trainA" / "x\ud800.png".encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")).touch()
    shutil.copy(root / "trainA" / "0000.png", root / "testA" / "copy.png")
    alone = check_folders(*opened(root))
    monkeypatch.setattr(pixels, "_PARALLEL_FROM", 1)
    assert check_folders(*opened(root)) == alone
    assert {finding.check for finding in alone.findings} == {"unreadable", "too-few", "leak"}


def test_a_killed_process_is_one_line() -> None:
    with pytest.raises(UserError, match="was killed, probably out of memory"):
        list(parallel_map(os._exit, [3, 3], processes=2))


def test_a_report_groups_by_class_and_names_a_few() -> None:
    findings = [Finding(f"{k}.jpg", "rotated", "orientation 6") for k in range(3000)]
    findings += [Finding(f"\n{k}.jpg", "too-small", f"{8 - k % 4}x8", 8 - k % 4) for k in range(7)]
    findings += [Finding("x.jpg", "damaged", "cut")]
    lines = describe_findings(findings).splitlines()
    assert lines[0] == f"error: damaged or cut short (1 file): {CHECKS['damaged'].advice}"
    assert lines[1] == "    x.jpg: cut"
    assert lines[2].startswith("warning: smaller than the crop (7 files): ")
    assert lines[3] == r"    e.g. \n3.jpg: 5x8", "the smallest; of more than five none else is listed"
    assert lines[4:] == [f"note: rotated by EXIF (3,000 files): {CHECKS['rotated'].advice}"]
    assert describe_findings([]) == ""

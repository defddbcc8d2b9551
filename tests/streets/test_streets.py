"""The drawn streets: the same everywhere and always, aligned across weathers, and really sunny or rainy."""

import itertools
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from unit.errors import DataError, ImageError
from unit.generated import write_images
from unit.streets import DAY, NIGHT, Streets, Weather, render, write_streets
from unit.streets.layout import make_scene
from unit.streets.painter import Painter
from unit.streets.weather import tint

SUNNY, RAINY = DAY
Floats = npt.NDArray[np.float64]


def pixels(image: Image.Image) -> Floats:
    return np.asarray(image, dtype=np.float64) / 255


def drawn(scene: int, weather: Weather, size: int = 64, variation: int = 0) -> Floats:
    return pixels(render(scene, weather, size, variation))


def distance(a: Floats, b: Floats) -> float:
    return float(np.mean((a - b) ** 2))


def edges(image: Floats) -> Floats:
    """Where brightness changes from left to right, as a flat array of mean 0 and length 1."""
    gray = image.mean(axis=2)
    steps = np.abs(gray[:, 1:] - gray[:, :-1]).ravel()
    steps = steps - steps.mean()
    normed: Floats = steps / float(np.sqrt((steps**2).sum()))
    return normed


# render


@pytest.mark.parametrize("weather", Weather)
def test_equal_arguments_give_equal_bytes(weather: Weather) -> None:
    for scene in (0, 7, 2**62 + 1):
        first = render(scene, weather, 48, 2)
        render(scene + 1, weather, 48, 0)  # nothing may be left behind by a draw
        assert first.tobytes() == render(scene, weather, 48, 2).tobytes()


@pytest.mark.parametrize("weather", Weather)
def test_another_scene_and_another_variation_look_different(weather: Weather) -> None:
    base = drawn(3, weather)
    assert distance(base, drawn(4, weather)) > 0.005
    assert distance(base, drawn(3, weather, variation=1)) > 1e-4


@pytest.mark.parametrize("weather", Weather)
def test_a_variation_changes_far_less_than_the_weather_and_the_scene(weather: Weather) -> None:
    other = RAINY if weather is SUNNY else SUNNY
    for scene in range(8):
        base = drawn(scene, weather)
        varied = distance(base, drawn(scene, weather, variation=1))
        assert varied < 0.012  # 19 dB
        assert varied < 0.5 * distance(base, drawn(scene, other))
        assert varied < 0.5 * distance(base, drawn(scene + 100, weather))


def test_a_sunny_variation_changes_nothing_but_the_sky() -> None:
    for scene in range(5):
        changed = np.abs(drawn(scene, SUNNY) - drawn(scene, SUNNY, variation=5)).max(axis=2)
        assert changed[:32].max() > 0.1
        assert changed[44:].max() == 0.0  # the ground


@pytest.mark.parametrize("size", [8, 32, 64, 100, 257])
@pytest.mark.parametrize("weather", Weather)
def test_any_size_is_drawn(size: int, weather: Weather) -> None:
    image = render(11, weather, size)
    assert image.mode == "RGB"
    assert image.size == (size, size)
    assert pixels(image).std() > 0.05


@pytest.mark.parametrize("weather", Weather)
@pytest.mark.parametrize(("small", "large"), [(64, 128), (64, 256), (50, 150)])
def test_size_is_only_resolution(weather: Weather, small: int, large: int) -> None:
    for scene in range(4):
        reduced = pixels(render(scene, weather, large).reduce(large // small))
        direct = drawn(scene, weather, small)
        assert distance(reduced, direct) < 0.004  # 24 dB: thin lines fall between pixels
        assert distance(reduced, direct) < 0.2 * distance(reduced, drawn(scene + 50, weather, small))


@pytest.mark.parametrize(("scene", "size", "variation"), [(-1, 64, 0), (0, 7, 0), (0, 64, -1)])
def test_arguments_out_of_range_are_refused(scene: int, size: int, variation: int) -> None:
    with pytest.raises(ValueError, match="negative"):
        render(scene, SUNNY, size, variation)


def test_unknown_weather_is_refused() -> None:
    with pytest.raises(ValueError):
        render(0, "snowy", 64)  # type: ignore[arg-type]


@pytest.mark.parametrize(("first", "second"), [DAY, NIGHT])
def test_both_weathers_show_the_same_street(first: Weather, second: Weather) -> None:
    dry = [edges(drawn(scene, first)) for scene in range(12)]
    wet = [edges(drawn(scene, second)) for scene in range(12)]
    likeness = np.array([[float((a * b).sum()) for b in wet] for a in dry])
    own = np.diag(likeness)
    others = likeness[~np.eye(12, dtype=bool)]
    assert own.mean() > others.mean() + 0.15
    assert (likeness.argmax(axis=1) == np.arange(12)).all()


def test_sun_is_brighter_bluer_above_and_more_colourful_than_rain() -> None:
    blue = []
    for scene in range(20):
        sunny, rainy = drawn(scene, SUNNY), drawn(scene, RAINY)
        assert sunny.mean() > rainy.mean() + 0.05
        color = [(image.max(axis=2) - image.min(axis=2)).mean() for image in (sunny, rainy)]
        assert color[0] > color[1] * 1.4
        blue.append([(image[:16, :, 2] - image[:16, :, 0]).mean() for image in (sunny, rainy)])
    assert np.mean(blue, axis=0)[0] > np.mean(blue, axis=0)[1] + 0.08


def test_night_is_dark_but_for_lamps_and_moon_under_a_blue_sky() -> None:
    for scene in range(20):
        for day, night in zip(DAY, NIGHT, strict=True):
            light, dark = drawn(scene, day), drawn(scene, night)
            assert np.median(dark) < 0.6 * np.median(light)
            sky = dark[:8]
            assert np.median(sky[:, :, 2]) > np.median(sky[:, :, 0])
            assert dark.max() > 0.75  # lamps, or the moon


def test_streets_are_all_different() -> None:
    small = np.stack([drawn(scene, SUNNY, 16).ravel() for scene in range(70)])
    apart = ((small[:, None] - small[None]) ** 2).mean(axis=2)
    apart[np.eye(len(small), dtype=bool)] = 1.0
    assert apart.min() > 0.002


@pytest.mark.parametrize("color", [(200, 80, 60), (60, 90, 140), (240, 235, 220), (40, 42, 48)])
def test_fog_swallows_what_is_far(color: tuple[int, int, int]) -> None:
    fog = np.array(tint(RAINY, color, 1e6), dtype=np.float64)
    off = [np.abs(np.array(tint(RAINY, color, z)) - fog).sum() for z in (0.0, 5.0, 15.0, 40.0, 90.0)]
    assert off == sorted(off, reverse=True)
    assert off[-1] < 0.2 * off[0] + 3
    contrast = [
        np.ptp([tint(weather, gray, 50.0)[0] for gray in ((20, 20, 20), (230, 230, 230))]) for weather in Weather
    ]
    assert contrast[0] > 3 * contrast[1]  # sunny air is clear


def test_wet_ground_mirrors_and_dry_ground_does_not() -> None:
    """Columns of road and pavement look like what stands above them, turned upside down, in the rain only."""
    likeness: dict[Weather, list[float]] = {weather: [] for weather in Weather}
    for scene in range(24):
        for weather in likeness:
            image = drawn(scene, weather, 64)
            color = image - image.mean(axis=2, keepdims=True)  # hue only: free of shadows and streaks
            warm = color[:, :, 0] - color[:, :, 2]
            below = warm[48:].mean(axis=0)
            above = warm[12:32].mean(axis=0)
            likeness[weather].append(float(np.corrcoef(above, below)[0, 1]))
    for dry, wet in (DAY, NIGHT):
        assert np.mean(likeness[wet]) > np.mean(likeness[dry]) + 0.2
    assert np.mean(likeness[RAINY]) > 0.3


def test_mirror_images_hang_from_the_ground() -> None:
    """Whatever stands h above its foot on the image is mirrored h below it."""
    painter = Painter(make_scene(1).camera, RAINY, 100)
    at, beside = painter.column(1.0, 9.0), painter.column(2.0, 9.0)
    painter.panel(at, beside, 0.5, 2.0, (1, 2, 3))
    painter.box(at, -0.5, 0.5, 0.5, 2.0, (1, 2, 3))
    painter.fill(((at, 0.5), (beside, 2.0), (beside, 0.5)), (1, 2, 3))
    painter.disc(at, 0.0, 1.25, 0.75, 0.75, (1, 2, 3))
    assert len(painter.shapes) == 4
    for shape in painter.shapes:
        assert shape.mirrored is not None
        heights = [sorted(at.foot - y for y in shape.points[1::2]), sorted(y - at.foot for y in shape.mirrored[1::2])]
        assert heights[0] == pytest.approx(heights[1])
        assert heights[0][0] > 0
        assert sorted(shape.points[::2]) == pytest.approx(sorted(shape.mirrored[::2]))


def test_every_variation_has_other_rain() -> None:
    for scene in range(5):
        changed = np.abs(drawn(scene, RAINY) - drawn(scene, RAINY, variation=1)).max(axis=2)[48:] > 0.03
        assert changed.mean() > 0.1  # streaks and splashes cross the road, too


# make_scene


@pytest.mark.parametrize("block", range(4))
def test_everything_stands_where_it_may(block: int) -> None:
    for seed in range(block * 60, block * 60 + 60):
        street = make_scene(seed)
        road, outer = street.road, street.road.half + street.road.pavement
        for car in street.cars:
            assert abs(car.x) + car.width / 2 <= road.half + 0.05
        for first, second in itertools.combinations(street.cars, 2):
            clear = abs(first.x - second.x) - (first.width + second.width) / 2
            gap = max(first.z, second.z) - min(first.z + first.length, second.z + second.length)
            assert clear > 0 or gap > 0, f"cars overlap in scene {seed}"
        for person in street.people:
            on_crossing = road.crossing is not None and abs(person.z - road.crossing) < 1.5
            assert on_crossing or road.half < abs(person.x) < outer
        for side in (-1, 1):
            houses = [(house.z0, house.z1) for house in street.buildings if house.side == side]
            row = sorted(houses + [(hedge.z0, hedge.z1) for hedge in street.hedges if hedge.side == side])
            assert all(a[1] <= b[0] + 1e-9 for a, b in itertools.pairwise(row)), f"houses overlap in scene {seed}"
            if road.side_street is not None:
                middle = sum(road.side_street) / 2
                assert not any(z0 < middle < z1 for z0, z1 in row), f"a house blocks the side street of scene {seed}"


# Streets


def test_streets_names_and_images() -> None:
    streets = Streets(SUNNY, "test", 3, 32)
    assert len(streets) == 3
    assert [streets.name(index) for index in range(3)] == ["scene-00000.png", "scene-00001.png", "scene-00002.png"]
    image = streets.image(2)
    assert image.mode == "RGB"
    assert image.size == (32, 32)
    assert image.tobytes() == Streets(SUNNY, "test", 5, 32).image(2).tobytes()


@pytest.mark.parametrize("index", [-1, 3, 10])
def test_streets_know_their_range(index: int) -> None:
    streets = Streets(RAINY, "trainB", 3, 32)
    with pytest.raises(IndexError):
        streets.image(index)
    with pytest.raises(IndexError):
        streets.name(index)


@pytest.mark.parametrize(("split", "count", "size"), [("trainC", 3, 32), ("test", -1, 32), ("test", 3, 0)])
def test_streets_refuse_nonsense(split: str, count: int, size: int) -> None:
    with pytest.raises(ValueError):
        Streets(SUNNY, split, count, size)


def test_splits_and_seeds_share_no_scene() -> None:
    sources = [Streets(SUNNY, split, 500, 32, seed) for split in ("trainA", "trainB", "test") for seed in (0, 1)]
    scenes = [streets.scene(index) for streets in sources for index in range(500)]
    assert len(set(scenes)) == len(scenes)
    assert len({streets.image(0).tobytes() for streets in sources}) == len(sources)


def test_test_splits_are_aligned_pairs() -> None:
    sunny, rainy = Streets(SUNNY, "test", 6, 64), Streets(RAINY, "test", 6, 64)
    for index in range(6):
        assert sunny.name(index) == rainy.name(index)
        assert sunny.image(index).tobytes() == render(rainy.scene(index), SUNNY, 64).tobytes()
        assert rainy.image(index).tobytes() == render(sunny.scene(index), RAINY, 64).tobytes()


def test_variation_redraws_the_same_scenes() -> None:
    plain, varied = Streets(RAINY, "test", 2, 32), Streets(RAINY, "test", 2, 32, variation=1)
    assert plain.scene(1) == varied.scene(1)
    assert plain.image(1).tobytes() != varied.image(1).tobytes()
    assert varied.image(1).tobytes() == render(varied.scene(1), RAINY, 32, 1).tobytes()


def test_drawings_are_remembered_and_can_not_be_spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    streets = Streets(SUNNY, "test", 2, 32)
    first = streets.image(0)
    before = first.tobytes()
    monkeypatch.setattr("unit.streets.source.render", None)  # a second drawing would fail
    first.paste((0, 0, 0), (0, 0, 32, 32))
    assert streets.image(0).tobytes() == before


def test_pickling_leaves_the_memory_behind() -> None:
    streets = Streets(RAINY, "trainB", 20, 64, seed=3, variation=2)
    empty = len(pickle.dumps(streets))
    before = streets.image(1).tobytes()
    copy = pickle.loads(pickle.dumps(streets))
    assert len(pickle.dumps(streets)) == empty
    assert copy == streets
    assert copy.image(1).tobytes() == before


# write_streets


def test_write_streets(tmp_path: Path) -> None:
    out = tmp_path / "new" / "streets"
    write_streets(out, 32, train=3, test=2, seed=5)
    assert sorted(path.name for path in out.iterdir()) == ["testA", "testB", "trainA", "trainB"]
    found = {folder.name: sorted(path.name for path in folder.iterdir()) for folder in out.iterdir()}
    assert found["testA"] == found["testB"] == ["scene-00000.png", "scene-00001.png"]
    assert len(found["trainA"]) == len(found["trainB"]) == 3
    for folder, weather, split in (
        ("trainA", SUNNY, "trainA"),
        ("trainB", RAINY, "trainB"),
        ("testA", SUNNY, "test"),
        ("testB", RAINY, "test"),
    ):
        streets = Streets(weather, split, len(found[folder]), 32, seed=5)
        for index, name in enumerate(found[folder]):
            with Image.open(out / folder / name) as image:
                assert image.mode == "RGB"
                assert image.tobytes() == streets.image(index).tobytes()


@pytest.mark.parametrize("folder", ["trainA", "trainB", "testA", "testB"])
def test_write_streets_touches_no_folder_in_use(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"not empty; .*another folder") as caught:
        write_streets(tmp_path, 32, train=1, test=1, seed=0)
    assert str(tmp_path / folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")] == [f"{folder}/mine.txt"]


def test_write_streets_fills_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "trainA").mkdir()
    write_streets(tmp_path, 16, train=1, test=0, seed=0)
    assert len(list((tmp_path / "trainA").iterdir())) == 1
    assert list((tmp_path / "testA").iterdir()) == []


@pytest.mark.parametrize("where", ["file", "file/inside", "."])
def test_write_streets_says_where_it_can_not_write(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "trainB").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="can't be"):
        write_streets(tmp_path / where, 16, train=1, test=1, seed=0)


@pytest.mark.parametrize("target", ["trainA", "trainA/deeper", "."])
def test_no_folder_may_lie_in_another_through_a_link(tmp_path: Path, target: str) -> None:
    (tmp_path / target).mkdir(parents=True, exist_ok=True)
    (tmp_path / "testB").symlink_to(tmp_path / target)
    with pytest.raises(DataError, match=r"through a link|is not empty"):
        write_streets(tmp_path, 16, 1, 1, 0)
    assert not list(tmp_path.rglob("*.png"))


def test_no_folder_appears_before_it_is_whole(tmp_path: Path) -> None:
    def images(count: int) -> Iterator[tuple[str, Image.Image]]:
        for k in range(count):
            yield f"{k}.png", Image.new("RGB", (4, 4))
        assert not list(tmp_path.glob("[!.]*"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_images(
            {tmp_path / "a": ((f"{k}.png", Image.new("RGB", (4, 4))) for k in range(2)), tmp_path / "b": images(1)}
        )
    assert list(tmp_path.iterdir()) == []


def test_images_that_another_process_wrote_meanwhile_are_kept(tmp_path: Path) -> None:
    def images() -> Iterator[tuple[str, Image.Image]]:
        yield "1.png", Image.new("RGB", (4, 4))
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "other.png").write_text("another's")

    with pytest.raises(DataError, match=r"a: can't be written \(Directory not empty\)"):
        write_images({tmp_path / "a": images()})
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "other.png"]


def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(tmp_path: Path) -> None:
    left = tmp_path / f".a-{os.getpid()}.partial"
    left.mkdir()
    write_images({tmp_path / "a": [("1.png", Image.new("RGB", (4, 4)))]})
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["1.png"]
    assert left.exists(), "it may be that of a process in another container"


def test_written_folders_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    write_images({tmp_path / "a": [("1.png", Image.new("RGB", (4, 4)))]})
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_drawing_beyond_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unit.images.reading.available_memory", lambda: 10**9)
    monkeypatch.setattr("unit.streets.source.render", None)
    with pytest.raises(ImageError, match=r"8192x8192 pixels take 6\.7 GB of memory, but 1\.0 GB are free"):
        Streets(Weather.SUNNY, "test", 1, 8192).image(0)

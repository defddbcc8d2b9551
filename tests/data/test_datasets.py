from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unit.config import DataConfig
from unit.data.datasets import open_datasets, open_held_out
from unit.domains import Domain, PerDomain
from unit.errors import DataError


def make_images(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    return str(folder)


def names_of(source: object) -> list[str]:
    return [source.name(k) for k in range(len(source))]  # type: ignore[attr-defined, arg-type]


def test_the_built_in_streets_share_no_training_scene_and_their_test_scenes_are_pairs() -> None:
    datasets = open_datasets(DataConfig(load_size=16, crop_size=16, streets_train=6, streets_test=4))
    assert [len(datasets.train[i]) for i in Domain] == [6, 6]
    assert (datasets.names.a, datasets.names.b) == ("sunny", "rainy")
    assert datasets.test.paired
    assert [names_of(datasets.test.images[i]) for i in Domain] == [names_of(datasets.test.images.a)] * 2
    blue = [np.asarray(source.image(0))[:3, :, 2].mean() for source in datasets.test.images]
    assert blue[0] > blue[1]  # A has the blue sky
    assert datasets.test.rerendered is not None
    for i in Domain:
        same, again = datasets.test.images[i].image(0), datasets.test.rerendered[i].image(0)
        assert same.tobytes() != again.tobytes()
        assert datasets.test.rerendered[i].name(0) == datasets.test.images[i].name(0)


def test_two_folders_hold_some_images_out(tmp_path: Path) -> None:
    files = [f"{k}.png" for k in range(60)]
    a, b = make_images(tmp_path / "sunny", *files), make_images(tmp_path / "rainy", *files[:20])
    datasets = open_datasets(DataConfig(a=a, b=b))
    for i, count in ((Domain.A, 60), (Domain.B, 20)):
        train, test = names_of(datasets.train[i]), names_of(datasets.test.images[i])
        assert sorted(train + test) == sorted(files[:count])
        assert test
    assert (datasets.names.a, datasets.names.b) == ("sunny", "rainy")
    assert not datasets.test.paired


@pytest.mark.parametrize("tests", [True, False])
def test_a_root_with_and_without_test_folders(tmp_path: Path, tests: bool) -> None:
    for folder in ("trainA", "trainB", *(("testA", "testB") if tests else ())):
        make_images(tmp_path / folder, *(f"{folder}-{k}.png" for k in range(3)))
    datasets = open_datasets(DataConfig(root=str(tmp_path), name_a="x", name_b="y"))
    for i in Domain:
        held = names_of(datasets.test.images[i])
        assert all(name.startswith("test" if tests else "train") for name in held)
        assert not set(held) & set(names_of(datasets.train[i]))
    assert (datasets.names.a, datasets.names.b) == ("x", "y")


def test_test_folders_of_ones_own_win(tmp_path: Path) -> None:
    a, b = make_images(tmp_path / "a", "1.png", "2.png"), make_images(tmp_path / "b", "1.png", "2.png")
    test_a, test_b = make_images(tmp_path / "ta", "x.png"), make_images(tmp_path / "tb", "y.png")
    datasets = open_datasets(DataConfig(a=a, b=b, test_a=test_a, test_b=test_b, paired_test=True))
    assert [names_of(datasets.train[i]) for i in Domain] == [["1.png", "2.png"]] * 2
    assert [names_of(datasets.test.images[i]) for i in Domain] == [["x.png"], ["y.png"]]
    assert datasets.test.paired


def test_pairs_need_as_many_images(tmp_path: Path) -> None:
    folders = PerDomain(tmp_path / "a", tmp_path / "b")
    make_images(folders.a, "1.png", "2.png")
    make_images(folders.b, "1.png")
    with pytest.raises(DataError, match=r"has 2 images, but .* has 1"):
        open_held_out(folders, paired=True)
    assert not open_held_out(folders, paired=False).paired


def test_images_held_out_are_no_pairs(tmp_path: Path) -> None:
    for folder in ("trainA", "trainB"):
        make_images(tmp_path / folder, "1.png", "2.png")
    with pytest.raises(DataError, match=r"paired_test needs testA and testB"):
        open_datasets(DataConfig(root=str(tmp_path), paired_test=True))


def test_the_digest_follows_the_training_images(tmp_path: Path) -> None:
    a, b = make_images(tmp_path / "a", *["12.png", "3.png"]), make_images(tmp_path / "b", "1.png", "2.png")
    before = open_datasets(DataConfig(a=a, b=b)).digest()
    assert open_datasets(DataConfig(a=a, b=b)).digest() == before
    assert open_datasets(DataConfig(a=b, b=a)).digest() != before
    make_images(tmp_path / "b", "new.png", "newer.png", "newest.png")
    assert open_datasets(DataConfig(a=a, b=b)).digest() != before


def test_the_limit_on_pixels_reaches_the_reader(tmp_path: Path) -> None:
    a, b = make_images(tmp_path / "a", "1.png"), make_images(tmp_path / "b", "1.png")
    datasets = open_datasets(DataConfig(a=a, b=b, max_pixels=63))
    with pytest.raises(DataError, match="more than 63 pixels"):
        datasets.train.a.image(0)


@pytest.mark.parametrize(
    ("a", "b", "test_a", "test_b"),
    [
        ("x", "x", None, None),
        ("x", "x/y", None, None),
        ("x", "y", "x", "t"),
        ("x", "y", "t", "x/t"),
        ("x", "y", "y", "t"),
    ],
)
def test_no_image_may_serve_twice(tmp_path: Path, a: str, b: str, test_a: str | None, test_b: str | None) -> None:
    folders = {"a": a, "b": b} | ({"test_a": test_a, "test_b": test_b} if test_a and test_b else {})
    for name in folders.values():
        make_images(tmp_path / name, "1.png", "2.png")
    config = DataConfig(**{key: str(tmp_path / name) for key, name in folders.items()}, name_a="1", name_b="2")
    with pytest.raises(DataError, match="serve twice"):
        open_datasets(config)


def test_half_a_pair_of_test_folders_is_refused(tmp_path: Path) -> None:
    for folder in ("trainA", "trainB", "testA"):
        make_images(tmp_path / folder, "1.png", "2.png")
    with pytest.raises(DataError, match="only one of testA and testB"):
        open_datasets(DataConfig(root=str(tmp_path)))


def test_a_tilde_in_a_file_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for name in ("x", "y"):
        make_images(tmp_path / name, "1.png", "2.png")
    assert len(open_datasets(DataConfig(a="~/x", b="~/y")).train.a) == 1
    with pytest.raises(DataError, match="~nobody-of-that-name"):
        open_datasets(DataConfig(a="~nobody-of-that-name/x", b="~/y"))

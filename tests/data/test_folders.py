"""A folder's list is complete, in one order everywhere; its split stays put; what is wrong is said in one line."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unit.data.folders import ImageFolder, default_names, digest, split_names, split_root
from unit.domains import Domain
from unit.errors import DataError, ImageError

NAMES = st.lists(st.text("abcdefgh0123/.", min_size=1, max_size=8), max_size=60, unique=True)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


# ImageFolder


def test_an_image_folder_reads_by_index_and_survives_pickling(tmp_path: Path) -> None:
    for name, color in (("b.png", "red"), ("a.png", "blue")):
        Image.new("RGB", (3, 2), color).save(tmp_path / name)
    folder = pickle.loads(pickle.dumps(ImageFolder.open(tmp_path)))
    assert len(folder) == 2
    assert [folder.name(index) for index in range(2)] == ["a.png", "b.png"]
    assert folder.image(1).getpixel((0, 0)) == (255, 0, 0)


def test_an_image_folder_has_its_limit(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: 3x2 is more than 5 pixels"):
        ImageFolder(tmp_path, ("a.png",), max_pixels=5).image(0)


def test_a_large_jpeg_is_read_no_larger_than_asked_for(tmp_path: Path) -> None:
    Image.new("RGB", (64, 32)).save(tmp_path / "a.jpg")
    folder = ImageFolder.open(tmp_path)
    assert [folder.image(0, short_side).size for short_side in (None, 8, 17)] == [(64, 32), (32, 16), (64, 32)]


# The split


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs names of arbitrary bytes")
def test_undecodable_names(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.jpg")
    Image.new("RGB", (2, 2)).save(tmp_path / name, format="png")
    folder = ImageFolder.open(tmp_path)
    assert folder.names == (name,)
    assert folder.image(0).size == (2, 2)
    assert split_names([name, "b"])
    assert digest([name]) != digest([os.fsdecode(b"\xfe.jpg")])


@given(NAMES, st.floats(0, 1, allow_subnormal=False), st.integers(0, 5), st.integers(0, 20))
def test_a_split_keeps_its_limits_and_the_order(names: list[str], share: float, at_least: int, at_most: int) -> None:
    training, test = split_names(names, share, at_least, at_most)
    if len(names) < 2:
        assert training == test == names
        return
    assert sorted(training + test) == sorted(names)
    assert training == sorted(training, key=names.index)
    assert test == sorted(test, key=names.index)
    assert len(training) >= 1
    assert min(at_least, at_most, len(names) - 1) <= len(test) <= at_most


@given(NAMES.filter(lambda names: len(names) > 5), st.integers(1, 3))
def test_a_file_added_takes_nothing_from_training(names: list[str], at_least: int) -> None:
    before, after = split_names(names[:-1], 0.2, at_least, 8), split_names(names, 0.2, at_least, 8)
    assert set(after[1]) <= {*before[1], names[-1]}
    assert len(set(before[1]) - set(after[1])) <= 1


@given(NAMES, st.randoms())
def test_position_does_not_matter(names: list[str], rng: object) -> None:
    shuffled = list(names)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert set(split_names(shuffled)[1]) == set(split_names(names)[1])


def test_the_usual_sizes() -> None:
    names = [f"{index:05}.jpg" for index in range(10_000)]
    assert len(split_names(names)[1]) == 200
    assert 30 <= len(split_names(names[:1000])[1]) <= 70
    assert len(split_names(names[:2])[1]) == 1


def test_the_split_of_these_names_never_changes() -> None:
    # A run that goes on must hold out what it did, whatever the version.
    names = [f"{index}.jpg" for index in range(100)]
    assert split_names(names)[1] == ["65.jpg", "70.jpg", "92.jpg"]


# trainA, trainB, testA, testB


def test_the_usual_layout(tmp_path: Path) -> None:
    touch(tmp_path, "trainA/x.jpg", "trainB/x.jpg", "testB/x.jpg", "notes.txt", "testA.txt")
    split = split_root(tmp_path)
    assert split[Domain.A] == (tmp_path / "trainA", None)
    assert split[Domain.B] == (tmp_path / "trainB", tmp_path / "testB")


def test_the_layout_in_any_case(tmp_path: Path) -> None:
    touch(tmp_path, "TrainA/x.jpg", "TRAINB/x.jpg", "testa/x.jpg")
    split = split_root(tmp_path)
    assert split.a == (tmp_path / "TrainA", tmp_path / "testa")
    assert split.b == (tmp_path / "TRAINB", None)


def test_the_usual_case_goes_first(tmp_path: Path) -> None:
    touch(tmp_path, "TrainA/x.jpg", "trainA/x.jpg", "trainB/x.jpg")
    if (tmp_path / "TRAINB").exists():
        pytest.skip("case means nothing here")
    assert split_root(tmp_path).a == (tmp_path / "trainA", None)


def test_what_the_layout_lacks_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "trainA/x.jpg", "valB/x.jpg", "trainB")
    with pytest.raises(DataError) as caught:
        split_root(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: trainB missing, found trainA, valB; expected")
    assert message.isprintable()
    with pytest.raises(DataError, match="trainA and trainB missing, found no folders"):
        split_root(tmp_path / "valB")
    with pytest.raises(DataError, match="no such folder"):
        split_root(tmp_path / "nowhere")


# Names


@pytest.mark.parametrize(
    ("a", "b", "names"),
    [
        ("sunny", "rainy", ("sunny", "rainy")),
        ("data/trainA", "data/trainB/", ("trainA", "trainB")),
        ("sunny/images", "rainy/images", ("sunny-images", "rainy-images")),
        ("sunny/images", "rainy/Images", ("sunny-images", "rainy-Images")),
        ("sunny/x/images", "rainy/x/images", ("sunny-x-images", "rainy-x-images")),
        ("sunny/images", "images", ("sunny-images", "here-images")),
        (".", "../other", ("here", "other")),
        ("..", ".", ("above", "here")),
        ("a b", "c:d\n", ("a-b", "c-d")),
        ("a b", "a:b", ("here-a-b", None)),
        (".hidden", "--out", ("hidden", "out")),
        ("夏", "冬", ("夏", "冬")),
    ],
)
def test_domains_are_called_as_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, a: str, b: str, names: tuple[str, str | None]
) -> None:
    (tmp_path / "above" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "above" / "here")
    if names[1] is None:
        with pytest.raises(DataError, match=r"set data\.name_a and data\.name_b"):
            default_names(Path(a), Path(b))
    else:
        assert tuple(default_names(Path(a), Path(b))) == names


@pytest.mark.parametrize(("a", "b"), [("x", "x"), ("x", "./x"), ("/", "x"), ("/", "/")])
def test_the_same_folder_twice_has_no_two_names(a: str, b: str) -> None:
    with pytest.raises(DataError) as caught:
        default_names(Path(a), Path(b))
    assert str(caught.value).isprintable()


@given(*[st.lists(st.text(max_size=6).filter(lambda part: part not in ("..",) and "\0" not in part), min_size=1)] * 2)
def test_names_fit_into_a_file_name(a: list[str], b: list[str]) -> None:
    try:
        names = default_names(Path("/", *a), Path("/", *b))
    except DataError:
        return
    assert names.a.casefold() != names.b.casefold()
    for name in names:
        assert name
        assert not set(name) & set('/\\:*?"<>|\n\0 ')
        assert not name.startswith((".", "-"))


# The digest


@given(NAMES, NAMES)
def test_a_digest_tells_lists_apart(first: list[str], second: list[str]) -> None:
    assert (digest(first) == digest(second)) == (first == second)
    assert digest(iter(first)) == digest(first)
    assert len(digest(first)) == 16


def test_a_digest_knows_where_names_end() -> None:
    assert digest(["ab", "c"]) != digest(["a", "bc"])
    assert digest(["a", "b"]) != digest(["b", "a"])
    assert digest([]) != digest([""])

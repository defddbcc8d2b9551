"""Shards are one more source: what holds of a folder's images holds of theirs."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import braceexpand
import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.tiny import assert_same_run, batch_indices, tiny
from unit.config import Config, DataConfig
from unit.data import shards as shards_module
from unit.data.bad_images import BadImages
from unit.data.batches import TrainingImages, training_batches
from unit.data.datasets import open_datasets, open_held_out
from unit.data.folders import ImageFolder, split_names
from unit.data.shard_writer import write_shards
from unit.data.shards import Shards, base_path, is_shards, shard_files
from unit.domains import Domain, PerDomain
from unit.errors import DataError, ImageError
from unit.training.distributed import Ranks
from unit.training.loop import train

pytestmark = pytest.mark.skipif(not hasattr(os, "pread"), reason="needs Linux or macOS")


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    yield
    shards_module._open_shard.cache_clear()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Folders sunny and rainy of noise, in several formats and sizes, one on its side."""
    rng = np.random.default_rng(0)
    for name, count in (("sunny", 23), ("rainy", 17)):
        for k in range(count):
            path = tmp_path / "photos" / name / ("x" if k % 3 else "y.z") / f"{k}.{('jpg', 'PNG', 'webp')[k % 3]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(rng.integers(0, 256, (*rng.integers(22, 60, 2), 3), np.uint8))
            exif = image.getexif()
            exif[0x0112] = 6 if k == 3 else 1
            image.save(path, exif=exif)
    return tmp_path / "photos"


def written(photos: Path, per_shard: int = 2) -> PerDomain[str]:
    names = PerDomain("sunny", "rainy")
    return names.map(lambda name: write_shards(photos / name, photos.parent / "shards", per_shard, 1))


def config(patterns: PerDomain[str], **keys: object) -> DataConfig:
    return DataConfig(a=patterns.a, b=patterns.b, load_size=20, crop_size=16, **keys)  # type: ignore[arg-type]


def names_of(source: object) -> list[str]:
    return [source.name(k) for k in range(len(source))]  # type: ignore[attr-defined, arg-type]


# Images


def test_the_images_are_the_folders(photos: Path) -> None:
    for domain, name in zip(Domain, ("sunny", "rainy"), strict=True):
        folder, shards = ImageFolder.open(photos / name), Shards.open(Path(written(photos)[domain]))
        assert len(shards) == len(folder)
        stems = {path.rpartition(".")[0]: k for k, path in enumerate(folder.names)}
        for k in range(len(shards)):
            shard, _, key = shards.name(k).partition("/")
            assert shard.startswith(name)
            assert shards.image(k).tobytes() == folder.image(stems[key.rpartition(".")[0]]).tobytes()
        shutil.rmtree(photos.parent / "shards")


def test_large_jpegs_are_decoded_at_the_size_that_is_needed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (640, 480)).save(tmp_path / "in" / "1.jpg")
    shards = Shards.open(Path(write_shards(tmp_path / "in", tmp_path / "out", 1, 1)), max_pixels=640 * 480)
    assert shards.image(0).size == (640, 480)
    assert shards.image(0, 50).size == ImageFolder.open(tmp_path / "in").image(0, 50).size != (640, 480)
    with pytest.raises(ImageError, match=r"in-000000\.tar/1\.jpg: 640x480 is more than 307199 pixels"):
        Shards.open(tmp_path / "out" / "in-000000.tar", max_pixels=640 * 480 - 1).image(0)


def test_a_copy_for_another_process_takes_no_open_file_along(photos: Path) -> None:
    shards = Shards.open(Path(written(photos).a))
    expected = [shards.image(k).tobytes() for k in range(len(shards))]
    code = "import pickle, sys; shards = pickle.load(sys.stdin.buffer); sys.stdout.buffer.write(b''.join("
    code += "shards.image(k).tobytes() for k in range(len(shards))))"
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(shards), capture_output=True, check=True)
    assert done.stdout == b"".join(expected)


def test_few_files_are_open_at_once(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for k in range(150):
        Image.new("L", (8, 8), k).save(tmp_path / "in" / f"{k}.png")
    shards = Shards.open(Path(write_shards(tmp_path / "in", tmp_path / "out", 1, 1)))
    for _ in range(2):
        assert sorted(np.asarray(shards.image(k))[0, 0, 0] for k in range(150)) == list(range(150))
    opened = [file.path for file in psutil.Process().open_files()]
    assert 1 <= sum(str(tmp_path) in path for path in opened) <= 64


def test_a_bad_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no image")
    (tmp_path / "in" / "empty.jpg").write_bytes(b"")
    shards = Shards.open(Path(write_shards(tmp_path / "in", tmp_path / "out", 9, 1)))
    for k in range(2):
        words = {"bad": "is not an image", "empty": "the file is empty"}["bad" if "bad" in shards.name(k) else "empty"]
        with pytest.raises(ImageError, match=f"/out/{shards.name(k)}: {words}"):
            shards.image(k)


@pytest.mark.parametrize(("change", "words"), [("replaced", "has changed since"), ("gone", "no such file")])
def test_a_shard_that_changes_under_a_run_is_not_read_at_the_wrong_place(photos: Path, change: str, words: str) -> None:
    shards = Shards.open(Path(written(photos, 99).a))
    file = photos.parent / "shards" / shards.name(0).partition("/")[0]
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(bytes(512) + file.read_bytes())
    with pytest.raises(ImageError, match=words):
        shards.image(0)


def test_a_shard_cut_short_under_a_run_is_noticed(photos: Path) -> None:
    shards = Shards.open(Path(written(photos, 99).a))
    shards.image(0)
    os.truncate(photos.parent / "shards" / shards.name(0).partition("/")[0], 1000)
    with pytest.raises(ImageError, match="was cut short since"):
        shards.image(5)


# Which shards


@given(
    st.lists(
        st.sampled_from(["x", "-", "{a,b}", "{c,,d}", "{0..3}", "{08..11}", "{007..9}", "{0000..0002}"]), max_size=4
    )
)
def test_braces_are_written_out_as_a_shell_does(parts: list[str]) -> None:
    pattern = "".join(parts)
    assert list(shards_module._expand_braces(pattern)) == list(braceexpand.braceexpand(pattern))


def empty(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(pattern: Path, folder: Path) -> list[str]:
    return [os.path.relpath(path, folder) for path in shard_files(pattern)]


def test_a_pattern_a_glob_and_a_file_name_shards(tmp_path: Path) -> None:
    empty(tmp_path, "x-00.tar", "x-01.tar", "y/x-00.tar", "[a]{0..9}.tar")
    assert found(tmp_path / "x-{00..01}.tar", tmp_path) == ["x-00.tar", "x-01.tar"]
    assert found(tmp_path / "x-*.tar", tmp_path) == ["x-00.tar", "x-01.tar"]
    assert found(tmp_path / "x-0[1].tar", tmp_path) == ["x-01.tar"]
    assert found(tmp_path / "{y/,}x-00.tar", tmp_path) == ["y/x-00.tar", "x-00.tar"]
    assert found(tmp_path / "{x-01,x-01,x-*}.tar", tmp_path) == ["x-01.tar", "x-00.tar"]
    assert found(tmp_path / "[a]{0..9}.tar", tmp_path) == ["[a]{0..9}.tar"]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("x-{00..03}.tar", r"x-02\.tar: is missing, like 1 more of the pattern's 4; copy"),
        ("x-{00..02}.tar", r"x-02\.tar: is missing; copy"),
        ("y-*.tar", r"y-\*\.tar: is missing; copy"),
        ("y.tar", r"y\.tar: is missing"),
        ("x-{a}.tar", r"\{a\} is not a list or range; write \{0000\.\.0999\}"),
        ("x-{a..c}.tar", "is not a list or range"),
        ("{0..999}{0..999}{0..9}.tar", "stands for over 1,000,000 shards"),
        ("{0..999999999999}.tar", "stands for over 1,000,000 shards"),
        ("{3..0}.tar", "stands for no shards"),
        ("x-{0{1,2}}.tar", "is missing"),
    ],
)
def test_a_pattern_that_does_not_fit_is_one_line(tmp_path: Path, pattern: str, words: str) -> None:
    empty(tmp_path, "x-00.tar", "x-01.tar")
    with pytest.raises(DataError, match=words) as caught:
        shard_files(tmp_path / pattern)
    assert "\n" not in str(caught.value)


def test_a_folder_is_not_a_shard_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "x.tar").mkdir()
    assert not is_shards(tmp_path / "x.tar")
    assert not is_shards(tmp_path / "x-{0..3}")
    assert is_shards(tmp_path / "y.TAR")
    assert is_shards(tmp_path / "y-{0..3}.tar.gz")


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("x/sunny-{0000..0999}.tar", "x/sunny"),
        ("x/sunny.tar", "x/sunny"),
        ("x/sunny_[0-9]*.TAR", "x/sunny"),
        ("x/{000..999}.tar", "x"),
        ("x/{train,val}-{0..9}.tar", "x"),
        ("x/sunny-{0..9}.tar.gz", "x/sunny"),
    ],
)
def test_domains_are_named_after_their_shards(pattern: str, name: str) -> None:
    assert base_path(Path(pattern)) == Path(name)


# As the images of a run


def test_some_images_are_held_out_by_their_names(photos: Path) -> None:
    datasets, patterns = open_datasets(config(written(photos))), written_again(photos)
    for i in Domain:
        train_names, test_names = split_names(names_of(Shards.open(Path(patterns[i]))))
        assert names_of(datasets.train[i]) == train_names
        assert names_of(datasets.test.images[i]) == test_names
        shards = Shards.open(Path(patterns[i]))
        by_name = {shards.name(k): shards.image(k).tobytes() for k in range(len(shards))}
        for part in (datasets.train[i], datasets.test.images[i]):
            assert all(part.image(k).tobytes() == by_name[part.name(k)] for k in range(len(part)))
    assert (datasets.names.a, datasets.names.b) == ("sunny", "rainy")


def written_again(photos: Path) -> PerDomain[str]:
    return PerDomain(*(str(photos.parent / "shards" / f"{name}-*.tar") for name in ("sunny", "rainy")))


def test_the_limit_on_pixels_reaches_the_reader(photos: Path) -> None:
    datasets = open_datasets(config(written(photos), max_pixels=400))
    for source in (*datasets.train, *datasets.test.images):
        with pytest.raises(ImageError, match="more than 400 pixels"):
            source.image(0)


def test_a_single_image_can_be_trained_on(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "1.png")
    one, two = Shards.open(Path(write_shards(tmp_path / "in", tmp_path / "out", 1, 1))).train_test_split()
    assert len(one) == len(two) == 1


def test_shards_and_folders_go_together_and_test_shards_win(photos: Path) -> None:
    patterns = written(photos)
    folder = str(photos / "rainy")
    mixed = open_datasets(config(PerDomain(patterns.a, folder)))
    assert (len(mixed.train.b) + len(mixed.test.images.b), mixed.names.a) == (17, "sunny")
    tests = write_shards(photos / "rainy" / "x", photos.parent / "tests", 9, 1)
    given_tests = open_datasets(
        config(PerDomain(patterns.a, str(photos / "rainy" / "y.z")), test_a=tests, test_b=folder + "/x")
    )
    assert len(given_tests.train.a) == 23
    assert len(given_tests.test.images.a) == len(given_tests.test.images.b) == 11
    with pytest.raises(DataError, match=r"has 11 images, but .* has 17"):
        open_held_out(PerDomain(Path(tests), Path(folder)), paired=True)


def test_no_shard_may_serve_twice(photos: Path) -> None:
    patterns = written(photos)
    link = photos.parent / "link.tar"
    link.symlink_to(photos.parent / "shards" / "sunny-000003.tar")
    hard_link = photos.parent / "hard-link.tar"
    hard_link.hardlink_to(photos.parent / "shards" / "sunny-000003.tar")
    for b in (patterns.a, str(link), str(hard_link), patterns.a.replace("sunny", "*")):
        a = patterns.a
        with pytest.raises(DataError, match="serve twice"):
            open_datasets(config(PerDomain(a, b), name_a="1", name_b="2"))
    shutil.move(photos.parent / "shards", photos / "rainy" / "shards")  # shards among images are none of them
    inner = PerDomain(str(photos / "rainy" / "shards" / "sunny-*.tar"), str(photos / "rainy"))
    assert len(open_datasets(config(inner)).train.a)


def test_the_order_goes_shard_by_shard_and_every_epoch_is_complete(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unit.data.shards._WINDOW", 2)
    settings = config(written(photos, 4))
    images = TrainingImages(open_datasets(settings).train, settings, 0)
    for i in Domain:
        source, at_a_time = images.sources[i], []
        for start in range(0, 9 * len(source), len(source)):
            epoch = [images.index(i, start + sample_index) for sample_index in range(len(source))]
            assert sorted(epoch) == list(range(len(source)))
            shards = [source.name(index).partition("/")[0] for index in epoch]
            at_a_time += [len({*shards[: k + 1]} & {*shards[k:]}) for k in range(len(shards))]
        assert max(at_a_time) == 2
    for i in Domain:
        assert images.index(i, 7) == TrainingImages(open_datasets(settings).train, settings, 0).index(i, 7)
        assert [images.index(i, k) for k in range(9)] != [
            TrainingImages(images.sources, settings, 1).index(i, k) for k in range(9)
        ]


def test_ranks_share_an_epoch_without_overlap(photos: Path) -> None:
    settings = config(written(photos))
    images = TrainingImages(open_datasets(settings).train, settings, 0)
    count = len(images.sources.a)
    seen = [
        {
            images.index(Domain.A, p)
            for step in range(count)
            for p in Ranks(rank, 2).sample_indices(step, 3)
            if p < count
        }
        for rank in range(2)
    ]
    assert seen[0].isdisjoint(seen[1])
    assert seen[0] | seen[1] == set(range(count))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_workers(photos: Path, workers: int) -> None:
    settings = config(written(photos))

    def batches(workers: int, steps: range) -> list[PerDomain[torch.Tensor]]:
        images, bad = TrainingImages(open_datasets(settings).train, settings, 0), BadImages(PerDomain(9, 9))
        return list(training_batches(images, bad, batch_indices(steps, 3), workers, torch.device("cpu")))

    for one, two in zip(batches(0, range(12))[2:], batches(workers, range(2, 12)), strict=True):
        assert all(torch.equal(one[i], two[i]) for i in Domain)


def test_a_skipped_image_is_replaced_by_another(photos: Path) -> None:
    (photos / "rainy" / "x" / "bad.jpg").write_bytes(b"no image")
    settings = config(written(photos), on_bad_image="skip")
    images = TrainingImages(open_datasets(settings).train, settings, 0)
    items = [images[sample_index] for sample_index in range(len(images.sources.b))]
    bad = {name for item in items if not isinstance(item, ImageError) for _, name, _ in item.bad}
    assert [name.rpartition("/")[2] for name in bad] == ["bad.jpg"]


def test_the_second_start_reads_no_headers(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = written(photos)
    digest = open_datasets(config(patterns)).digest()
    monkeypatch.setattr("unit.data.shard_index._read_members", None)
    assert open_datasets(config(patterns)).digest() == digest


def test_without_a_folder_for_caches_shards_are_read_all_the_same(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patterns = written(photos)
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert len(open_datasets(config(patterns)).train.a) > 10


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_on_shards_equals_an_uninterrupted_one(photos: Path, tmp_path: Path, workers: int) -> None:
    patterns = written(photos)
    data = {"a": patterns.a, "b": patterns.b}

    def settings(steps: int, workers: int) -> Config:
        return tiny(train={"steps": steps, "validate_every": 2}, data=data | {"workers": workers})

    train(settings(6, 0), tmp_path / "one")
    train(settings(4, workers), tmp_path / "two")
    train(settings(6, workers), tmp_path / "two")
    assert_same_run(tmp_path / "one", tmp_path / "two")

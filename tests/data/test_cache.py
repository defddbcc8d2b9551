"""Whatever is kept, and whatever becomes of it, training sees the images that it sees without."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny import places
from unit.config import DataConfig
from unit.data import cache
from unit.data.bad_images import BadImages
from unit.data.batches import TrainingImages, training_batches
from unit.data.cache import CachedFolder, cached
from unit.data.datasets import open_datasets
from unit.data.folders import ImageFolder
from unit.domains import Domain, PerDomain
from unit.errors import ConfigError, ImageError
from unit.image_source import ImageSource, resized

SIZE = 20
KINDS = pytest.mark.parametrize("kind", ["memory", "disk"])
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
pytestmark = linux


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "unit-translation"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """trainA and trainB with a few JPEG and PNG files of noise, wide and high."""
    dice = np.random.default_rng(0)
    for name in ("trainA/0.jpg", "trainA/1.jpg", "trainA/2.png", "trainB/0.jpg", "trainB/x/1.png", "trainB/2.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dice.integers(0, 256, (*dice.integers(22, 90, 2), 3), np.uint8)).save(path)
    return tmp_path / "photos"


def config(photos: Path, kind: str = "none") -> DataConfig:
    return DataConfig(root=str(photos), load_size=SIZE, crop_size=16, cache=kind)  # type: ignore[arg-type]


def opened(photos: Path, kind: str = "none") -> ImageSource:
    """trainA, from which nothing is held out."""
    return cached(ImageFolder.open(photos / "trainA"), config(photos, kind))


def make_image(source: ImageSource, index: int = 0) -> bytes:
    return resized(source, index, SIZE).tobytes()


def records(caches: Path) -> list[Path]:
    return sorted(path for path in caches.rglob("*") if path.is_file())


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the photo is read")

    monkeypatch.setattr(ImageFolder, "image", refuse)


@pytest.mark.parametrize("workers", [0, 2])
@KINDS
def test_batches_are_bitwise_those_without_a_cache(photos: Path, kind: str, workers: int) -> None:
    def batches(kind: str) -> list[PerDomain[torch.Tensor]]:
        settings = config(photos, kind)
        images, bad = TrainingImages(open_datasets(settings).train, settings, 0), BadImages(PerDomain(2, 2))
        return list(training_batches(images, bad, places(range(9), 2), workers, torch.device("cpu")))

    for _ in range(2):  # on disk, all are there the second time
        for plain, kept in zip(batches("none"), batches(kind), strict=True):
            assert all(torch.equal(plain[i], kept[i]) for i in Domain)


@KINDS
def test_a_image_is_read_once_by_all_processes(photos: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, source = opened(photos), opened(photos, kind)
    copy = pickle.loads(pickle.dumps(source))  # as a loader process has it
    expected = [make_image(plain, k) for k in range(3)]
    assert [make_image(copy, k) for k in range(3)] == expected
    forbid_reading(monkeypatch)
    assert [make_image(source, k) for k in range(3)] == expected
    assert [source.name(k) for k in range(len(source))] == ["0.jpg", "1.jpg", "2.png"]


@KINDS
def test_a_changed_photo_is_read_anew(photos: Path, kind: str) -> None:
    source, path = opened(photos, kind), photos / "trainA" / "2.png"

    def seen(side: int, gray: int, date: int) -> bytes:
        Image.new("L", (side, side), gray).save(path, "BMP")
        os.utime(path, ns=(date, date))
        assert make_image(source, 2) == make_image(opened(photos), 2)
        return make_image(source, 2)

    assert len({seen(30, 1, 10**9), seen(30, 2, 2 * 10**9), seen(40, 3, 2 * 10**9)}) == 3
    path.unlink()
    with pytest.raises(ImageError, match=r"2\.png: no such file"):
        make_image(source, 2)


@KINDS
def test_what_a_image_is_made_by_is_part_of_its_identity(
    photos: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(photos, kind)
    make_image(source)
    assert isinstance(source, CachedFolder)
    for changed in (
        CachedFolder(source.folder, SIZE + 1, source.store),
        CachedFolder(ImageFolder(source.folder.root, source.folder.names, 100), SIZE, source.store),
    ):
        path = str(photos / "trainA" / "0.jpg")
        assert changed._identity(path) != source._identity(path)
    before = source._identity(path)
    monkeypatch.setattr("PIL.__version__", "0")
    assert source._identity(path) != before


def test_images_of_another_size_come_from_the_folder(photos: Path) -> None:
    source = opened(photos, "disk")
    make_image(source)
    assert source.image(0).tobytes() == opened(photos).image(0).tobytes()
    assert min(source.image(0, SIZE).size) == SIZE


@pytest.mark.parametrize("damage", ["cut", "bit", "side", "empty", "another", "folder"])
def test_a_damaged_record_is_read_anew_and_replaced(photos: Path, caches: Path, damage: str) -> None:
    expected = make_image(opened(photos))
    assert make_image(opened(photos, "disk")) == expected
    (record,) = records(caches)
    good = record.read_bytes()
    if damage == "another":
        make_image(opened(photos, "disk"), 1)
        (other,) = set(records(caches)) - {record}
        shutil.copy(other, record)
    elif damage == "folder":
        record.unlink()
        record.mkdir()
    else:
        bit = good[:-5] + bytes([good[-5] ^ 1]) + good[-4:]
        longer = 16 if good[16] > good[20] else 20  # where it stands
        side = good[:longer] + b"\xff" + good[longer + 1 :]
        record.write_bytes({"cut": good[:-1], "bit": bit, "side": side, "empty": b""}[damage])
    assert make_image(opened(photos, "disk")) == expected
    assert damage == "folder" or record.read_bytes() == good


def test_what_no_run_reads_for_two_months_is_dropped(
    photos: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dated(path: Path, days: float) -> None:
        os.utime(path, (time.time() - days * 86400,) * 2)

    source = opened(photos, "disk")
    kept = [make_image(source, k) for k in range(3)]
    for record in records(caches):
        dated(record, 61)
    (caches / "00").mkdir(exist_ok=True)
    for name, days in {"left-by-a-kill.1": 61, "another": 59}.items():
        (caches / "00" / name).touch()
        dated(caches / "00" / name, days)
    assert make_image(source, 1) == kept[1]
    opened(photos, "disk")
    assert len(records(caches)) == 5  # looked through today
    dated(caches, 2)
    opened(photos, "disk")
    assert len(records(caches)) == 2
    assert (caches / "00" / "another").exists()
    opened(photos, "disk")
    assert time.time() - caches.stat().st_mtime < 3600
    forbid_reading(monkeypatch)
    assert make_image(source, 1) == kept[1]


@KINDS
def test_a_full_store_is_said_once_and_training_goes_on(
    photos: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os if kind == "memory" else cache, "pwrite" if kind == "memory" else "atomic_write", full)
    source, plain = opened(photos, kind), opened(photos)
    assert [make_image(source, k) for k in range(3)] == [make_image(plain, k) for k in range(3)]
    (line,) = caplog.messages
    assert line.startswith(f"data.cache: no more images of {photos / 'trainA'} are kept (No space left on device)")


@KINDS
def test_room_is_left_to_training(
    photos: Path, caches: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = opened(photos, kind)
    make_image(source)
    monkeypatch.setattr(cache, "_LEFT_FREE", 10**15)
    assert [make_image(source, k) for k in (0, 1, 2)] == [make_image(opened(photos), k) for k in (0, 1, 2)]
    assert len(caplog.messages) == 1
    assert "GB left, the last 1000000.0 GB are for training" in caplog.messages[0]
    assert len(records(caches)) == (kind == "disk")


def test_loader_processes_say_once_together_that_it_is_full(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cache, "_LEFT_FREE", 10**15)
    settings = config(photos, "memory")
    images = TrainingImages(open_datasets(settings).train, settings, 0)
    handler = logging.StreamHandler(sys.stderr)
    cache.log.addHandler(handler)
    try:
        list(training_batches(images, BadImages(PerDomain(2, 2)), places(range(20), 1), 2, torch.device("cpu")))
    finally:
        cache.log.removeHandler(handler)
    assert 2 <= capfd.readouterr().err.count("no more images") <= 4  # of each domain; two processes may meet
    assert all(source._stopped for source in images.sources if isinstance(source, CachedFolder))


def test_a_strip_takes_no_place_of_others_in_memory(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 500, 3), np.uint8)
    Image.fromarray(noise).save(photos / "trainA" / "0.jpg")
    plain, source = opened(photos), opened(photos, "memory")
    expected = [make_image(plain, k) for k in (1, 0)]
    assert [make_image(source, k) for k in (1, 0)] == expected
    forbid_reading(monkeypatch)
    assert make_image(source, 1) == expected[0]


def test_nothing_is_left_of_the_memory_when_its_process_is_killed() -> None:
    code = (
        "import os, signal; from unit.data.cache import _Memory; memory = _Memory(64); memory.write(0, '', b'x');"
        "print(os.readlink(memory._way), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -9
    assert done.stdout == "/memfd:unit-cache (deleted)\n"


def test_only_photos_are_kept(photos: Path) -> None:
    streets = DataConfig(load_size=16, crop_size=16, streets_train=2, streets_test=1, cache="memory")
    source = open_datasets(streets).train.a
    assert cached(source, streets) is source
    folder = ImageFolder.open(photos / "trainA")
    assert cached(folder, config(photos)) is folder


def test_without_a_folder_for_caches_disk_is_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    with pytest.raises(ConfigError, match=r"^data\.cache: .*; set XDG_CACHE_HOME"):
        opened(photos, "disk")

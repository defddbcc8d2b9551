"""A run whose newest checkpoint is damaged resumes from the one before, whatever the damage."""

import os
import pickle
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from tests.tiny import TINY, assert_same_run, tiny
from unit.data.bad_images import BadImages
from unit.domains import PerDomain
from unit.errors import UserError
from unit.training import checkpoint
from unit.training.loop import train
from unit.training.resolve import resolve
from unit.training.run_dir import RunDir
from unit.training.trainer import Trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 2 and 4."""
    path = tmp_path_factory.mktemp("damaged") / "run"
    train(tiny(train={"steps": 4, "keep_last": 2}), path)
    return path


@pytest.fixture
def newest(run: Path) -> Iterator[Path]:
    """The newest checkpoint, restored after the test."""
    path = checkpoint.path_of(run / "checkpoints", 4)
    content = path.read_bytes()
    yield path
    path.write_bytes(content)
    for each in (run / "checkpoints").glob("*.damaged"):
        each.unlink()


TRAINER = Trainer(TINY, torch.device("cpu"), "fp32")


def step_resumed_from(run: Path) -> int:
    TRAINER.steps_done = -1
    assert RunDir(resolve(TINY, run), TRAINER, BadImages(PerDomain(1, 1))).resume()
    return TRAINER.steps_done


def test_undamaged_the_newest_is_taken(run: Path, newest: Path) -> None:
    assert step_resumed_from(run) == 4
    assert newest.exists()


def test_a_checkpoint_larger_than_the_memory_is_passed_over_unread(run: Path, newest: Path) -> None:
    size = 2**40
    os.truncate(newest, size)  # a hole: it takes no disk
    with newest.open("r+b") as file:  # that ends as a checkpoint does
        file.seek(size - 71)
        file.write(b"sha256:" + b"0" * 64)
    started = time.monotonic()
    assert step_resumed_from(run) == 2
    assert time.monotonic() - started < 60
    assert newest.exists()  # on a machine with more memory it may be good


@pytest.mark.parametrize("only", [True, False])
def test_an_intact_checkpoint_that_memory_does_not_suffice_for_is_kept(
    run: Path, newest: Path, only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checksum_matches(file: BinaryIO) -> bool:
        if only and file.name != str(newest):
            return True
        raise MemoryError

    monkeypatch.setattr(checkpoint, "_checksum_matches", checksum_matches)
    if only:
        assert step_resumed_from(run) == 2
    else:
        with pytest.raises(UserError, match=r"step-00000004\.pt: .* of memory are free"):
            step_resumed_from(run)
    assert newest.exists()


def test_truncated_at_every_fiftieth_the_one_before_is_taken(run: Path, newest: Path) -> None:
    content = newest.read_bytes()
    for n in range(50):
        newest.write_bytes(content[: len(content) * n // 50])
        assert step_resumed_from(run) == 2


def test_with_any_bit_flipped_the_one_before_is_taken(run: Path, newest: Path, long: bool) -> None:
    content, random_ = newest.read_bytes(), random.Random(0)
    for _ in range(2000 if long else 50):
        flipped = bytearray(content)
        flipped[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
        newest.write_bytes(flipped)
        assert step_resumed_from(run) == 2


class Bomb:
    """Runs code when unpickled, as hostile files do."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trap),)


@pytest.mark.parametrize("kind", ["pickle", "torch.save", "our own format", "folder", "loop", "pipe"])
def test_with_something_else_in_its_place_the_one_before_is_taken(
    run: Path, newest: Path, tmp_path: Path, kind: str
) -> None:
    trap = tmp_path / "sprung"
    newest.unlink()
    match kind:
        case "pickle":
            newest.write_bytes(pickle.dumps(Bomb(trap)))
        case "torch.save":
            torch.save({"trainer": Bomb(trap)}, newest)
        case "our own format":  # by somebody who knows how the checksum is made
            checkpoint.save({"trainer": Bomb(trap)}, newest)
        case "folder":
            newest.mkdir()
        case "loop":
            newest.symlink_to(newest)
        case "pipe":
            os.mkfifo(newest)
    assert step_resumed_from(run) == 2
    assert not trap.exists()
    for path in (newest, newest.with_suffix(".damaged")):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def test_with_all_damaged_the_run_stops_and_touches_nothing(run: Path, newest: Path) -> None:
    older = checkpoint.path_of(run / "checkpoints", 2)
    good = older.read_bytes()
    for path in (newest, older):
        path.write_bytes(path.read_bytes()[:-1])
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="none of the 2 checkpoints can be read, so the training up to step 4 is lost"):
        train(TINY, run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path in before} == before
    older.write_bytes(good)


def test_the_resumed_run_ends_like_the_undamaged_one(run: Path, newest: Path, tmp_path: Path) -> None:
    train(TINY, tmp_path / "uninterrupted")
    newest.write_bytes(newest.read_bytes()[:-1000])
    train(TINY, run)
    assert_same_run(tmp_path / "uninterrupted", run)

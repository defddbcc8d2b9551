"""A disk that is really full, or a limit on the size of files: one line, and nothing that was saved before is lost."""

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.tiny import assert_same_run, tiny
from unit.config import Config
from unit.domains import PerDomain
from unit.errors import UserError
from unit.evaluation.run_log import read_run_endings
from unit.training import checkpoint
from unit.training.loop import train
from unit.training.trainer import Trainer

NEVER = 10**6
CASES = {
    "logging": {"log_every": 1, "sample_every": NEVER, "checkpoint_every": 2, "validate_every": NEVER},
    "sampling": {"log_every": NEVER, "sample_every": 3, "checkpoint_every": 2, "validate_every": NEVER},
    "saving": {"log_every": NEVER, "sample_every": NEVER, "checkpoint_every": 2, "validate_every": NEVER},
}


def config(doing: str) -> Config:
    return tiny(train=CASES[doing] | {"steps": 30 if doing == "logging" else 6})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB, in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a disk takes root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@contextmanager
def from_step_3_on(run: Path, happens: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """And once the checkpoint of step 2 is written, which training does not wait for."""
    good = Trainer.step

    def step(self: Trainer, images: PerDomain[torch.Tensor]) -> object:
        if self.steps_done == 2:
            while not checkpoint.path_of(run / "checkpoints", 2).exists():
                time.sleep(0.01)
            happens()
        return good(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        yield


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file:
        for size in (65536, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


@pytest.mark.parametrize("doing", CASES)
def test_a_full_disk_is_one_line_and_costs_nothing_saved(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doing: str
) -> None:
    run = small_disk / "run"
    with from_step_3_on(run, lambda: fill(small_disk), monkeypatch), pytest.raises(UserError) as refused:
        train(config(doing), run)
    line = str(refused.value)
    assert line.isprintable()
    assert refused.value.exit_status == 1
    assert re.fullmatch(
        rf"{run}/\S+: can't be written \(No space left on device\); [\d.]+ \w+ are needed; [\d.]+ \w+ are free there",
        line,
    )
    kept = checkpoint.available(run / "checkpoints")
    assert [step for step, _ in kept][-2:] == [2, 0]
    assert all(checkpoint.load(path) for _, path in kept)
    assert not list(run.rglob("*.partial"))
    (small_disk / "ballast").unlink()
    train(config(doing), run)
    train(config(doing), tmp_path / "uninterrupted")
    assert_same_run(tmp_path / "uninterrupted", run)


def test_a_message_on_a_full_disk_ends_the_run_after_the_step(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run.log is like any other file of the run."""
    run = small_disk / "run"

    def fill_and_log() -> None:
        fill(small_disk)
        logging.getLogger("unit").warning("x" * 10_000)

    with from_step_3_on(run, fill_and_log, monkeypatch), pytest.raises(UserError, match="No space left") as refused:
        train(config("saving"), run)
    assert str(refused.value).startswith(f"{run}/run.log: can't be written")
    assert [step for step, _ in checkpoint.available(run / "checkpoints")] == [2, 0]
    (small_disk / "ballast").unlink()
    train(config("saving"), run)
    train(config("saving"), tmp_path / "uninterrupted")
    assert_same_run(tmp_path / "uninterrupted", run)
    assert [ending.reason for ending in read_run_endings(run)][-1] == "finished"


def test_a_disk_that_is_full_from_the_start_is_one_line(small_disk: Path) -> None:
    fill(small_disk)
    command = [sys.executable, "train.py", "--out", str(small_disk / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.match(rf"error: {small_disk}/run.*No space left on device", done.stderr.splitlines()[-1])


@pytest.mark.skipif(sys.platform == "win32", reason="file-size limits are POSIX's")
def test_a_limit_on_the_size_of_files_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    run, before = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit() -> None:
        size = checkpoint.path_of(run / "checkpoints", 2).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))

    try:
        with (
            from_step_3_on(run, limit, monkeypatch),
            pytest.raises(UserError, match=r"step-00000004\.pt: .*; [\d.]+ KB are needed$"),
        ):
            train(config("saving"), run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [step for step, _ in checkpoint.available(run / "checkpoints")] == [2, 0]
    train(config("saving"), run)
    train(config("saving"), tmp_path / "uninterrupted")
    assert_same_run(tmp_path / "uninterrupted", run)

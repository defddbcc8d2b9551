"""run.log: what the console said, and how each part of a run ended; and what a resumed run says of the one before."""

import logging
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch

from tests.tiny import TINY, assert_same_run, tiny
from unit.domains import PerDomain
from unit.errors import ConfigError, UserError
from unit.evaluation.run_log import read_run_endings
from unit.training import checkpoint
from unit.training.loop import train
from unit.training.run_logger import RunLogHandler
from unit.training.trainer import Trainer


def endings(run: Path) -> list[tuple[int | None, str]]:
    return [(ending.step, ending.reason) for ending in read_run_endings(run)]


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, action: object) -> None:
    """Call `action` before the step that would be the `number`-th."""
    step = Trainer.step

    def patched(self: Trainer, images: PerDomain[torch.Tensor]) -> object:
        if self.steps_done == number - 1:
            action()  # type: ignore[operator]
        return step(self, images)

    monkeypatch.setattr(Trainer, "step", patched)


def test_the_log_holds_what_the_console_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    train(TINY, tmp_path / "run")
    said = [line for record in caplog.records for line in record.getMessage().splitlines()]
    start, *lines, end = (tmp_path / "run" / "run.log").read_text().splitlines()
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d"
    assert re.fullmatch(rf"{time} START step 0: .+", start)
    assert [re.fullmatch(rf"{time} (INFO|WARNING) (.*)", line)[2] for line in lines] == said  # type: ignore[index]
    assert any(line.endswith(f"{tmp_path}/run on cpu (1 threads), fp32") for line in lines)
    assert re.fullmatch(rf"{time} END step 6: finished", end)


def test_a_resumed_run_says_how_the_previous_part_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run, log = tmp_path / "run", tmp_path / "run" / "run.log"
    train(tiny(train={"steps": 2}), run)
    assert "the previous part" not in caplog.text
    train(tiny(train={"steps": 4}), run)
    assert re.search(r"the previous part ended at \d{4}-\d\d-\d\d \d\d:\d\d at step 2: finished", caplog.text)
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))  # as if it had been killed
    train(TINY, run)
    assert re.search(r"the previous part that started at [\d: -]+ was killed \(no end is recorded\)", caplog.text)
    assert endings(run) == [(2, "finished"), (None, ""), (6, "finished")]
    assert "the previous part ended" in log.read_text()


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
def test_a_signal_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train(TINY, tmp_path / "run").exit_status == 143
    assert endings(tmp_path / "run") == [(3, "SIGTERM")]
    assert "WARNING SIGTERM: finishing this step and saving" in (tmp_path / "run" / "run.log").read_text()
    train(TINY, tmp_path / "run")
    assert "at step 3: SIGTERM" in caplog.text


def test_the_end_of_its_time_is_named(tmp_path: Path) -> None:
    train(tiny(train={"steps": 10_000, "max_minutes": 0.001}), tmp_path / "run")
    ((_, reason),) = endings(tmp_path / "run")
    assert reason == "finished (train.max_minutes)"


def fail(error: Exception) -> None:
    raise error


def test_an_error_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_step(monkeypatch, 4, lambda: fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")))
    with pytest.raises(UserError, match="out of memory on cpu"):
        train(TINY, tmp_path / "run")
    ((step, reason),) = endings(tmp_path / "run")
    assert step == 3
    assert reason.startswith("error: out of memory on cpu; set train.checkpoint_activations")
    assert "Traceback" not in (tmp_path / "run" / "run.log").read_text()


def test_an_unexpected_error_leaves_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_step(monkeypatch, 4, lambda: fail(ValueError("first\nsecond")))
    with pytest.raises(ValueError, match="first"):
        train(TINY, tmp_path / "run")
    assert endings(tmp_path / "run") == [(3, "error: ValueError: first second")]
    log = (tmp_path / "run" / "run.log").read_text()
    assert "ERROR Traceback (most recent call last):" in log
    assert " in fail" in log


def test_a_refused_command_leaves_no_trace(tmp_path: Path) -> None:
    train(tiny(train={"steps": 2}), tmp_path / "run")
    before = (tmp_path / "run" / "run.log").read_bytes()
    with pytest.raises(ConfigError):
        train(tiny(loss={"lambda2": 50.0}), tmp_path / "run")
    assert (tmp_path / "run" / "run.log").read_bytes() == before


def test_a_message_that_can_not_be_written_stops_the_run_after_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def replace_log() -> None:
        (run / "run.log").rename(run / "moved.log")
        (run / "run.log").mkdir()
        logging.getLogger("unit").warning("lost")

    with monkeypatch.context() as patch:
        at_step(patch, 4, replace_log)
        with pytest.raises(UserError, match=r"run\.log: can't be written \(Is a directory\)$"):
            train(TINY, run)
    assert checkpoint.available(run / "checkpoints")[0][0] == 2
    (run / "run.log").rmdir()
    train(TINY, run)
    train(TINY, tmp_path / "uninterrupted")
    assert_same_run(run, tmp_path / "uninterrupted")


def test_warnings_reach_a_console_that_nobody_set_up(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        with RunLogHandler().capture():
            logging.getLogger("unit").warning("disk is slow")
        assert root.handlers == []
    finally:
        root.handlers = before
    assert capsys.readouterr().err == "disk is slow\n"


def test_neither_a_command_nor_an_error_forges_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forged = "x\n2026-11-25 00:00:00+00:00 END step 5: finished\u2028y"
    monkeypatch.setattr(sys, "argv", ["train.py", "--out", forged])
    log = RunLogHandler()
    log.start(tmp_path, lambda: 3)
    log.end(f"error: {forged}")
    (ending,) = read_run_endings(tmp_path)
    assert ending.step == 3
    assert ending.reason.startswith("error: x")

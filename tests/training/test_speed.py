"""The seconds of a step are those of steps with and without R1, in their proportion."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import TINY, tiny
from unit.config import Config
from unit.training.distributed import SINGLE_PROCESS
from unit.training.resolve import ResolvedConfig, resolve
from unit.training.speed import measure_pauses, measure_step
from unit.training.trainer import Trainer


def resolved_for(config: Config, folder: Path) -> ResolvedConfig:
    return resolve(config, folder / "run", SINGLE_PROCESS)


class Clock:
    """A trainer's steps take what a test says; the first takes a minute."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, usual: float, lazy: float) -> None:
        self.now, self.steps = 0.0, list[int]()
        monkeypatch.setattr("unit.training.speed.time.perf_counter", lambda: self.now)

        def step(trainer: Trainer, _: object) -> None:
            self.steps.append(trainer.steps_done + 1)
            self.now += 60 if len(self.steps) == 1 else usual if self.steps[-1] % 16 else lazy
            trainer.steps_done += 1

        monkeypatch.setattr(Trainer, "step", step)


@pytest.mark.parametrize(("usual", "lazy"), [(3.0, 19.0), (0.001, 0.033), (2.0, 1.0)])
def test_r1_counts_by_its_share(usual: float, lazy: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved, clock = resolved_for(TINY, tmp_path), Clock(monkeypatch, usual, lazy)
    measured = measure_step(resolved, resolved.build_trainer())
    assert measured == pytest.approx(usual + max(0, lazy - usual) / 16)
    assert clock.steps[:6] == [13, 14, 15, 16, 17, 18]
    assert len(clock.steps) == (6 if usual > 1 else 38), "fast steps are timed for longer"


def test_measuring_ends_in_time_with_a_result_that_is_too_high(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved, clock = resolved_for(TINY, tmp_path), Clock(monkeypatch, 3.0, 3.0)
    assert measure_step(resolved, resolved.build_trainer(), 5.0) == 60
    assert len(clock.steps) == 1


def test_pauses_are_those_of_all_held_out_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: list[float] = []

    def measure(function: object) -> float:
        seconds.append(1.0)
        return seconds[-1]

    monkeypatch.setattr("unit.training.speed._seconds", measure)
    for count, share in ((3, 1), (4, 1), (40, 10), (300, 50)):
        resolved = resolved_for(tiny(data={"streets_test": count}), tmp_path)
        assert measure_pauses(resolved, resolved.build_trainer()).validation == share


def test_pauses_are_measured(tmp_path: Path) -> None:
    resolved = resolved_for(TINY, tmp_path)
    pauses = measure_pauses(resolved, resolved.build_trainer())
    assert all(0 < seconds < 10 for seconds in vars(pauses).values())
    assert not (tmp_path / "run").exists()

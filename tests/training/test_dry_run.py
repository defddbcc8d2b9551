import re
from pathlib import Path

import pytest

from tests.tiny import TINY, tiny
from unit.config import Config
from unit.errors import UserError
from unit.training.checkpoint import available
from unit.training.dry_run import plan_run
from unit.training.loop import train
from unit.training.trainer import Trainer


def test_the_plan_describes_the_run_and_writes_nothing(tmp_path: Path) -> None:
    plan = plan_run(TINY, tmp_path / "run").description
    assert not (tmp_path / "run").exists()
    assert f"{tmp_path}/run: 6 steps on cpu" in plan
    assert "a: sunny, 5 training images" in plan
    assert re.search(r"time: [\d.]+ s/step, less than a minute for 6 steps", plan)
    assert re.search(r"memory: [\d.]+ [MG]B at most, of \d+ GB", plan)


def test_the_disk_space_is_about_what_the_run_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(train={"keep_last": 2, "keep_every": 4, "checkpoint_every": 1})
    estimates: list[int] = []
    monkeypatch.setattr("unit.training.dry_run._describe_disk", lambda _, needed: estimates.append(needed) or "")
    plan_run(config, tmp_path / "run")
    train(config, tmp_path / "run")
    assert len(available(tmp_path / "run" / "checkpoints")) == 3
    taken = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert 0.6 * taken < estimates[0] < 1.7 * taken  # it counts the checkpoint that comes before another goes


def test_too_little_disk_space_comes_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "too little" not in plan_run(TINY, tmp_path).description
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 1000}))
    assert "too little: lower train.keep_last" in plan_run(TINY, tmp_path).description


def test_too_little_memory_is_one_line_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(UserError, match=r"set train\.checkpoint_activations, or lower train\.batch_size"):
        plan_run(TINY, tmp_path)


def test_the_time_is_measured_on_real_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    good = Trainer.step

    def step(self: Trainer, images: object) -> object:
        seen.append(self.steps_done)
        return good(self, images)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "step", step)
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr("unit.training.speed.time.perf_counter", lambda: float(next(clock)))
    config: Config = tiny(train={"steps": 1200, "max_minutes": 5.0})
    assert "time: 3 s/step, 5 min for about 100 of 1200 steps (train.max_minutes)" in plan_run(config).description
    assert seen == [12, 13, 14, 15, 16, 17]  # R1's among them: the 16th step

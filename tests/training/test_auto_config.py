"""What a command line leaves open is settled by measured speeds, once: a run that is there goes on as it began."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.tiny import TINY, tiny
from unit.__main__ import main
from unit.cli.train import choose_preset
from unit.config import Config, DataConfig
from unit.config_file import PRESETS, read_config, write_config
from unit.errors import UserError
from unit.training import auto_config
from unit.training.auto_config import AutoConfig
from unit.training.checkpoint import available
from unit.training.distributed import SINGLE_PROCESS
from unit.training.minutes import FITTED_KEYS
from unit.training.resolve import ResolvedConfig
from unit.training.speed import Pauses

LAPTOP, PHOTOS = (read_config(PRESETS / f"{name}.yaml") for name in ("laptop", "photos"))
SMALL, LARGE, W, WIDE = LAPTOP.data.crop_size, PHOTOS.data.crop_size, LAPTOP.model.channels, PHOTOS.model.channels
TOLERANCE = 60
"""Seconds by which a run may end after its minutes: starting Python, a busy machine, and the end's rough estimates."""
SMALL_NETWORKS = [
    *("--data.load_size=20", "--data.crop_size=16", "--model.channels=4", "--model.discriminator_channels=4"),
    *("--model.residual_blocks=2", "--model.discriminator_layers=2", "--train.device=cpu", "--data.workers=0"),
]


def make_photos(folder: Path, side: int, count: int = 6) -> dict[str, Any]:
    for name in ("sunny", "rainy"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            pixels = np.random.default_rng(k).integers(0, 256, (4, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((side + 16, side)).save(folder / name / f"{k:03}.png")
    return {"data.a": str(folder / "sunny"), "data.b": str(folder / "rainy")}


def auto_for(flags: dict[str, Any], minutes: float | None = None) -> tuple[Config, AutoConfig]:
    """As the command line makes it."""
    bare = Config(data=DataConfig(a=flags["data.a"], b=flags["data.b"]), train=replace(Config().train, device="cpu"))
    choice = choose_preset(bare, flags)
    return read_config(choice.path, {**choice.keys, **flags}), AutoConfig(flags, choice, minutes)


Speeds = Callable[[Config], float]


def by_size(config: Config) -> float:
    """Made-up seconds per step."""
    times = {(64, W): 0.05, (96, W): 0.1, (SMALL, W): 0.2, (192, W): 0.5, (LARGE, 32): 2.0, (LARGE, WIDE): 6.0}
    return times.get((config.data.crop_size, config.model.channels), 10.0)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Replace measuring by `by_size`; return what was measured."""
    configs: list[Config] = []

    def measure(resolved: ResolvedConfig, *_: object) -> float:
        configs.append(resolved.config)
        return by_size(resolved.config)

    monkeypatch.setattr(auto_config, "measure_step", measure)
    monkeypatch.setattr(auto_config, "measure_pauses", lambda *_: Pauses(1.0, 2.0, 0.5))
    monkeypatch.setattr(AutoConfig, "_trainer", lambda *_: None)
    return configs


@pytest.mark.parametrize(
    ("minutes", "size", "channels", "measurements"),
    [
        (0.001, 64, W, 1),
        (1, 64, W, 1),  # already at the speed of 64 px, 96 px would have too few
        (2, 64, W, 2),
        (7, 96, W, 3),
        (30, SMALL, W, 3),
        (120, 192, W, 4),
        (1000, LARGE, 32, 5),
        (20_000, LARGE, WIDE, 6),
    ],
)
def test_the_time_decides_on_size_and_width(
    minutes: float, size: int, channels: int, measurements: int, tmp_path: Path, measured: list[Config]
) -> None:
    flags = make_photos(tmp_path, 300)
    config, auto = auto_for(flags, minutes)
    resolved = auto.resolve(config, tmp_path / "run", SINGLE_PROCESS)
    assert (resolved.config.data.crop_size, resolved.config.model.channels) == (size, channels)
    assert len(measured) == measurements
    train = resolved.config.train
    assert train.max_minutes is not None
    assert train.max_minutes < minutes
    limited = by_size(resolved.config) * train.steps <= 60 * minutes
    assert limited or resolved.config.optimizer.schedule == "constant"
    assert (resolved.config.data.a, resolved.config.data.b) == (flags["data.a"], flags["data.b"])
    preset = "photos" if size == LARGE else "laptop"
    assert resolved.config.loss == read_config(PRESETS / f"{preset}.yaml").loss, "the preset's recipe"


@pytest.mark.parametrize(("side", "size"), [(300, 192), (SMALL + 20, SMALL), (100, 96), (30, 64)])
def test_images_are_not_enlarged(side: int, size: int, tmp_path: Path, measured: list[Config]) -> None:
    config, auto = auto_for(make_photos(tmp_path, side), 120)
    assert auto.resolve(config, tmp_path / "run", SINGLE_PROCESS).config.data.crop_size == size


@pytest.mark.parametrize(
    ("flags", "minutes", "size"),
    [
        ({"train.steps": 7, "train.sample_every": 3}, 120, 64),
        ({"train.steps": 5000}, 120, SMALL),
        ({"train.max_minutes": 1.5, "optimizer.learning_rate_generator": 1e-5}, 30, SMALL),
        ({"data.crop_size": 64}, 30, 64),
        ({"model.channels": W, "train.batch_size": 7, "loss.lambda0": 2.0}, 5, 96),
    ],
)
def test_flags_win(flags: dict[str, Any], minutes: float, size: int, tmp_path: Path, measured: list[Config]) -> None:
    flags = make_photos(tmp_path, 300) | flags
    config, auto = auto_for(flags, minutes)
    settled = auto.resolve(config, tmp_path / "run", SINGLE_PROCESS).config
    assert settled.to_flat_dict().items() >= flags.items()
    assert settled.data.crop_size == size


@pytest.mark.parametrize(
    ("minutes", "size", "why"),
    [
        (
            7,
            96,
            rf"since 0\.1 s/step leave 3,\d+ steps \(at {SMALL} px and {W} channels only 1,\d+, and it takes 3,000\)",
        ),
        (30, SMALL, r"since 0\.2 s/step leave 7,\d\d\d steps \(for 192 px it takes 10,000\)"),
        (20_000, LARGE, r"since 6 s/step leave \d+,\d\d\d steps"),
    ],
)
def test_it_says_what_was_chosen_and_why_and_how_to_override(
    minutes: int, size: int, why: str, tmp_path: Path, measured: list[Config], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config, auto = auto_for(make_photos(tmp_path, 300), minutes)
    auto.resolve(config, tmp_path / "run", SINGLE_PROCESS)
    said, how = [record.getMessage() for record in caplog.records][-2:]
    preset = f"photos at {size} px and {WIDE}" if size == LARGE else f"laptop at {size} px and {W}"
    photos = r"two folders \(6 and 6 photos, 300 px\)"
    assert re.fullmatch(rf"{minutes} min on cpu \(1 threads\), {photos}: the preset {preset} channels, {why}", said), (
        said
    )
    assert how == "override with --config, --data.crop_size, --model.channels, --train.steps"


def test_too_many_steps_for_the_time_are_said(
    tmp_path: Path, measured: list[Config], caplog: pytest.LogCaptureFixture
) -> None:
    config, auto = auto_for(make_photos(tmp_path, 300) | {"train.steps": 10**6}, 2)
    auto.resolve(config, tmp_path / "run", SINGLE_PROCESS)
    assert "of 1000000 steps only about" in caplog.text


def test_a_size_for_which_the_memory_is_too_small_is_not_chosen(
    tmp_path: Path, measured: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(resolved: ResolvedConfig, *_: object) -> float:
        if resolved.config.data.crop_size > limit:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return by_size(resolved.config)

    monkeypatch.setattr(auto_config, "measure_step", measure)
    config, auto = auto_for(make_photos(tmp_path, 300), 120)
    limit = 100
    assert auto.resolve(config, tmp_path / "run", SINGLE_PROCESS).config.data.crop_size == 96
    limit = 10
    with pytest.raises(UserError, match="out of memory on cpu"):
        auto.resolve(config, tmp_path / "run", SINGLE_PROCESS)


@pytest.mark.parametrize("folders", [True, False])
def test_with_a_file_or_the_streets_only_the_steps_are_fitted(
    folders: bool, tmp_path: Path, measured: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_config, "measure_step", lambda *_: 0.1)
    given = replace(TINY.data, **{key[5:]: value for key, value in make_photos(tmp_path, 40).items()})
    config = tiny(data=vars(given) if folders else {})
    settled = AutoConfig({}, None, 10).resolve(config, tmp_path / "run", SINGLE_PROCESS).config
    before, now = config.to_flat_dict(), settled.to_flat_dict()
    changed = {key for key in now if now[key] != before[key]}
    assert changed <= FITTED_KEYS
    assert "train.steps" in changed


# Resuming


def started(folder: Path, config: Config, step: int = 10) -> None:
    """A run's directory, as far as its settings go."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / f"step-{step:08}.pt").touch()
    write_config(config, folder / "config.yaml")


@pytest.mark.parametrize("then", [None, 30.0])
@pytest.mark.parametrize("now", [None, 5.0, 600.0])
def test_a_run_goes_on_with_what_was_chosen(
    then: float | None, now: float | None, tmp_path: Path, measured: list[Config]
) -> None:
    """However long it has, and although the photos are smaller now, and fewer."""
    run = tmp_path / "run"
    config, auto = auto_for(make_photos(tmp_path, 300), then)
    before = auto.resolve(config, run, SINGLE_PROCESS).config
    started(run, before)
    measured.clear()
    config, auto = auto_for(make_photos(tmp_path, 70), now)
    assert config.data.crop_size == 64, "it would be chosen now"
    settled = auto.resolve(config, run, SINGLE_PROCESS).config
    assert measured == []
    assert (settled.data, settled.model, settled.loss) == (before.data, before.model, before.loss)
    assert settled.optimizer == before.optimizer
    if now is None:
        assert settled.train == replace(before.train, **vars_of(config, FITTED_KEYS)), "no limit any more"
    else:
        assert settled.train == replace(before.train, max_minutes=settled.train.max_minutes)
        assert settled.train.max_minutes == pytest.approx(0.9 * now, abs=0.5)


def vars_of(config: Config, keys: frozenset[str]) -> dict[str, Any]:
    return {key[6:]: value for key, value in config.to_flat_dict().items() if key in keys and key.startswith("train.")}


def test_flags_win_over_what_was_chosen_when_the_run_was_started(tmp_path: Path, measured: list[Config]) -> None:
    run, flags = tmp_path / "run", make_photos(tmp_path, 300)
    config, auto = auto_for(flags, 30)
    started(run, auto.resolve(config, run, SINGLE_PROCESS).config)
    flags |= {"train.max_minutes": 3.0, "train.steps": 99, "loss.lambda0": 7.0}
    config, auto = auto_for(flags, 30)
    settled = auto.resolve(config, run, SINGLE_PROCESS).config
    assert settled.to_flat_dict().items() >= flags.items()
    assert settled.data.crop_size == SMALL


def test_without_minutes_a_run_ends_where_its_rates_do(tmp_path: Path, measured: list[Config]) -> None:
    run, flags = tmp_path / "run", make_photos(tmp_path, 300)
    config, auto = auto_for(flags)
    falling = replace(config.optimizer, schedule="linear", decay_start=10, decay_end=50)
    started(run, replace(config, optimizer=falling))
    assert auto.continued(config, run, SINGLE_PROCESS)[0].train.steps == 50
    config, auto = auto_for(flags | {"train.steps": 70})
    assert auto.continued(config, run, SINGLE_PROCESS)[0].train.steps == 70


def test_a_restart_chooses_again(tmp_path: Path, measured: list[Config]) -> None:
    run = tmp_path / "run"
    config, auto = auto_for(make_photos(tmp_path, 300), 30)
    started(run, auto.resolve(config, run, SINGLE_PROCESS).config)
    config, auto = auto_for(make_photos(tmp_path, 70), 30)
    assert auto.resolve(config, run, SINGLE_PROCESS, restart=True).config.data.crop_size == 64


def test_a_file_given_with_config_holds_as_it_is(tmp_path: Path) -> None:
    started(tmp_path / "run", tiny(model={"channels": 8}))
    assert AutoConfig().continued(TINY, tmp_path / "run", SINGLE_PROCESS) == (TINY, False)


def test_a_run_whose_settings_cannot_be_read_is_taken_for_one_of_the_command_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    config, auto = auto_for(make_photos(tmp_path, 300))
    started(run, config)
    (run / "config.yaml").write_text("model: [")
    assert auto.continued(config, run, SINGLE_PROCESS) == (config, False)
    assert "config.yaml" in caplog.text


def test_a_complete_run_says_how_to_train_longer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run = tmp_path / "run"
    config, auto = auto_for(make_photos(tmp_path, 300), 30)
    started(run, replace(config, train=replace(config.train, steps=10)), step=10)
    auto.continued(config, run, SINGLE_PROCESS)
    assert "all its 10 steps are done; to train longer: --restart --minutes 60" in caplog.text


# Whole runs


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def folders(photos: dict[str, Any]) -> list[str]:
    return [f"--{key}={value}" for key, value in photos.items()]


def test_a_run_of_seconds_and_its_resumption(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", *folders(make_photos(tmp_path, 24)), *SMALL_NETWORKS, "--minutes=0.08", "--out", tmp_path / "run"]
    start = time.monotonic()
    assert call(*words) == 0
    assert time.monotonic() - start < 0.08 * 60 + TOLERANCE
    config = read_config(tmp_path / "run" / "config.yaml")
    (first, _), *_ = available(tmp_path / "run" / "checkpoints")
    assert config.train.steps >= first > 0
    assert config.train.max_minutes is not None
    make_photos(tmp_path, 24, count=9)
    assert call(*words) == 0
    again = read_config(tmp_path / "run" / "config.yaml")
    assert replace(again.train, max_minutes=config.train.max_minutes) == config.train
    assert replace(again, train=config.train) == config
    (second, _), *_ = available(tmp_path / "run" / "checkpoints")
    assert second > first or second == config.train.steps
    assert "different" not in capsys.readouterr().err


def test_dry_run_and_print_config_settle_the_same_and_write_nothing(
    tmp_path: Path, measured: list[Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("unit.training.dry_run._describe", lambda resolved: f"plan of {resolved.config.train.steps}\n")
    words = ["train", *folders(make_photos(tmp_path, 300)), "--train.device=cpu", "--out", tmp_path / "run"]
    assert call(*words, "--minutes=30", "--print_config") == 0
    printed = capsys.readouterr().out
    (tmp_path / "printed.yaml").write_text(printed)
    settled = read_config(tmp_path / "printed.yaml")
    assert settled.data.crop_size == SMALL
    assert settled.train.max_minutes == pytest.approx(27, abs=0.5)
    assert call(*words, "--minutes=30", "--dry_run", "--print_config") == 0
    plan, both = capsys.readouterr().out.split("\n", 1)
    assert plan.startswith("plan of ")
    assert [line for line in both.strip().splitlines() if "max_minutes" not in line] == [
        line for line in printed.strip().splitlines() if "max_minutes" not in line
    ]
    assert call(*words, "--minutes=30", "--dry_run") == 0
    assert capsys.readouterr().out.startswith("plan of ")
    started(tmp_path / "run", settled)
    assert call(*words, "--print_config") == 0, "those of the run"
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert read_config(tmp_path / "printed.yaml").optimizer == settled.optimizer
    assert {path.name for path in tmp_path.iterdir()} == {"sunny", "rainy", "run", "printed.yaml"}


def run_unit(*arguments: object, torchrun: bool = False) -> subprocess.CompletedProcess[str]:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"] if torchrun else []
    command = [sys.executable, "-m", *launcher, "unit", "train", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PRESETS.parent)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_half_a_minute_on_small_photos_ends_in_half_a_minute(tmp_path: Path) -> None:
    photos = [*folders(make_photos(tmp_path, 80, count=30)), "--train.device=cpu", "--out", tmp_path / "run"]
    start = time.monotonic()
    done = run_unit(*photos, "--minutes", "0.5")
    taken = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    assert 15 < taken < 30 + TOLERANCE, done.stderr
    assert (
        "0.5 min on cpu (1 threads), two folders (30 and 30 photos, 80 px): the preset laptop at 64 px" in done.stderr
    )
    config = read_config(tmp_path / "run" / "config.yaml")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(any(tag.startswith("val/") for tag in line) for line in lines) >= 2
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"model.safetensors", "report.html", "samples"}
    start = time.monotonic()
    done = run_unit(*photos, "--minutes", "0.5")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 30 + TOLERANCE, done.stderr
    assert "goes on with the settings it was started with" in done.stderr
    again = read_config(tmp_path / "run" / "config.yaml")
    assert replace(again, train=config.train) == config


@pytest.mark.slow
def test_all_ranks_choose_the_same(tmp_path: Path) -> None:
    words = [*folders(make_photos(tmp_path, 24)), *SMALL_NETWORKS, "--minutes=0.2", "--out", tmp_path / "run"]
    for _ in range(2):
        done = run_unit(*words, torchrun=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("override with") + done.stderr.count("goes on with the settings") == 1
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["ranks"] == 2

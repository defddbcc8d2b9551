"""The table of presets: by device, the photos' size and number, and the flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unit.config import Config
from unit.config_file import read_config
from unit.data.survey import Survey
from unit.domains import PerDomain
from unit.errors import ConfigError
from unit.training import preset_choice
from unit.training.preset_choice import LADDER, SMALL_FOLDER, choose, choose_streets, ladder

FOLDERS = {"data.a": "x", "data.b": "y"}
LAPTOP, PHOTOS = (read_config(preset_choice.PRESETS / f"{name}.yaml") for name in ("laptop", "photos"))
SMALL, LARGE = LAPTOP.data.crop_size, PHOTOS.data.crop_size


def photos(short_side: int | None, count: int | None = 1000) -> Survey:
    return Survey(PerDomain(count, 1000), short_side)


def chosen(survey: Survey, on_cuda: bool, flags: dict[str, Any]) -> tuple[str, Config]:
    choice = choose(survey, on_cuda, flags)
    return choice.path.stem, read_config(choice.path, {**choice.keys, **flags})


@pytest.mark.parametrize(
    ("on_cuda", "short_side", "preset", "size"),
    [
        (False, None, "laptop", SMALL),
        (False, 2000, "laptop", SMALL),
        (False, SMALL, "laptop", SMALL),
        (False, SMALL - 1, "laptop", 96),
        (False, 95, "laptop", 64),
        (False, 20, "laptop", 64),
        (True, None, "photos", LARGE),
        (True, LARGE, "photos", LARGE),
        (True, LARGE - 1, "laptop", 192),
        (True, 64, "laptop", 64),
    ],
)
def test_the_choice_where_nothing_limits_the_time(
    on_cuda: bool, short_side: int | None, preset: str, size: int
) -> None:
    name, config = chosen(photos(short_side), on_cuda, FOLDERS)
    assert (name, config.data.crop_size) == (preset, size)
    unchanged = read_config(preset_choice.PRESETS / f"{preset}.yaml", FOLDERS)
    if size == unchanged.data.crop_size:
        assert config == unchanged, "the preset itself"
    assert config.data.load_size == round(size * unchanged.data.load_size / unchanged.data.crop_size)
    assert config.model.downsamples == (1 if size == 64 else unchanged.model.downsamples)
    assert (config.loss, config.optimizer, config.train) == (unchanged.loss, unchanged.optimizer, unchanged.train)


def test_the_reason_tells_the_photos_the_device_and_how_to_override() -> None:
    reason = choose(Survey(PerDomain(270, 1321), 288), False, FOLDERS).reason
    assert reason.startswith(f"two folders (270 and 1,321 photos, 288 px) and no GPU: the preset laptop at {SMALL} px")
    assert "--config" in reason
    assert "--minutes 30" in reason
    assert f"a GPU: the preset photos at {LARGE} px" in choose(photos(None), True, FOLDERS).reason


FLAGS: list[dict[str, Any]] = [
    {"data.crop_size": 112},
    {"data.load_size": 160},
    {"data.load_size": 400, "data.crop_size": 320},
    {"model.channels": 8},
    {"model.channels": 64},
    {"model.downsamples": 1},
    {"model.downsamples": 6},
    {"loss.augmentation": "color", "train.steps": 7, "train.batch_size": 3},
]


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("on_cuda", [False, True])
@pytest.mark.parametrize("short_side", [70, 1000])
def test_flags_win(flags: dict[str, Any], on_cuda: bool, short_side: int) -> None:
    survey, flags = photos(short_side), FOLDERS | flags
    for config in [chosen(survey, on_cuda, flags)[1], *(config for _, config in ladder(survey, flags))]:
        assert config.to_flat_dict().items() >= flags.items()


def test_given_sizes_leave_the_networks_to_choose() -> None:
    rungs = ladder(photos(70), FOLDERS | {"data.load_size": 280, "data.crop_size": 256})
    assert [(rung.preset, config.model.channels) for rung, config in rungs] == [
        ("laptop", LAPTOP.model.channels),
        ("photos", 32),
        ("photos", PHOTOS.model.channels),
    ]


def test_given_networks_leave_the_sizes_to_choose() -> None:
    rungs = ladder(photos(None), FOLDERS | {"model.channels": 32})
    assert [config.data.crop_size for _, config in rungs] == [64, 96, SMALL, 192, LARGE], "the largest once"


def test_the_ladder_ascends() -> None:
    configs = [config for _, config in ladder(photos(None), FOLDERS)]
    assert len(configs) == len(LADDER)
    work = [config.data.crop_size**2 * config.model.channels for config in configs]
    assert work == sorted(work)
    steps = [rung.enough_steps for rung in LADDER]
    assert steps == sorted(steps)
    assert steps[0] == 0, "something is chosen however short the time"


def test_flags_that_go_with_no_preset_are_refused_with_the_preset_that_would_be_chosen() -> None:
    size = LAPTOP.data.load_size // 8 * 8 + 8
    with pytest.raises(ConfigError, match=rf"the crop \({size}\) is larger than data.load_size"):
        choose(photos(None), False, FOLDERS | {"data.crop_size": size})
    assert chosen(photos(None), True, FOLDERS | {"data.crop_size": size})[1].data.crop_size == size


@pytest.mark.parametrize(
    ("count", "applies"), [(1, True), (SMALL_FOLDER - 1, True), (SMALL_FOLDER, False), (None, False)]
)
def test_keys_for_small_folders(count: int | None, applies: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the smaller of the two folders; a flag wins."""
    survey = photos(300, count)
    before = chosen(survey, False, FOLDERS)[1]
    monkeypatch.setattr(preset_choice, "SMALL_FOLDER_KEYS", {"loss.augmentation": "cutout", "data.flip": False})
    _, config = chosen(survey, False, FOLDERS | {"data.flip": True})
    assert config.loss.augmentation == ("cutout" if applies else before.loss.augmentation)
    assert config.data.flip
    assert all((c.loss.augmentation == "cutout") == applies for _, c in ladder(survey, FOLDERS))


def test_a_missing_preset_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preset_choice, "PRESETS", tmp_path)
    for choice in (choose_streets, lambda: choose(photos(None), False, FOLDERS)):
        with pytest.raises(ConfigError, match=r"this preset is missing; give --config FILE\.yaml"):
            choice()

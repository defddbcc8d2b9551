"""Which preset suits what the user has: the device, the photos' size and number, and the time there is.

This module only says what is possible and what is better; `auto_config.py` measures and decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unit.config import Config
from unit.config_file import PRESETS, read_config
from unit.data.survey import Survey
from unit.errors import ConfigError

SMALL_FOLDER = 250
"""Photos in the smaller folder below which `SMALL_FOLDER_KEYS` hold."""
SMALL_FOLDER_KEYS: Mapping[str, Any] = {}
"""Keys that differ for small folders: none, since loss.augmentation has not been studied on real photos yet."""

_SIZE_KEYS = {"data.load_size", "data.crop_size"}


@dataclass(frozen=True)
class Rung:
    """Networks and an image size: a preset's, or smaller or larger ones of the same recipe."""

    preset: str
    enough_steps: int
    """steps from which on it is worth more than the rung below"""
    crop_size: int | None = None
    """pixels, with data.load_size in the preset's proportion; None: the preset's sizes"""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """what else differs from the preset"""


_CPU_DEFAULT = Rung("laptop", 3_000)
LADDER = (
    Rung("laptop", 0, 64, {"model.downsamples": 1}),  # at 64 px far sharper than with 2: README, Presets
    Rung("laptop", 1_500, 96),
    _CPU_DEFAULT,
    Rung("laptop", 10_000, 192),
    Rung("photos", 20_000, keys={"model.channels": 32}),
    Rung("photos", 50_000),
)
"""From the fastest to the slowest: a step takes about twice as long as on the rung below, or longer. The numbers of
steps are rules of thumb: at 64 px, 1,100 looked unfinished and 4,000 did not (README); larger images need more."""


@dataclass(frozen=True)
class Choice:
    """A preset chosen without --config."""

    path: Path
    reason: str
    """a sentence"""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """what differs from the preset"""
    survey: Survey | None = None
    """the photos; None for the synthetic streets"""


def choose_streets() -> Choice:
    """Choose the preset where no folders are given."""
    reason = "no folders given, so the synthetic streets: the preset streets (--config picks another)"
    return Choice(_path("streets"), reason)


def choose(survey: Survey, on_cuda: bool, flags: Mapping[str, Any]) -> Choice:
    """Choose a preset for two folders where nothing limits the time: by the device, and no larger than the photos.

    Args:
        survey: the photos.
        on_cuda: whether training runs on a CUDA GPU.
        flags: keys that the user gave, which hold in any case.

    Raises:
        ConfigError: a preset is missing, or does not go with the flags.
    """
    default = LADDER[-1] if on_cuda else _CPU_DEFAULT
    allowed = LADDER[: LADDER.index(default) + 1]
    rungs = [(rung, config) for rung, config in ladder(survey, flags) if rung in allowed]
    rung, config = rungs[-1] if rungs else (default, _config(default, survey, flags))
    device = "a GPU" if on_cuda else "no GPU"
    reason = (
        f"two folders ({survey}) and {device}: the preset {rung.preset} at {config.data.crop_size} px "
        "(--config picks another; --minutes 30 fits the run into half an hour)"
    )
    return Choice(_path(rung.preset), reason, _keys(rung, survey, flags), survey)


def ladder(survey: Survey, flags: Mapping[str, Any]) -> list[tuple[Rung, Config]]:
    """Return the rungs for these photos, from the fastest on: those of their size or smaller, else the first.

    Sizes that the user gave hold for all rungs, which then differ in their networks; so do all other flags.
    """
    given_size = bool(_SIZE_KEYS & flags.keys())
    rungs: list[tuple[Rung, Config]] = []
    for rung in LADDER:
        try:
            config = _config(rung, survey, flags)
        except ConfigError:  # the flags may go with another rung
            continue
        too_large = survey.short_side is not None and config.data.crop_size > survey.short_side
        if rungs and too_large and not given_size:
            break
        if not (given_size and rung.crop_size) and config not in [known for _, known in rungs]:
            rungs.append((rung, config))
    return rungs


def _config(rung: Rung, survey: Survey, flags: Mapping[str, Any]) -> Config:
    return read_config(_path(rung.preset), {**_keys(rung, survey, flags), **flags})


def _keys(rung: Rung, survey: Survey, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that differ from the rung's preset."""
    keys = dict(rung.keys)
    if rung.crop_size and not _SIZE_KEYS & flags.keys():
        data = read_config(_path(rung.preset)).data
        load_size = round(rung.crop_size * data.load_size / data.crop_size)
        keys |= {"data.crop_size": rung.crop_size, "data.load_size": load_size}
    if min(SMALL_FOLDER if count is None else count for count in survey.counts) < SMALL_FOLDER:
        keys |= SMALL_FOLDER_KEYS
    return keys


def _path(preset: str) -> Path:
    path = PRESETS / f"{preset}.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: this preset is missing; give --config FILE.yaml")
    return path

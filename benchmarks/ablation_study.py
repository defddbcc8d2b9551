"""The settings that an ablation compares: a study file, and the training and test images of its runs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from unit.cli.train_arguments import parse_train_arguments
from unit.config import CHANGEABLE_ON_RESUME, Config
from unit.data.datasets import HeldOut, open_datasets, open_held_out
from unit.domains import PerDomain
from unit.earth.tiles import write_earth
from unit.errors import ConfigError, escape
from unit.files import wrap_os_errors

REPOSITORY = Path(__file__).resolve().parents[1]

DATA = {
    "streets": {},
    "earth": {
        "data.root": "images/earth-{size}",
        "data.paired_test": "true",
        "data.name_a": "satellite",
        "data.name_b": "relief",
        "data.flip": "false",
    },
}
"""The configuration of each data set; paths are relative to the folder of all runs."""

SCENES = ("select", "report")
"""Validation scenes, to choose a recipe by, and test scenes, to report it on. Streets: the run's own test scenes, and
those of a town that no run trains in or is chosen by. Earth: its bands "select" and "test"."""

REPORT_TOWN = 1007
"""The seed of the streets to report on."""

_KINDS: dict[str, tuple[type, ...]] = {
    "base": (str,),
    "common": (dict,),
    "settings": (dict,),
    "data": (list,),
    "seeds": (list,),
    "minutes": (int, float),
    "steps": (int,),
    "size": (int,),
    "table": (str,),
}
"""The keys of a study file and their types."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]*")
_OWN = {f"train.{key}" for key in ("steps", "max_minutes", "seed", "device")} | {"data.load_size", "data.crop_size"}
"""Keys that the benchmark sets itself."""


@dataclass(frozen=True)
class Run:
    """One training."""

    setting: str
    data: str
    size: int
    seed: int
    steps: int

    def __str__(self) -> str:
        return f"{self.data} at {self.size} px, {self.setting}, seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """Settings × data sets × seeds; all runs share the configuration `base` and the keys in `common`."""

    name: str
    base: Path
    """a configuration, relative to the repository"""
    settings: dict[str, dict[str, str]]
    """name → dotted key → value; optimizer.decay_start and decay_end may be percentages of the run's steps"""
    common: dict[str, str]
    """dotted key → value"""
    data: tuple[str, ...]
    seeds: tuple[int, ...]
    minutes: float | None = None
    """minutes of the whole machine per run, converted to steps"""
    steps: int | None = None
    """steps per run, instead of minutes"""
    size: int = 64
    """side of the images in pixels"""
    table: str = "report"
    """which of `SCENES` the table shows"""

    def __post_init__(self) -> None:
        for name in self.settings:
            _require(_NAME.fullmatch(name), f"settings.{name}: use only a to z, digits, _ . + and -")
        for name in self.data:
            _require(name in DATA, f"data: no data set is called {name!r}; there are {', '.join(DATA)}")
        _require(self.settings and self.data and self.seeds, "needs at least one of settings, data and seeds")
        _require((self.minutes is None) != (self.steps is None), "give either minutes or steps")
        _require((self.minutes or self.steps or 0) > 0, "minutes or steps: must be above 0")
        _require(self.table in SCENES, f"table: must be {' or '.join(SCENES)}, is {self.table!r}")
        _require(REPORT_TOWN not in self.seeds, f"seeds: {REPORT_TOWN} is the town to report on; take another")
        for key in {key for keys in (self.common, *self.settings.values()) for key in keys} & _OWN:
            _require(False, f"{key}: is the benchmark's own; leave it out")

    def arguments(self, run: Run, device: str = "auto") -> list[str]:
        """Return the arguments of train.py, except --out."""
        keys = self.common | DATA[run.data] | self.settings[run.setting]
        keys |= {"data.load_size": str(run.size), "data.crop_size": str(run.size)}
        keys |= {"train.steps": str(run.steps), "train.max_minutes": "null", "train.seed": str(run.seed)}
        interval = str(max(1, run.steps // 10))
        keys |= {"train.sample_every": interval, "train.checkpoint_every": interval, "train.keep_last": "1"}
        keys |= {"train.validate_every": str(10**9), "train.device": device}
        flags = [f"--{key}={_resolved(value, run)}" for key, value in keys.items()]
        return ["--config", str(REPOSITORY / self.base), *flags]

    def config(self, run: Run, device: str = "auto") -> Config:
        """Return the resolved configuration; raises `ConfigError` for an invalid key or value."""
        try:
            return parse_train_arguments(self.arguments(run, device), lambda _: REPOSITORY / self.base).config
        except ConfigError as error:
            raise ConfigError(f"{self.name}, setting {run.setting}: {error}") from error

    def folder(self, run: Run) -> Path:
        """Return the run directory below the folder of all runs.

        A run whose learning rate depends on its length can't be extended, so its steps are in the name.
        """
        keys = self.common | self.settings[run.setting]
        ends = f"-{run.steps}" if any(value.endswith("%") for value in keys.values()) else ""
        return Path(self.name, f"{run.data}-{run.size}", f"{run.setting}-seed{run.seed}{ends}")

    def only(self, names: Iterable[str]) -> Study:
        """Restrict the study to these settings, in the order of the file."""
        for name in names:
            _require(name in self.settings, f"--only {name}: no such setting; there are {', '.join(self.settings)}")
        return replace(self, settings={name: keys for name, keys in self.settings.items() if name in set(names)})


def read_study(path: Path) -> Study:
    """Read a YAML file with the fields of `Study`; base, data, settings, and minutes or steps are required.

    Raises:
        ConfigError: the file is invalid, in one line.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _study(path.stem, content)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{escape(path)}: can't be read ({error}); give a study file") from error
    except (yaml.YAMLError, ConfigError) as error:
        raise ConfigError(f"{escape(path)}: {escape(' '.join(str(error).split()))}") from error


def _study(name: str, content: Any) -> Study:
    _require(isinstance(content, dict), "must be a mapping")
    for key, value in content.items():
        _require(key in _KINDS, f"{key}: no such key; there are {', '.join(_KINDS)}")
        _require(isinstance(value, _KINDS[key]) and value is not True, f"{key}: may not be {value!r}")
    for key in ("base", "settings", "data"):
        _require(key in content, f"{key}: is missing")
    _require(all(type(seed) is int for seed in content.get("seeds", [])), "seeds: must be whole numbers")
    return Study(
        **content
        | {
            "name": name,
            "base": Path(content["base"]),
            "settings": {str(setting): _texts(keys) for setting, keys in content["settings"].items()},
            "common": _texts(content.get("common")),
            "data": tuple(content["data"]),
            "seeds": tuple(content.get("seeds", [0])),
        }
    )


def _texts(keys: Any) -> dict[str, str]:
    _require(isinstance(keys, dict | None), f"must be a mapping of dotted keys, is {keys!r}")
    return {str(key): "null" if value is None else str(value) for key, value in (keys or {}).items()}


def _require(condition: object, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _resolved(value: str, run: Run) -> str:
    if value.endswith("%"):
        return str(round(float(value[:-1]) / 100 * run.steps))
    return value.format(size=run.size) if "{size}" in value else value


def changed_keys(config: Config) -> dict[str, Any]:
    """Return the non-default keys that a run's result depends on, except its folders, seed and size."""
    ignored = CHANGEABLE_ON_RESUME - {"train.batch_size", "train.grad_accum_steps"}
    ignored |= {"data.root", "train.seed", "data.load_size", "data.crop_size"}
    values, defaults = config.to_flat_dict(), Config().to_flat_dict()
    return {key: value for key, value in values.items() if key not in ignored and value != defaults[key]}


def make_images(config: Config, out: Path) -> None:
    """Write the tiles of the earth if they are missing; streets need no files."""
    if config.data.root is None:
        return
    root, partial = out / config.data.root, out / f"{config.data.root}.partial"
    if not root.exists():
        with wrap_os_errors(root):
            root.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            write_earth(partial, config.data.crop_size)
            partial.rename(root)


def held_out(scenes: str, config: Config, out: Path) -> HeldOut:
    """Open the validation or test images of a run, all aligned pairs."""
    if config.data.root is None:
        return open_datasets(config.data, REPORT_TOWN if scenes == "report" else config.train.seed).test
    folders = {"select": "select", "report": "test"}
    root = out / config.data.root
    return open_held_out(PerDomain.of(lambda i: root / f"{folders[scenes]}{i.upper()}"), paired=True)

"""What the keys of `data` mean: the training and test images of both domains, and their names."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from unit.config import DataConfig
from unit.data.cache import cache_folder
from unit.data.folders import ImageFolder, default_names, digest, held_out, split_root
from unit.data.shards import Shards, is_shards, plain_path, shard_files
from unit.domains import Domain, PerDomain
from unit.errors import ConfigError, DataError, escape
from unit.image_source import ImageSource
from unit.images import MAX_PIXELS
from unit.streets import Streets, Weather


@dataclass(frozen=True)
class HeldOut:
    """Images that training never saw."""

    images: PerDomain[ImageSource]
    paired: bool
    """image k of A and of B show the same scene"""
    redrawn: PerDomain[ImageSource] | None = None
    """embedded streets: the same scenes with other clouds and streaks, the best that a translator can reach"""


@dataclass(frozen=True)
class Datasets:
    """The images of a run."""

    train: PerDomain[ImageSource]
    test: HeldOut
    names: PerDomain[str]
    """what the user calls the domains"""

    def digest(self) -> str:
        """Changes when a training image is added, removed or renamed."""
        return digest(f"{i}/{self.train[i].name(k)}" for i in Domain for k in range(len(self.train[i])))

    def describe(self) -> str:
        """Domain, name and counts, a line for each."""
        return "\n".join(
            f"{i}: {self.names[i]}, {len(self.train[i])} training images, {len(self.test.images[i])} held out"
            for i in Domain
        )


def open_datasets(config: DataConfig, seed: int = 0) -> Datasets:
    """List the folders or shards, or lay out the embedded streets; no image is read yet.

    Raises:
        DataError: a folder or shard is missing, empty or not what the configuration says.
    """
    return _streets(config, seed) if config.synthetic else _folders(config)


def open_held_out(folders: PerDomain[Path], paired: bool, max_pixels: int = MAX_PIXELS) -> HeldOut:
    """Two folders, or shards, of test images.

    Raises:
        DataError: a folder is missing or empty, or `paired` and they hold different numbers of images.
    """
    images = folders.map(lambda folder: _opened(folder, max_pixels))
    a, b = images.map(len)
    if paired and a != b:
        raise DataError(f"{folders.a} has {a} images, but {folders.b} has {b}; aligned pairs need as many")
    return HeldOut(PerDomain(images.a, images.b), paired)


def _streets(config: DataConfig, seed: int) -> Datasets:
    size, weathers = config.load_size, PerDomain(Weather.SUNNY, Weather.RAINY)
    train = PerDomain.of(lambda i: Streets(weathers[i], f"train{i.upper()}", config.streets_train, size, seed))
    test = PerDomain.of(lambda i: Streets(weathers[i], "test", config.streets_test, size, seed))
    redrawn = PerDomain.of(lambda i: replace(test[i], variation=1))
    names = PerDomain(config.name_a or "sunny", config.name_b or "rainy")
    return Datasets(_sources(train), HeldOut(_sources(test), paired=True, redrawn=_sources(redrawn)), names)


def _sources(pair: PerDomain[Streets] | PerDomain[ImageFolder | Shards]) -> PerDomain[ImageSource]:
    return PerDomain(pair.a, pair.b)


def _opened(place: Path, max_pixels: int) -> ImageFolder | Shards:
    if not is_shards(place):
        return replace(ImageFolder.open(place), max_pixels=max_pixels)
    keep = None
    with suppress(ConfigError):  # no folder for caches is known
        keep = cache_folder() / "shards"
    return Shards.open(place, max_pixels, keep)


def _split(source: ImageFolder | Shards) -> tuple[ImageFolder | Shards, ImageFolder | Shards]:
    """What to train on, and what is held out."""
    if isinstance(source, Shards):
        return source.split()
    train, test = held_out(source.names)
    return replace(source, names=tuple(train)), replace(source, names=tuple(test))


def _folders(config: DataConfig) -> Datasets:
    train_folders, test_folders = _places(config)
    _refuse_overlap(train_folders, test_folders)
    names = _names(config, train_folders)
    folders = train_folders.map(lambda folder: _opened(folder, config.max_pixels))
    if test_folders is not None:
        test = open_held_out(test_folders, config.paired_test, config.max_pixels)
        return Datasets(_sources(folders), test, names)
    if config.paired_test:
        raise DataError(f"{config.root}: data.paired_test needs testA and testB in it; images held out are no pairs")
    split = folders.map(_split)
    train, held = split.map(lambda parts: parts[0]), split.map(lambda parts: parts[1])
    return Datasets(_sources(train), HeldOut(_sources(held), paired=False), names)


def _places(config: DataConfig) -> tuple[PerDomain[Path], PerDomain[Path] | None]:
    """The training folders, and the test folders if there are both."""
    given = PerDomain(config.test_a, config.test_b)
    tests = given.map(lambda folder: _folder(folder) if folder else None)
    if config.root is None:
        train = PerDomain(config.a, config.b).map(lambda folder: _folder(str(folder)))
    else:
        found = split_root(_folder(config.root))
        train = found.map(lambda pair: pair[0])
        tests = PerDomain.of(lambda i: tests[i] or found[i][1])
    if (tests.a is None) != (tests.b is None):
        raise DataError(f"{config.root}: has only one of testA and testB; add the other or remove it")
    return train, PerDomain(tests.a, tests.b) if tests.a and tests.b else None


def _folder(path: str) -> Path:
    """No shell has seen what a file says: "~" is still the home folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - which raises for "~nobody"


def _refuse_overlap(train: PerDomain[Path], test: PerDomain[Path] | None) -> None:
    """No image may be in both domains, nor be trained on and tested with."""
    others = [(train.a, train.b), (train.b, train.a)]
    if test is not None:
        others += [(test[i], train[j]) for i in Domain for j in Domain]
    for inner, outer in others:
        if _inside(inner, outer):
            raise DataError(
                f"{escape(inner)}: is or lies inside {escape(outer)}, so its images would serve twice; "
                "give separate folders"
            )


def _inside(inner: Path, outer: Path) -> bool:
    """Whether all, or a shard, of `inner` belongs to `outer`. Shards in a folder are none of its images."""
    if is_shards(inner) and is_shards(outer):
        shards = [{os.path.realpath(file) for file in shard_files(pattern)} for pattern in (inner, outer)]
        return not shards[0].isdisjoint(shards[1])
    return not is_shards(outer) and not is_shards(inner) and inner.resolve().is_relative_to(outer.resolve())


def _names(config: DataConfig, folders: PerDomain[Path]) -> PerDomain[str]:
    if config.name_a and config.name_b:
        return PerDomain(config.name_a, config.name_b)
    a, b = folders.map(lambda folder: plain_path(folder) if is_shards(folder) else folder)
    found = default_names(a, b)
    names = PerDomain(config.name_a or found.a, config.name_b or found.b)
    if names.a == names.b:
        raise DataError(f"both domains would be called {names.a!r}; set data.name_a and data.name_b")
    return names

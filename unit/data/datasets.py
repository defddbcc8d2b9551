"""Open the training and held-out images of both domains as the `data` section of a configuration says."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from unit.config import DataConfig
from unit.data.folders import ImageFolder, default_names, digest, split_root
from unit.data.shards import Shards, base_path, is_shards, shard_files
from unit.domains import Domain, PerDomain
from unit.errors import DataError, escape
from unit.files import cache_folder
from unit.image_source import ImageSource
from unit.images import MAX_PIXELS
from unit.listing import require_images
from unit.streets import Streets, Weather


@dataclass(frozen=True)
class HeldOut:
    """Images that training never sees."""

    images: PerDomain[ImageSource]
    paired: bool
    """image k of A and of B show the same scene"""
    rerendered: PerDomain[ImageSource] | None = None
    """built-in streets: the same scenes with other clouds and streaks, the best that a translator can reach"""


@dataclass(frozen=True)
class Datasets:
    """The images of a run."""

    train: PerDomain[ImageSource]
    test: HeldOut
    names: PerDomain[str]
    """the user's names of the domains"""

    def digest(self) -> str:
        """Hash the names of all training images: it changes when one is added, removed or renamed."""
        return digest(f"{i}/{self.train[i].name(k)}" for i in Domain for k in range(len(self.train[i])))

    def digests(self, contents: bool = False) -> dict[str, dict[str, str]]:
        """Hash the lists of images: "training a", … → "names", "sizes", "times" and, if wanted, "contents" → digest."""
        sets = {"training": self.train, "test": self.test.images}
        return {f"{name} {i}": _digests(sets[name][i], contents) for name in sets for i in Domain}

    def describe(self) -> str:
        """Return a line for each domain: its name and counts."""
        return "\n".join(
            f"{i}: {self.names[i]}, {len(self.train[i])} training images, {len(self.test.images[i])} held out"
            for i in Domain
        )


def _digests(source: ImageSource, contents: bool) -> dict[str, str]:
    digests = {"names": digest(source.name(k) for k in range(len(source)))}
    if stats := list(source.stats()):
        digests |= {"sizes": digest(str(size) for size, _ in stats), "times": digest(str(time) for _, time in stats)}
        if contents:
            digests["contents"] = digest(sha256(source.content(k)).hexdigest() for k in range(len(source)))
    return digests


def image_changes(before: Mapping[str, Any], now: Mapping[str, Mapping[str, str]], kinds: Sequence[str]) -> list[str]:
    """Describe how `Datasets.digests` differ in some kinds, of those that both have; `before` may hold anything."""
    known = {name: digests for name, digests in before.items() if name in now and isinstance(digests, Mapping)}
    changed = {name: [k for k in kinds if k in known[name] and known[name][k] != now[name].get(k)] for name in known}
    return [f"{' and '.join(found)} of the {name} images changed" for name, found in changed.items() if found]


def open_datasets(config: DataConfig, seed: int = 0) -> Datasets:
    """List the folders or shards, or set up the built-in streets; no image is read yet.

    Raises:
        DataError: a folder or shard is missing, empty or not what the configuration says.
    """
    return _open_streets(config, seed) if config.synthetic else _open_folders(config)


def domain_names(config: DataConfig) -> PerDomain[str]:
    """Return the display names of the domains; raises `DataError` where the folders give none."""
    if config.synthetic:
        return PerDomain(config.name_a or "sunny", config.name_b or "rainy")
    return _names(config, training_folders(config))


def training_folders(config: DataConfig) -> PerDomain[Path]:
    """Return the folders or shard patterns of the training images; raises `DataError` as `open_datasets`."""
    return _find_folders(config)[0]


def require_folders(config: DataConfig) -> None:
    """Raise what `open_datasets` would raise for a folder or shard that is missing or empty, or serves twice."""
    if not config.synthetic:
        train, test = _find_folders(config)
        _refuse_overlap(train, test)
        _names(config, train)
        for folder in (*train, *(test or ())):
            shard_files(folder) if is_shards(folder) else require_images(folder)


def open_held_out(folders: PerDomain[Path], paired: bool, max_pixels: int = MAX_PIXELS) -> HeldOut:
    """Open two folders, or shards, of test images.

    Raises:
        DataError: a folder is missing or empty, or `paired` and they hold different numbers of images.
    """
    images = folders.map(lambda folder: _open(folder, max_pixels))
    a, b = images.map(len)
    if paired and a != b:
        raise DataError(f"{folders.a} has {a} images, but {folders.b} has {b}; aligned pairs need equal numbers")
    return HeldOut(images, paired)


def _open_streets(config: DataConfig, seed: int) -> Datasets:
    def streets(i: Domain, split: str, count: int, variation: int = 0) -> ImageSource:
        weather = PerDomain(Weather.SUNNY, Weather.RAINY)[i]
        return Streets(weather, split, count, config.load_size, seed, variation)

    train = PerDomain.of(lambda i: streets(i, f"train{i.upper()}", config.streets_train))
    test = PerDomain.of(lambda i: streets(i, "test", config.streets_test))
    rerendered = PerDomain.of(lambda i: streets(i, "test", config.streets_test, variation=1))
    return Datasets(train, HeldOut(test, paired=True, rerendered=rerendered), domain_names(config))


def _open_folders(config: DataConfig) -> Datasets:
    train_folders, test_folders = _find_folders(config)
    _refuse_overlap(train_folders, test_folders)
    names = _names(config, train_folders)
    sources = train_folders.map(lambda folder: _open(folder, config.max_pixels))
    if test_folders is not None:
        return Datasets(sources, open_held_out(test_folders, config.paired_test, config.max_pixels), names)
    if config.paired_test:
        raise DataError(f"{config.root}: data.paired_test needs testA and testB in it; held-out images are not paired")
    splits = sources.map(lambda source: source.train_test_split())
    train, test = splits.map(lambda split: split[0]), splits.map(lambda split: split[1])
    return Datasets(train, HeldOut(test, paired=False), names)


def _open(path: Path, max_pixels: int) -> ImageSource:
    if is_shards(path):
        return Shards.open(path, max_pixels, cache_folder("shards"))
    return ImageFolder.open(path, max_pixels)


def _find_folders(config: DataConfig) -> tuple[PerDomain[Path], PerDomain[Path] | None]:
    """Return the training folders, and the test folders if both are there."""
    tests = PerDomain(config.test_a, config.test_b).map(lambda folder: _expand_user(folder) if folder else None)
    if config.root is None:
        train = PerDomain(config.a, config.b).map(lambda folder: _expand_user(str(folder)))
    else:
        below_root = split_root(_expand_user(config.root))
        train = below_root.map(lambda pair: pair[0])
        tests = PerDomain.of(lambda i: tests[i] or below_root[i][1])
    if (tests.a is None) != (tests.b is None):
        raise DataError(f"{config.root}: has only one of testA and testB; add the other or remove it")
    return train, PerDomain(tests.a, tests.b) if tests.a and tests.b else None


def _expand_user(path: str) -> Path:
    """Expand "~", which no shell has done for a path in a configuration file."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - which raises for "~nobody"


def _refuse_overlap(train: PerDomain[Path], test: PerDomain[Path] | None) -> None:
    """Check that no image is in both domains, or in both training and test."""
    pairs = [(train.a, train.b), (train.b, train.a)]
    if test is not None:
        pairs += [(test[i], train[j]) for i in Domain for j in Domain]
    for inner, outer in pairs:
        if _overlaps(inner, outer):
            raise DataError(
                f"{escape(inner)}: is or lies inside {escape(outer)}, so its images would serve twice; "
                "give separate folders"
            )


def _overlaps(inner: Path, outer: Path) -> bool:
    """True if the folder `inner` lies in `outer`, or both share a shard. Shards are not images of a folder."""
    if is_shards(inner) and is_shards(outer):
        shards = [{_identity(Path(file)) for file in shard_files(pattern)} for pattern in (inner, outer)]
        return not shards[0].isdisjoint(shards[1])
    real = inner.resolve()
    return not is_shards(outer) and not is_shards(inner) and _identity(outer) in map(_identity, (real, *real.parents))


def _identity(path: Path) -> object:
    """Identify a file or folder, which may have several paths, through links and mounts."""
    try:
        status = path.stat()
    except OSError:  # which whoever reads it will explain
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


def _names(config: DataConfig, folders: PerDomain[Path]) -> PerDomain[str]:
    if config.name_a and config.name_b:
        return PerDomain(config.name_a, config.name_b)
    defaults = default_names(*folders.map(lambda folder: base_path(folder) if is_shards(folder) else folder))
    names = PerDomain(config.name_a or defaults.a, config.name_b or defaults.b)
    if names.a == names.b:
        raise DataError(f"both domains would be called {names.a!r}; set data.name_a and data.name_b")
    return names

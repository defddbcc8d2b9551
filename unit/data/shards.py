"""WebDataset shards: tar files of images, for data sets beyond one disk or of too many files."""

from __future__ import annotations

import glob
import io
import os
import re
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from unit.data.folders import split_names
from unit.data.shard_index import Members, Stamp, read_indexes
from unit.errors import DataError, ImageError, escape
from unit.image_source import ImageSource
from unit.images import MAX_BYTES, MAX_PIXELS, decode_image, image_errors

if TYPE_CHECKING:
    from torch import Tensor

_SUFFIXES = (".tar", ".tgz", *(f".tar.{compression}" for compression in ("gz", "bz2", "xz", "zst")))
"""Shard suffixes; the compressed ones are refused by name when they are read."""
_WINDOW = 8
"""Shards whose images are shuffled together, and so are read from at once."""
_BRACES = re.compile(r"\{([^{}]*)\}")
_WILDCARD = re.compile(r"[*?]|\[[^]]*\]")
_MAX_SHARDS = 1_000_000
"""Maximum shards per pattern; more is a typo."""
_MAX_BRACES = 20
"""Twenty choices between two are a million shards."""


@dataclass(frozen=True, eq=False)
class Shards(ImageSource):
    """The images in tar files, one of each sample."""

    root: Path
    """a folder that holds all shards"""
    paths: Sequence[str]
    """paths relative to it"""
    stamps: Sequence[Stamp]
    """size and modification time of each shard"""
    members: Members
    """offset, size and name of each image, shard by shard"""
    shard_numbers: npt.NDArray[np.int64]
    """the shard of each image, an index into `paths`"""
    max_pixels: int = MAX_PIXELS

    @classmethod
    def open(cls, pattern: Path, max_pixels: int = MAX_PIXELS, cache: Path | None = None) -> Shards:
        """Open the shards that `pattern` stands for; `cache` is a folder for their indexes.

        Raises:
            DataError: a shard is missing, damaged, not a tar file, or without images.
        """
        if not hasattr(os, "pread"):
            raise DataError(f"{escape(pattern)}: shards need Linux or macOS; unpack them into a folder")
        paths = shard_files(pattern)
        root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])  # noqa: PTH100, PTH120
        files = [os.path.relpath(path, root).replace(os.sep, "/") for path in paths]
        stamps, members = zip(*read_indexes(paths, cache), strict=True)
        shard_numbers = np.repeat(np.arange(len(files)), [len(array) for array in members])
        return cls(Path(root), files, stamps, np.concatenate(members), shard_numbers, max_pixels)

    def __len__(self) -> int:
        return len(self.members)

    def name(self, index: int) -> str:
        """Return the shard's path relative to `root`, and the image's name there, with "/" between all parts."""
        return f"{self.paths[self.shard_numbers[index]]}/{os.fsdecode(self.members['name'][index])}"

    def image(self, index: int, short_side: int | None = None) -> Image.Image:
        """Read an image as if it were a file of its own; raises `ImageError` as `read_image` does."""
        shard_number, member = self.shard_numbers[index], self.members[index]
        with image_errors(self.root / self.name(index)):
            shard = _open_shard(str(self.root / self.paths[shard_number]), self.stamps[shard_number])
            content = shard.read(int(member["offset"]), int(member["size"]))
            return decode_image(io.BytesIO(content), self.max_pixels, short_side)

    @property
    def origins(self) -> list[tuple[str, bool]]:
        """The folders of the shards."""
        files = (os.path.realpath(self.root / path) for path in self.paths)
        return sorted({(os.path.dirname(file), False) for file in files})  # noqa: PTH120

    def stats(self) -> Iterator[tuple[int, int]]:
        """Yield the size of each image, and the modification time (ns) of its shard."""
        times = [time for _, time in self.stamps]
        return ((int(size), times[k]) for size, k in zip(self.members["size"], self.shard_numbers, strict=True))

    def content(self, index: int) -> bytes:
        """Return an image's bytes; none if they can't be read."""
        try:
            shard_number, member = self.shard_numbers[index], self.members[index]
            shard = _open_shard(str(self.root / self.paths[shard_number]), self.stamps[shard_number])
            return shard.read(int(member["offset"]), int(member["size"]))
        except (OSError, ImageError):
            return b""

    def train_test_split(self) -> tuple[Shards, Shards]:
        """Split by `split_names`."""
        names = [self.name(index) for index in range(len(self))]
        train, test = (np.array([name in part for name in names]) for part in map(set, split_names(names)))
        return self._select(train), self._select(test)

    def _select(self, mask: npt.NDArray[np.bool_]) -> Shards:
        return replace(self, members=self.members[mask], shard_numbers=self.shard_numbers[mask])

    def epoch_order(self, seed: int) -> Tensor:
        """Shuffle the shards, cut them into windows of up to 8, and shuffle the images within each window."""
        import torch  # takes seconds, which listing images need not wait for

        generator = torch.Generator().manual_seed(seed)
        counts = np.bincount(self.shard_numbers, minlength=len(self.paths)).tolist()
        images = torch.arange(len(self)).split(counts)
        shards = torch.randperm(len(counts), generator=generator)
        windows = shards.tensor_split(-(-len(counts) // _WINDOW))
        mixed = [torch.cat([images[shard] for shard in window]) for window in windows]
        return torch.cat([window[torch.randperm(len(window), generator=generator)] for window in mixed])


class _OpenShard:
    """An open file, closed when the last reference goes."""

    def __init__(self, path: str, stamp: Stamp) -> None:
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        status = os.fstat(self._file)
        if (status.st_size, status.st_mtime_ns) != stamp:
            raise ImageError("the shard has changed since the run began; run the same command again to resume with it")

    def read(self, offset: int, size: int) -> bytes:
        if size > MAX_BYTES:
            raise ImageError(f"larger than {MAX_BYTES:,} bytes; make it smaller")
        content = os.pread(self._file, size, offset)
        if len(content) < size:
            raise ImageError("the shard was cut short since the run began; copy it again")
        return content


# A shard is opened once in a process; forks may read it too, since `pread` has no file position.
_open_shard = lru_cache(maxsize=64)(_OpenShard)  # two domains, and a window of shards in each, are about twenty


def is_shards(path: Path) -> bool:
    """True if a path stands for shards, not for a folder."""
    return path.name.lower().endswith(_SUFFIXES) and not os.path.isdir(path)  # noqa: PTH112 - Path's raises for long names


def shard_files(pattern: Path) -> list[str]:
    """List the tar files that ``x-{0000..0999}.tar``, ``{p,q}.tar``, ``x-*.tar`` or a path stand for, each once.

    Raises:
        DataError: there are none, one is missing, or the pattern is malformed.
    """
    text = str(pattern)
    if os.path.isfile(text):  # noqa: PTH113 - whatever its name looks like
        return [text]
    if text.count("{") > _MAX_BRACES:
        raise DataError(f"{escape(text)[:200]}: has over {_MAX_BRACES} braces; correct the pattern")
    paths = list(islice(_expand_braces(text), _MAX_SHARDS + 1))
    if not 0 < len(paths) <= _MAX_SHARDS:
        count = f"over {_MAX_SHARDS:,}" if paths else "no"
        raise DataError(f"{escape(pattern)}: stands for {count} shards; correct the pattern")
    paths = list(dict.fromkeys(match for path in paths for match in _expand_wildcards(path)))
    missing = [path for path in paths if not os.path.isfile(path)]  # noqa: PTH113
    if missing:
        others = f", like {len(missing) - 1:,} more of the pattern's {len(paths):,}" if len(missing) > 1 else ""
        raise DataError(f"{escape(missing[0])}: is missing{others}; copy them there, or correct the pattern")
    return paths


def base_path(pattern: Path) -> Path:
    """Return the path to name a domain by: x/sunny for ``x/sunny-{0..9}.tar``."""
    stem = _WILDCARD.sub("", _BRACES.sub("", pattern.name))
    suffix = next((suffix for suffix in _SUFFIXES if stem.lower().endswith(suffix)), "")
    stem = stem[: len(stem) - len(suffix)].strip("-_. ")
    return pattern.parent / stem if stem else pattern.parent


def _expand_braces(pattern: str) -> Iterator[str]:
    """Expand braces as a shell does, the last ones fastest; lazily, since a pattern may stand for billions of paths."""
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    for choice in _choices(braces[1], pattern):
        for rest in _expand_braces(pattern[braces.end() :]):
            yield pattern[: braces.start()] + choice + rest


def _choices(text: str, pattern: str) -> Iterator[str]:
    numbers = re.fullmatch(r"([0-9]{1,15})\.\.([0-9]{1,15})", text)
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        padded = any(number.startswith("0") and len(number) > 1 for number in numbers.groups())
        width = max(map(len, numbers.groups())) if padded else 0
        yield from (f"{k:0{width}}" for k in range(first, last + 1))
    elif "," in text:
        yield from text.split(",")
    else:
        raise DataError(
            f"{escape(pattern)}: {{{escape(text)}}} is not a list or range; write {{0000..0999}} or {{x,y}}"
        )


def _expand_wildcards(path: str) -> list[str]:
    """Return the matches of a glob, or the path itself if it has none."""
    if not _WILDCARD.search(path) or os.path.lexists(path):
        return [path]
    return sorted(glob.glob(path)) or [path]  # noqa: PTH207 - keeps the path as it is written

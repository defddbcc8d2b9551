"""WebDataset shards as a source: tar files of images, for folders beyond one disk or of too many files."""

from __future__ import annotations

import glob
import io
import os
import re
import weakref
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from unit.data.folders import held_out
from unit.data.permutation import ShardOrder
from unit.data.shard_index import ShardIndex, read_indexes
from unit.errors import DataError, ImageError, escape
from unit.images import MAX_PIXELS, read_image

_ENDINGS = (".tar", ".tgz", *(f".tar.{packing}" for packing in ("gz", "bz2", "xz", "zst")))
"""Of shards; the compressed ones are refused by name when they are read."""
_BRACES = re.compile(r"\{([^{}]*)\}")
_WILD = re.compile(r"[*?]|\[[^]]*\]")
_MOST = 1_000_000
"""Shards of a pattern; beyond it stands a slip of the pen."""


class Shards:
    """The images in `files` (paths relative to `root`), one of each sample. Pickled, it takes their index along."""

    def __init__(
        self, root: Path, files: Sequence[str], indexes: Sequence[ShardIndex], max_pixels: int = MAX_PIXELS
    ) -> None:
        self.root, self.max_pixels = root, max_pixels
        self._files, self._indexes = files, indexes
        self.order = ShardOrder([len(index) for index in indexes])

    @classmethod
    def open(cls, pattern: Path, max_pixels: int = MAX_PIXELS, keep: Path | None = None) -> Shards:
        """What `pattern` names; `keep` is a folder for what was read of the shards, so that it is read once.

        Raises:
            DataError: a shard is missing, damaged, no tar file, or without images.
        """
        if not hasattr(os, "pread"):
            raise DataError(f"{escape(pattern)}: shards need Linux or macOS; unpack them into a folder")
        paths = shard_files(pattern)
        root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])  # noqa: PTH100, PTH120
        files = [os.path.relpath(path, root).replace(os.sep, "/") for path in paths]
        return cls(Path(root), files, read_indexes(paths, keep), max_pixels)

    def __len__(self) -> int:
        return len(self.order)

    def name(self, index: int) -> str:
        """The shard, relative to those that hold all, and the image's name therein, with "/" between all parts."""
        shard, number = self.order.shard(index)
        return f"{self._files[shard]}/{self._indexes[shard].name(number)}"

    def file(self, index: int) -> str:
        """The shard that holds the image."""
        return os.path.join(self.root, self._files[self.order.shard(index)[0]])  # noqa: PTH118

    def image(self, index: int, short_side: int | None = None) -> Image.Image:
        """Image `index` as RGB, as if it were a file of its own; raises `ImageError` as `read_image`."""
        shard, number = self.order.shard(index)
        member = _Member(self.root / self.name(index), self.file(index), self._indexes[shard], number)
        return read_image(cast(Path, member), self.max_pixels, short_side)  # it asks no more of a path

    def split(self) -> tuple[Shards, Shards]:
        """What to train on and what is held out, as `held_out` says of the names."""
        shards = zip(self._files, self._indexes, strict=True)
        names = [f"{file}/{index.name(number)}" for file, index in shards for number in range(len(index))]
        test = set(held_out(names)[1])
        held = np.array([name in test for name in names])
        if held.all():  # a single image
            return self, self
        parts = np.split(held, np.cumsum([len(index) for index in self._indexes])[:-1])
        train = [index.only(~part) for index, part in zip(self._indexes, parts, strict=True)]
        tests = [index.only(part) for index, part in zip(self._indexes, parts, strict=True)]
        return self._with(train), self._with(tests)

    def _with(self, indexes: Sequence[ShardIndex]) -> Shards:
        return Shards(self.root, self._files, indexes, self.max_pixels)


class _Member:
    """An image in a shard, to be read like a file: what `read_image` asks of a path."""

    def __init__(self, path: Path, shard: str, index: ShardIndex, number: int) -> None:
        self._path, self._shard, self._stamp = path, shard, index.stamp
        self._place, self._size = index.place(number)

    def __fspath__(self) -> str:
        return str(self._path)

    def stat(self) -> os.stat_result:
        """The shard's, but for the size."""
        status = _opened(self._shard, self._stamp).status
        return os.stat_result((*status[:6], self._size, *status[7:]))

    def open(self, _: str) -> io.BytesIO:
        """The image's bytes."""
        return io.BytesIO(_opened(self._shard, self._stamp).read(self._place, self._size))


class _OpenShard:
    """A file that is closed when nobody holds it any more."""

    def __init__(self, path: str, stamp: tuple[int, int]) -> None:
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self.status = os.fstat(self._file)
        if (self.status.st_size, self.status.st_mtime_ns) != stamp:
            raise ImageError("the shard was changed since the run began; the same command goes on with what it is now")

    def read(self, place: int, size: int) -> bytes:
        content = os.pread(self._file, size, place)
        if len(content) < size:
            raise ImageError("the shard was cut short since the run began; copy it anew")
        return content


@lru_cache(maxsize=64)  # two domains, and a window of shards in each, are some twenty
def _opened(path: str, stamp: tuple[int, int]) -> _OpenShard:
    """For whoever in this process reads it; a fork may read it too, as `pread` moves nothing."""
    return _OpenShard(path, stamp)


def is_shards(path: Path) -> bool:
    """Whether this names shards, and not a folder."""
    return path.name.lower().endswith(_ENDINGS) and not path.is_dir()


def shard_files(pattern: Path) -> list[str]:
    """The tar files that ``x-{0000..0999}.tar``, ``{p,q}.tar``, ``x-*.tar`` or one path stand for, each once.

    Raises:
        DataError: there are none, one is missing, or the pattern is not understood.
    """
    text = str(pattern)
    if pattern.is_file():  # whatever its name looks like
        return [text]
    paths = list(islice(_expanded(text), _MOST + 1))
    if not 0 < len(paths) <= _MOST:
        count = f"over {_MOST:,}" if paths else "no"
        raise DataError(f"{escape(pattern)}: names {count} shards; correct the pattern")
    paths = list(dict.fromkeys(found for path in paths for found in _found(path)))
    missing = [path for path in paths if not os.path.isfile(path)]  # noqa: PTH113
    if missing:
        others = f", nor are {len(missing) - 1:,} others of its pattern's {len(paths):,}" if len(missing) > 1 else ""
        raise DataError(f"{escape(missing[0])}: is not there{others}; copy them there, or correct the pattern")
    return paths


def plain_path(pattern: Path) -> Path:
    """What a domain can be named by: of ``x/sunny-{0..9}.tar``, x/sunny."""
    stem = _WILD.sub("", _BRACES.sub("", pattern.name))
    ending = next((ending for ending in _ENDINGS if stem.lower().endswith(ending)), "")
    stem = stem[: len(stem) - len(ending)].strip("-_. ")
    return pattern.parent / stem if stem else pattern.parent


def _expanded(pattern: str) -> Iterator[str]:
    """As a shell writes it out: the last braces run fastest."""
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    for choice in _choices(braces[1], pattern):
        for rest in _expanded(pattern[braces.end() :]):
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
        raise DataError(f"{escape(pattern)}: {{{escape(text)}}} is not understood; write {{0000..0999}} or {{x,y}}")


def _found(path: str) -> list[str]:
    """Of a glob, what is there; it, where there is none."""
    if not _WILD.search(path) or os.path.lexists(path):
        return [path]
    return sorted(glob.glob(path)) or [path]  # noqa: PTH207 - keeps the path as it is written

"""How many photos there are, and how large they are, by the files' headers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from unit.config import DataConfig
from unit.data.datasets import training_folders
from unit.data.shards import is_shards
from unit.domains import PerDomain
from unit.errors import ImageError
from unit.images import read_header
from unit.listing import classify_files

_MAX_HEADERS = 100
"""Headers to read of each folder, which takes a tenth of a second."""


@dataclass(frozen=True)
class Survey:
    """The photos of both folders."""

    counts: PerDomain[int | None]
    """images in each folder; None: shards, which are not opened for this"""
    short_side: int | None
    """median in pixels; None where no header can be read, and for shards"""

    def __str__(self) -> str:
        counts = " and ".join("shards" if count is None else f"{count:,}" for count in self.counts)
        photos = counts if None in self.counts else f"{counts} photos"
        return photos + (f", {self.short_side} px" if self.short_side else "")


def survey_photos(config: DataConfig) -> Survey:
    """Count the photos of both training folders, and read some headers.

    Raises:
        DataError: a folder is missing or can't be read.
    """
    lists = training_folders(config).map(lambda folder: None if is_shards(folder) else _list_paths(folder))
    sides = [side for paths in lists for side in _short_sides(paths or [])]
    return Survey(
        lists.map(lambda paths: None if paths is None else len(paths)), round(median(sides)) if sides else None
    )


def _list_paths(folder: Path) -> list[Path]:
    return [folder / name for name in classify_files(folder)[0]]


def _short_sides(paths: list[Path]) -> Iterator[int]:
    """Yield the short side of evenly spaced readable images."""
    for path in paths[:: max(1, len(paths) // _MAX_HEADERS)]:
        with suppress(ImageError):
            header = read_header(path)
            yield min(header.width, header.height)

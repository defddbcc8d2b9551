"""The streets as an image source, and as folders of files."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from unit.generated import require_empty, write_images
from unit.image_source import ImageSource
from unit.images.reading import require_memory
from unit.seeds import seed_for
from unit.streets.render import render
from unit.streets.weather import DAY, Weather

SPLITS = ("trainA", "trainB", "test")


_BYTES_PER_PIXEL = 100
"""Peak memory of drawing (measured)."""
_MAX_CACHED = 2**28
"""Bytes of rendered scenes to keep: 1,365 of 256 x 256 pixels."""


@dataclass(frozen=True)
class Streets(ImageSource):
    """`count` scenes in one weather, rendered at first use and kept in memory, at most 256 MB; copies keep none.

    Scenes are functions of (seed, split, index); no two splits share one. Equal indices of "test" in both weathers are
    the same scene, hence aligned pairs.

    Args:
        split: "trainA", "trainB" or "test".
        size: side in pixels, at least 8.

    Raises:
        ValueError: an unknown split, a negative count or too small a size.
    """

    weather: Weather
    split: str
    count: int
    size: int
    seed: int = 0
    variation: int = 0
    _rendered: dict[int, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split {self.split!r}: must be one of {', '.join(SPLITS)}")
        if self.count < 0 or self.size < 8:
            raise ValueError(f"count {self.count}, size {self.size}: count may not be negative, size at least 8")

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> int:
        """Return the scene number of `index`, for `render`; raises `IndexError` outside 0 … len - 1."""
        if not 0 <= index < self.count:
            raise IndexError(f"index {index} of {self.count} scenes")
        return seed_for(self.seed, "streets", self.split, index)

    def name(self, index: int) -> str:
        """Return a file name such as "scene-00042.png", the same in both weathers; raises `IndexError` as `scene`."""
        self.scene(index)
        return f"scene-{index:05d}.png"

    def image(self, index: int, short_side: int | None = None) -> Image.Image:
        """Return a new `size` x `size` image, whatever `short_side`; raises `IndexError` as `scene`.

        Raises:
            ImageError: there is too little memory.
        """
        scene = self.scene(index)
        pixels = self._rendered.get(index)
        if pixels is None:
            require_memory((self.size, self.size), _BYTES_PER_PIXEL)
            pixels = render(scene, self.weather, self.size, self.variation).tobytes()
            if (len(self._rendered) + 1) * len(pixels) <= _MAX_CACHED:
                self._rendered[index] = pixels
        return Image.frombytes("RGB", (self.size, self.size), pixels)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_rendered": {}}


def write_streets(
    out: Path, size: int, train: int, test: int, seed: int, weathers: tuple[Weather, Weather] = DAY
) -> None:
    """Write OUT/trainA, trainB, testA and testB as PNG files of `size` x `size` pixels; `weathers` are A's and B's.

    The `train` scenes of the train folders are different ones; the `test` scenes are aligned pairs of equal names.

    Raises:
        DataError: OUT can't be written, or one of the folders is not empty.
    """
    folders: dict[Path, Streets] = {}
    for letter, weather in zip("AB", weathers, strict=True):
        folders[out / f"train{letter}"] = Streets(weather, f"train{letter}", train, size, seed)
        folders[out / f"test{letter}"] = Streets(weather, "test", test, size, seed)
    require_empty(folders)
    write_images({folder: _named_images(streets) for folder, streets in folders.items()})


def _named_images(streets: Streets) -> Iterator[tuple[str, Image.Image]]:
    return ((streets.name(index), streets.image(index)) for index in range(len(streets)))

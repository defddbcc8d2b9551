"""The drawings as a source of images, and as folders of files."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from unit.generated import require_empty, write_images
from unit.image_source import ImageSource
from unit.seeds import seed_for
from unit.streets.drawing import draw
from unit.streets.weather import Weather

SPLITS = ("trainA", "trainB", "test")


@dataclass(frozen=True)
class Streets(ImageSource):
    """Drawings of `count` scenes in one weather, as a source of images; drawn when first asked for, then remembered.

    Scenes follow from (seed, split, index): `split` is "trainA", "trainB" or "test", and no two of them share scenes.
    Equal indices of "test" in both weathers are one scene, hence aligned pairs. Copies sent to other processes leave
    the remembered drawings behind. Raises ValueError for an unknown split, a negative count or a size below 8.
    """

    weather: Weather
    split: str
    count: int
    size: int
    seed: int = 0
    variation: int = 0
    _drawn: dict[int, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split {self.split!r}: must be one of {', '.join(SPLITS)}")
        if self.count < 0 or self.size < 8:
            raise ValueError(f"count {self.count}, size {self.size}: count may not be negative, size at least 8")

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> int:
        """The number of the scene at `index`, for `draw`. IndexError outside 0..len - 1."""
        if not 0 <= index < self.count:
            raise IndexError(f"drawing {index} of {self.count}")
        return seed_for(self.seed, "streets", self.split, index)

    def name(self, index: int) -> str:
        """A file name such as "scene-00042.png", the same in both weathers. IndexError outside 0..len - 1."""
        self.scene(index)
        return f"scene-{index:05d}.png"

    def image(self, index: int, short_side: int | None = None) -> Image.Image:
        """The drawing at `index`: RGB, `size` x `size` in any case, the caller's own. IndexError outside 0..len - 1."""
        scene = self.scene(index)
        if index not in self._drawn:
            self._drawn[index] = draw(scene, self.weather, self.size, self.variation).tobytes()
        return Image.frombytes("RGB", (self.size, self.size), self._drawn[index])

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_drawn": {}}


def write_streets(out: Path, size: int, train: int, test: int, seed: int) -> None:
    """Write OUT/trainA, trainB, testA and testB as PNG files of `size` x `size` pixels; A is sunny, B is rainy.

    `train` drawings go to each train folder, which share no scene; `test` go to each test folder, aligned pairs of
    equal names. Raises DataError where OUT can't be written or one of the folders exists and is not empty.
    """
    folders: dict[Path, Streets] = {}
    for letter, weather in (("A", Weather.SUNNY), ("B", Weather.RAINY)):
        folders[out / f"train{letter}"] = Streets(weather, f"train{letter}", train, size, seed)
        folders[out / f"test{letter}"] = Streets(weather, "test", test, size, seed)
    require_empty(folders)
    write_images({folder: _drawings(streets) for folder, streets in folders.items()})


def _drawings(streets: Streets) -> Iterator[tuple[str, Image.Image]]:
    return ((streets.name(index), streets.image(index)) for index in range(len(streets)))

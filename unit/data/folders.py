"""A folder of images: its list of names, its held-out images, and the domain's name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from heapq import nsmallest
from pathlib import Path

from PIL import Image

from unit.config import MAX_DOMAIN_NAME
from unit.domains import Domain, PerDomain
from unit.errors import DataError, escape
from unit.image_source import ImageSource
from unit.images import MAX_PIXELS, read_image
from unit.listing import Origin, list_images, listing_errors, require_folder, shorten


@dataclass(frozen=True)
class ImageFolder(ImageSource):
    """The images below `root`, in the order of `names`: paths relative to it, with "/" between their parts."""

    root: Path
    names: tuple[str, ...]
    max_pixels: int = MAX_PIXELS
    links: frozenset[Origin] = frozenset()
    """where links among the images lead"""

    @classmethod
    def open(cls, folder: Path, max_pixels: int = MAX_PIXELS) -> ImageFolder:
        """List all images below `folder`; raises `DataError` as `list_images` does."""
        links: set[Origin] = set()
        return cls(folder, tuple(list_images(folder, links)), max_pixels, frozenset(links))

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """Return the path relative to the folder."""
        return self.names[index]

    def image(self, index: int, short_side: int | None = None) -> Image.Image:
        """Read an image; raises `ImageError` as `read_image` does."""
        return read_image(self.root / self.names[index], self.max_pixels, short_side)

    @property
    def folder(self) -> Path:
        """`root`."""
        return self.root

    @property
    def origins(self) -> list[Origin]:
        """`root`, and where links lead."""
        return [(os.path.realpath(self.root), True), *sorted(self.links)]

    def stats(self) -> Iterator[tuple[int, int]]:
        """Yield the size and modification time (ns) of each image; zeros if there is none any more."""
        for file in self.files():
            try:
                status = os.stat(file)  # noqa: PTH116 - as in files()
                yield status.st_size, status.st_mtime_ns
            except OSError:
                yield 0, 0

    def content(self, index: int) -> bytes:
        """Return an image's bytes; none if it can't be read."""
        try:
            return (self.root / self.names[index]).read_bytes()
        except OSError:
            return b""

    def files(self) -> list[str]:
        """List the path of each image."""
        return [os.path.join(self.root, name) for name in self.names]  # noqa: PTH118 - ten times as fast

    def train_test_split(self) -> tuple[ImageFolder, ImageFolder]:
        """Split by `split_names`."""
        train, test = split_names(self.names)
        return replace(self, names=tuple(train)), replace(self, names=tuple(test))


def split_names(
    names: Sequence[str], fraction: float = 0.05, at_least: int = 1, at_most: int = 200
) -> tuple[list[str], list[str]]:
    """Split distinct names into (training, held-out), each in the given order.

    A name is held out when its hash, read as a fraction, is below `fraction`; where these are too few or too many, the
    `at_least` or `at_most` smallest hashes are. So a file added later never moves another from training to test (at
    most one leaves the test, at a limit), and two folders with the same names hold out the same ones.

    At least one name is left to training; a single name is in both, so that one image can be trained on.
    """
    if len(names) < 2:
        return list(names), list(names)
    below = sum(_hash_fraction(name) < fraction for name in names)
    count = min(max(below, at_least), at_most, len(names) - 1)
    test = set(nsmallest(count, names, key=_hash_fraction))
    return [name for name in names if name not in test], [name for name in names if name in test]


def split_root(root: Path) -> PerDomain[tuple[Path, Path | None]]:
    """Find each domain's (training, test or None) folders in a root with trainA, trainB, testA, testB, in any case.

    Raises:
        DataError: the root or a training folder is missing.
    """
    require_folder(root)
    with listing_errors(root):
        # Of trainA and TrainA side by side, the last in code-point order: trainA.
        folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    missing = [f"train{domain.upper()}" for domain in Domain if f"train{domain}" not in folders]
    if missing:
        found = ", ".join(sorted(escape(path.name) for path in folders.values())) or "no folders"
        raise DataError(
            f"{escape(root)}: {' and '.join(missing)} missing, found {shorten(found)};"
            " expected the folders trainA, trainB and, if you have them, testA, testB"
        )
    return PerDomain.of(lambda domain: (folders[f"train{domain}"], folders.get(f"test{domain}")))


def default_names(a: Path, b: Path) -> PerDomain[str]:
    """Name the domains after their folders, with as many parents as it takes to tell them apart.

    `x/sunny/images` and `x/rainy/images` become "sunny-images" and "rainy-images". Names consist of letters and digits
    of any script, "_", "." and "-", and differ by more than case.

    Raises:
        DataError: the folders give no such names.
    """
    # Lexically: a link called "sunny" is what the user calls it, whatever it points to.
    paths = PerDomain(a, b).map(lambda path: Path(os.path.abspath(path)))  # noqa: PTH100
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = PerDomain(*(_as_name(path.parts[1:][-depth:]) for path in paths))
        if max(map(len, names)) > MAX_DOMAIN_NAME:
            break
        if names.a and names.b and names.a.casefold() != names.b.casefold():
            return names
    raise DataError(
        f"{escape(a)} and {escape(b)}: these folders give no two different names; set data.name_a and data.name_b"
    )


def digest(names: Iterable[str]) -> str:
    """Hash the names and their order to 16 hexadecimal digits."""
    state = blake2b(digest_size=8)
    for name in names:
        state.update(_bytes(name) + b"\0")  # file names hold no NUL
    return state.hexdigest()


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")  # undecodable bytes of a name are lone surrogates


def _hash_fraction(name: str) -> float:
    return int.from_bytes(blake2b(_bytes(name), digest_size=8).digest(), "big") / 2**64


def _as_name(parts: Sequence[str]) -> str:
    return re.sub(r"[^\w.-]", "-", "-".join(parts)).strip(".-")

"""A folder of images as a source: its list of names, what is held out of it, and what it is called."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from heapq import nsmallest
from pathlib import Path

from PIL import Image

from unit.domains import Domain, PerDomain
from unit.errors import DataError, escape
from unit.images import MAX_PIXELS, read_image
from unit.listing import list_images, listing_errors, require_folder, shortened


@dataclass(frozen=True)
class ImageFolder:
    """The images below `root`, in the order of `names` (paths relative to it). Pickled, it takes its names along."""

    root: Path
    names: tuple[str, ...]
    max_pixels: int = MAX_PIXELS

    @classmethod
    def open(cls, folder: Path) -> ImageFolder:
        """All images below `folder`; raises `DataError` as `list_images` does."""
        return cls(folder, tuple(list_images(folder)))

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """The path of image `index` relative to the folder, with "/" between its parts."""
        return self.names[index]

    def image(self, index: int, short_side: int | None = None) -> Image.Image:
        """Image `index` as RGB, large JPEGs no larger than `short_side` needs; raises `ImageError` as `read_image`."""
        return read_image(self.root / self.names[index], self.max_pixels, short_side)


def held_out(
    names: Sequence[str], share: float = 0.05, at_least: int = 1, at_most: int = 200
) -> tuple[list[str], list[str]]:
    """Split names, all different, into (training, test), each in the order given.

    A name is held out when its hash, read as a fraction, is below `share`: that says nothing about its neighbours, so
    files can come and go. Where these are too few or too many, the `at_least` or `at_most` smallest hashes are taken.
    So a file added later never moves another from training to test (at most one leaves the test, at a limit), and two
    folders with the same names hold out the same. The number is `share` of the names on average, not exactly.

    One name is left to training at least; a single name is in both, so that one image can be trained on.
    """
    if len(names) < 2:
        return list(names), list(names)
    wanted = sum(_fraction(name) < share for name in names)
    count = min(max(wanted, at_least), at_most, len(names) - 1)
    test = set(nsmallest(count, names, key=_fraction))
    return [name for name in names if name not in test], [name for name in names if name in test]


def split_root(root: Path) -> PerDomain[tuple[Path, Path | None]]:
    """The folders (training, test or None) of each domain in a root with trainA, trainB, testA, testB, in any case.

    Raises `DataError` when the root or a training folder is missing.
    """
    require_folder(root)
    with listing_errors(root):
        # Of trainA and TrainA side by side, the last in code-point order: trainA.
        folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    missing = [f"train{domain.upper()}" for domain in Domain if f"train{domain}" not in folders]
    if missing:
        found = ", ".join(sorted(escape(path.name) for path in folders.values())) or "no folders"
        raise DataError(
            f"{escape(root)}: {' and '.join(missing)} missing, found {shortened(found)};"
            " expected the folders trainA, trainB and, if you have them, testA, testB"
        )
    return PerDomain.of(lambda domain: (folders[f"train{domain}"], folders.get(f"test{domain}")))


def default_names(a: Path, b: Path) -> PerDomain[str]:
    """What to call the domains: the folders' names, with those above as far as it takes to tell them apart.

    `x/sunny/images` and `x/rainy/images` become "sunny-images" and "rainy-images". They consist of letters and digits
    of any script, "_", "." and "-", and differ by more than case. Raises `DataError` when no such names can be found.
    """
    # Lexically: a link called "sunny" is what the user calls it, whatever it points to.
    paths = PerDomain(a, b).map(lambda path: Path(os.path.abspath(path)))  # noqa: PTH100
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = PerDomain(*(_as_name(path.parts[1:][-depth:]) for path in paths))
        if names.a and names.b and names.a.casefold() != names.b.casefold():
            return names
    raise DataError(
        f"{escape(a)} and {escape(b)}: no two different names follow from these folders;"
        " set data.name_a and data.name_b"
    )


def digest(names: Iterable[str]) -> str:
    """16 hexadecimal digits that stand for these names in this order."""
    state = blake2b(digest_size=8)
    for name in names:
        state.update(_bytes(name) + b"\0")  # no file's name holds a zero
    return state.hexdigest()


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")  # undecodable bytes of a name are lone surrogates


def _fraction(name: str) -> float:
    return int.from_bytes(blake2b(_bytes(name), digest_size=8).digest(), "big") / 2**64


def _as_name(parts: Sequence[str]) -> str:
    text = "-".join(parts)
    return "".join(c if c.isalnum() or c in "_.-" else "-" for c in text).strip(".-")

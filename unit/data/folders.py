"""A folder of images as a source: its list of names, what is held out of it, and what it is called."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from heapq import nsmallest
from pathlib import Path

from PIL import Image

from unit.domains import Domain, PerDomain
from unit.errors import DataError
from unit.images import MAX_PIXELS, SUFFIXES, printable, read_image


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

    def image(self, index: int) -> Image.Image:
        """Image `index` as RGB; raises `ImageError` as `read_image` does."""
        return read_image(self.root / self.names[index], self.max_pixels)


def list_images(folder: Path) -> list[str]:
    """Relative paths, "/" between their parts, of all images below `folder`, in the order of their code points.

    An image is what ends in one of `SUFFIXES`, in any case; nothing is opened. Names with a leading dot and `__MACOSX`
    are skipped, links followed. Raises `DataError` when the folder is missing, no folder, can't be read, or has no
    image.
    """
    _must_be_folder(folder)
    names: list[str] = []
    others: Counter[str] = Counter()
    for name in _files(folder):
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path a name takes minutes for a million
        if suffix in SUFFIXES:
            names.append(name)
        else:
            others[suffix] += 1
    if not names:
        raise DataError(_no_images(folder, others))
    names.sort()
    return names


def held_out(
    names: Sequence[str], share: float = 0.05, at_least: int = 1, at_most: int = 200
) -> tuple[list[str], list[str]]:
    """Split names, all different, into (training, test), each in the order given.

    A name is held out when its hash, read as a fraction, is below `share`: that says nothing about its neighbours, so
    files can come and go. Where these are too few or too many, the `at_least` or `at_most` smallest hashes are taken.
    So a file added later never moves another from training to test (at most one leaves the test, at a limit), and two
    folders with the same names hold out the same. The number is `share` of the names on average, not exactly.

    One name is left to training at least; a single name is in both, so that one picture can be trained on.
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
    _must_be_folder(root)
    with _listing(root):
        # Of trainA and TrainA side by side, the last in code-point order: trainA.
        folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    missing = [f"train{domain.upper()}" for domain in Domain if f"train{domain}" not in folders]
    if missing:
        found = ", ".join(sorted(printable(path.name) for path in folders.values())) or "no folders"
        raise DataError(
            f"{printable(root)}: {' and '.join(missing)} missing, found {_cut(found)};"
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
        f"{printable(a)} and {printable(b)}: no two different names follow from these folders;"
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


def _files(folder: Path) -> Iterator[str]:
    """All files below, relative, in no particular order; no `stat` for a file that is no link."""
    # (folder, how its files' names begin, identities of the folders on the way: a link back to one is not followed)
    pending: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(str(folder), "", frozenset())]
    while pending:
        path, prefix, above = pending.pop()
        with _listing(path):
            status = os.stat(path)  # noqa: PTH116 - of the entry, st_ino would be 0 on Windows
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                continue
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    if _is_folder(entry):
                        pending.append((entry.path, f"{prefix}{entry.name}/", above | {identity}))
                    else:
                        yield prefix + entry.name


@contextmanager
def _listing(folder: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise DataError(f"{printable(folder)}: can't be listed ({why}); grant access to it or leave it out") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _must_be_folder(folder: Path) -> None:
    with _listing(folder):
        if folder.is_dir():
            return
        if folder.exists():
            raise DataError(f"{printable(folder)}: is a file, not a folder; give the folder that holds the images")
        raise DataError(f"{printable(folder)}: no such folder{_suggestion(folder)}")


def _suggestion(folder: Path) -> str:
    """A hint at the first missing part of the path, e.g. "; did you mean data/sunny?"."""
    missing = folder
    while missing.parent != missing and not missing.parent.exists():
        missing = missing.parent
    try:
        siblings = {path.name.lower(): path for path in missing.parent.iterdir() if path.is_dir()}
    except OSError:
        siblings = {}
    close = difflib.get_close_matches(missing.name.lower(), siblings, n=1)
    if close:
        return f"; did you mean {printable(siblings[close[0]])}?"
    return "; check the path" if missing == folder else f"; {printable(missing)} is missing already"


def _no_images(folder: Path, others: Counter[str]) -> str:
    if not others:
        return f"{printable(folder)}: no files in this folder (hidden ones don't count); put images there"
    seen = ", ".join(printable(suffix) or "no ending" for suffix, _ in others.most_common(5))
    return (
        f"{printable(folder)}: no images among {others.total()} files (seen: {_cut(seen)});"
        f" read are .jpg, .png, .webp, .tif and {len(SUFFIXES) - 4} more endings"
    )


def _cut(text: str, length: int = 200) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"

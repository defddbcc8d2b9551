"""Listing the images below a folder."""

from __future__ import annotations

import difflib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from heapq import heappop, heappush
from pathlib import Path
from typing import TypeAlias

from unit.errors import DataError, escape
from unit.images import SUFFIXES, UNSUPPORTED_SUFFIXES, has_image_content

log = logging.getLogger(__name__)

UNSUPPORTED_ADVICE = "convert them to JPEG or PNG, and give JPEG and PNG files their suffix"
_HEIC_HINT = (
    " (HEIC: heif-convert x.heic x.jpg; on a Mac: sips -s format jpeg x.heic --out x.jpg; translating reads it after"
    " pip install pillow-heif)"
)
_MAX_OPENED = 1000

Origin: TypeAlias = tuple[str, bool]
"""The real path of a folder that images are read from, and whether everything below it is."""


def require_images(folder: Path) -> None:
    """Raise what `list_images` would raise, but look no further than the first image."""
    require_folder(folder)
    if not any(Path(name).suffix.lower() in SUFFIXES for name in files_below(folder)):
        list_images(folder)


def list_images(folder: Path, links: set[Origin] | None = None, suffixes: frozenset[str] = SUFFIXES) -> list[str]:
    """List the relative paths ("/" between their parts) of all images below `folder`, sorted by code point.

    An image is a file with one of `suffixes`, in any case. Names with a leading dot and `__MACOSX` are skipped, links
    followed; where they lead is added to `links`. Warns of files that only look like images, as `classify_files` finds
    them.

    Raises:
        DataError: the folder is missing, not a folder, can't be read, or has no image.
    """
    require_folder(folder)
    names, unsupported, other_suffixes = classify_files(folder, links, suffixes)
    if not names:
        raise DataError(_no_images(folder, other_suffixes))
    warn_of_unsupported(folder, unsupported)
    return names


def classify_files(
    folder: Path, links: set[Origin] | None = None, suffixes: frozenset[str] = SUFFIXES
) -> tuple[list[str], list[str], Counter[str]]:
    """Return the sorted names of all images below, of unsupported images and videos, and the suffixes of non-images.

    What is unsupported is known by its suffix, and, of the first 1,000 files with other suffixes, by the content.
    """
    names: list[str] = []
    unsupported: list[str] = []
    other_suffixes: Counter[str] = Counter()
    for name in files_below(folder, links):
        suffix = suffix_of(name)
        if suffix in suffixes:
            names.append(name)
            continue
        unknown = suffix not in UNSUPPORTED_SUFFIXES
        if not unknown or (other_suffixes.total() < _MAX_OPENED and has_image_content(folder / name)):
            unsupported.append(name)
        other_suffixes[suffix] += 1
    return sorted(names), sorted(unsupported), other_suffixes


def suffix_of(name: str) -> str:
    """Return a name's suffix in lower case."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - pathlib takes minutes for a million names


def warn_of_unsupported(place: str | Path, names: Sequence[str]) -> None:
    """Log, in one line, how many files of a folder or shard look like images but are not read, and the first names."""
    if names:
        more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
        listed = shorten(", ".join(map(escape, names[:3])))
        files = f"{len(names):,} image or video file{'s' * (len(names) > 1)}"
        hint = _HEIC_HINT if any(suffix_of(name).startswith((".hei", ".hif")) for name in names) else ""
        log.warning("%s: %s not read: %s%s; %s%s", place, files, listed, more, UNSUPPORTED_ADVICE, hint)


def files_below(folder: Path, links: set[Origin] | None = None) -> Iterator[str]:
    """Yield the relative paths of all files below, in no particular order, except hidden ones and `__MACOSX`.

    Links are followed, but each real folder is visited once, if it can be without a link, else by the first link. Where
    they lead is added to `links`.

    Raises:
        DataError: a folder can't be read.
    """
    pending = [(False, "", str(folder))]  # a heap: is it a link, the prefix of its files' names, path
    visited: set[tuple[int, int]] = set()
    real_path = cache(os.path.realpath)
    while pending:
        _, prefix, path = heappop(pending)
        with listing_errors(path):
            status = os.stat(path)  # noqa: PTH116 - an entry's st_ino is 0 on Windows
            identity = (status.st_dev, status.st_ino)
            if identity in visited:
                continue
            visited.add(identity)
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    is_folder = _is_folder(entry)
                    if links is not None and entry.is_symlink():
                        target = entry.path if is_folder else os.path.dirname(_follow(entry.path))  # noqa: PTH120
                        links.add((real_path(target), is_folder))
                    if is_folder:
                        heappush(pending, (entry.is_symlink(), f"{prefix}{entry.name}/", entry.path))
                    else:
                        yield prefix + entry.name


@contextmanager
def listing_errors(folder: str | Path) -> Iterator[None]:
    """Turn an `OSError` raised while `folder` is listed into a `DataError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{escape(folder)}: can't be listed ({reason}); grant access to it or leave it out") from error


def _follow(link: str) -> str:
    """Resolve the last part of a path alone, which takes two system calls where `realpath` takes ten."""
    for _ in range(40):
        try:
            link = os.path.join(os.path.dirname(link), os.readlink(link))  # noqa: PTH115, PTH118, PTH120
        except OSError:  # no further link
            break
    return link


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def require_folder(folder: Path) -> None:
    """Raise `DataError`, with a hint at the right folder, if there is no such folder."""
    with listing_errors(folder):
        if folder.is_dir():
            return
        if folder.exists():
            raise DataError(f"{escape(folder)}: is a file, not a folder; give the folder that holds the images")
        raise DataError(f"{escape(folder)}: no such folder{_suggestion(folder)}")


def _suggestion(folder: Path) -> str:
    """Return a hint at the first missing part of the path, e.g. "; did you mean data/sunny?"."""
    missing = folder
    while missing.parent != missing and not missing.parent.exists():
        missing = missing.parent
    try:
        siblings = {path.name.lower(): path for path in missing.parent.iterdir() if path.is_dir()}
    except OSError:
        siblings = {}
    close = difflib.get_close_matches(missing.name.lower(), siblings, n=1)
    if close:
        return f"; did you mean {escape(siblings[close[0]])}?"
    return "; check the path" if missing == folder else f"; {escape(missing)} is missing too"


def _no_images(folder: Path, other_suffixes: Counter[str]) -> str:
    if not other_suffixes:
        return f"{escape(folder)}: no files in this folder (hidden ones don't count); put images there"
    most_common = ", ".join(escape(suffix) or "no suffix" for suffix, _ in other_suffixes.most_common(5))
    hint = _HEIC_HINT if any(suffix.startswith((".hei", ".hif")) for suffix in other_suffixes) else ""
    return (
        f"{escape(folder)}: no images among {other_suffixes.total()} files (suffixes: {shorten(most_common)});"
        f" supported are .jpg, .png, .webp, .tif and {len(SUFFIXES) - 4} more{hint}"
    )


def shorten(text: str, length: int = 200) -> str:
    """Cut a text after `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"

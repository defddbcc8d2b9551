"""Listing the images below a folder."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unit.errors import DataError, escape
from unit.images import SUFFIXES


def require_images(folder: Path) -> None:
    """Raise what `list_images` would raise, but look no further than the first image."""
    require_folder(folder)
    if not any(Path(name).suffix.lower() in SUFFIXES for name in files_below(folder)):
        list_images(folder)


def list_images(folder: Path) -> list[str]:
    """List the relative paths ("/" between their parts) of all images below `folder`, sorted by code point.

    An image is a file with one of `SUFFIXES`, in any case; nothing is opened. Names with a leading dot and `__MACOSX`
    are skipped, links followed.

    Raises:
        DataError: the folder is missing, not a folder, can't be read, or has no image.
    """
    require_folder(folder)
    names: list[str] = []
    other_suffixes: Counter[str] = Counter()
    for name in files_below(folder):
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - pathlib takes minutes for a million names
        if suffix in SUFFIXES:
            names.append(name)
        else:
            other_suffixes[suffix] += 1
    if not names:
        raise DataError(_no_images(folder, other_suffixes))
    names.sort()
    return names


def files_below(folder: Path) -> Iterator[str]:
    """Yield the relative paths of all files below, in no particular order, except hidden ones and `__MACOSX`.

    Links are followed, but not in cycles; only links cost a `stat`.

    Raises:
        DataError: a folder can't be read.
    """
    # (folder, prefix of its files' names, identities of its ancestors: a link back to one is not followed)
    pending: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(str(folder), "", frozenset())]
    while pending:
        path, prefix, ancestors = pending.pop()
        with listing_errors(path):
            status = os.stat(path)  # noqa: PTH116 - an entry's st_ino is 0 on Windows
            identity = (status.st_dev, status.st_ino)
            if identity in ancestors:
                continue
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    if _is_folder(entry):
                        pending.append((entry.path, f"{prefix}{entry.name}/", ancestors | {identity}))
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
    return (
        f"{escape(folder)}: no images among {other_suffixes.total()} files (suffixes: {shorten(most_common)});"
        f" supported are .jpg, .png, .webp, .tif and {len(SUFFIXES) - 4} more"
    )


def shorten(text: str, length: int = 200) -> str:
    """Cut a text after `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"

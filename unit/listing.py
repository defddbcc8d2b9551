"""Which images lie below a folder."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unit.errors import DataError, escape
from unit.images import SUFFIXES


def list_images(folder: Path) -> list[str]:
    """Relative paths, "/" between their parts, of all images below `folder`, in the order of their code points.

    An image is what ends in one of `SUFFIXES`, in any case; nothing is opened. Names with a leading dot and `__MACOSX`
    are skipped, links followed. Raises `DataError` when the folder is missing, no folder, can't be read, or has no
    image.
    """
    require_folder(folder)
    names: list[str] = []
    others: Counter[str] = Counter()
    for name in files_below(folder):
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path a name takes minutes for a million
        if suffix in SUFFIXES:
            names.append(name)
        else:
            others[suffix] += 1
    if not names:
        raise DataError(_no_images(folder, others))
    names.sort()
    return names


def files_below(folder: Path) -> Iterator[str]:
    """All files below, relative, in no particular order, but those with a leading dot and `__MACOSX`.

    Links are followed, but not in circles; no `stat` for a file that is no link. Raises `DataError` for a folder that
    can't be read.
    """
    # (folder, how its files' names begin, identities of the folders on the way: a link back to one is not followed)
    pending: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(str(folder), "", frozenset())]
    while pending:
        path, prefix, above = pending.pop()
        with listing_errors(path):
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
def listing_errors(folder: str | Path) -> Iterator[None]:
    """Turn what the system says while `folder` is listed into a `DataError`."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise DataError(f"{escape(folder)}: can't be listed ({why}); grant access to it or leave it out") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def require_folder(folder: Path) -> None:
    """Raise `DataError`, with a hint at the right one, where there is no such folder."""
    with listing_errors(folder):
        if folder.is_dir():
            return
        if folder.exists():
            raise DataError(f"{escape(folder)}: is a file, not a folder; give the folder that holds the images")
        raise DataError(f"{escape(folder)}: no such folder{_suggestion(folder)}")


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
        return f"; did you mean {escape(siblings[close[0]])}?"
    return "; check the path" if missing == folder else f"; {escape(missing)} is missing already"


def _no_images(folder: Path, others: Counter[str]) -> str:
    if not others:
        return f"{escape(folder)}: no files in this folder (hidden ones don't count); put images there"
    seen = ", ".join(escape(suffix) or "no ending" for suffix, _ in others.most_common(5))
    return (
        f"{escape(folder)}: no images among {others.total()} files (seen: {shortened(seen)});"
        f" read are .jpg, .png, .webp, .tif and {len(SUFFIXES) - 4} more endings"
    )


def shortened(text: str, length: int = 200) -> str:
    """The text, its end cut off where it is longer than `length`."""
    return text if len(text) <= length else text[: length - 1] + "…"

"""Writing generated images as folders of files."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import permutations
from pathlib import Path

from PIL import Image

from unit.errors import DataError, escape


def require_empty(folders: Iterable[Path]) -> None:
    """Check all folders before any is written, since no folder is better than half of them.

    Raises:
        DataError: a folder is not empty, can't be read, or is, through links, the same as another or in it.
    """
    real = {folder: Path(os.path.realpath(folder)) for folder in folders}
    for folder, other in permutations(real, 2):
        if real[folder].is_relative_to(real[other]):
            raise DataError(f"{escape(folder)}: is or lies in {escape(other)}, through a link; choose another folder")
    for folder in real:
        try:
            if folder.is_dir() and any(folder.iterdir()):
                raise DataError(f"{escape(folder)}: is not empty; empty it or choose another folder")
        except OSError as error:
            raise DataError(f"{escape(folder)}: can't be read ({error.strerror}); choose another folder") from error


def write_images(folders: Mapping[Path, Iterable[tuple[str, Image.Image]]]) -> None:
    """Write each folder's images (file name, image), in the format of the file name's suffix.

    The folders appear at the end, whole, so that neither a kill nor a second process leaves other images in them.

    Raises:
        DataError: a folder can't be written.
    """
    with ExitStack() as stack:
        hidden: dict[Path, Path] = {}
        for folder, images in folders.items():
            with _writing_errors(folder):
                real = Path(os.path.realpath(folder))
                # No process number: two containers may have the same one.
                hidden[folder] = real.with_name(f".{real.name}-{secrets.token_hex(4)}.partial")
                hidden[folder].mkdir(parents=True)
                stack.callback(shutil.rmtree, hidden[folder], ignore_errors=True)
                for name, image in images:
                    image.save(hidden[folder] / name)
        for folder in folders:
            with _writing_errors(folder):
                real = Path(os.path.realpath(folder))
                with suppress(FileNotFoundError):
                    real.rmdir()  # Windows renames over no folder, not even an empty one
                hidden[folder].rename(real)


@contextmanager
def _writing_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{escape(folder)}: can't be written ({reason}); choose another folder") from error

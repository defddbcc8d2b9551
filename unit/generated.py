"""Images that the program makes, as folders of files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from unit.errors import DataError, escape


def require_empty(folders: Iterable[Path]) -> None:
    """To be asked of all folders before any is written: better no folder than half of them.

    Raises:
        DataError: one of the folders can't be looked into, or there is something in it.
    """
    for folder in folders:
        try:
            if folder.is_dir() and next(folder.iterdir(), None) is not None:
                raise DataError(f"{escape(folder)}: is not empty; empty it or choose another folder")
        except OSError as error:
            raise DataError(f"{escape(folder)}: can't be read ({error.strerror}); choose another folder") from error


def write_images(folders: Mapping[Path, Iterable[tuple[str, Image.Image]]]) -> None:
    """Write the images (name, image) of each folder, in the format of the name's ending, over what is there.

    Raises:
        DataError: a folder can't be written.
    """
    for folder, images in folders.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, image in images:
                image.save(folder / name)
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"{escape(folder)}: can't be written ({reason}); choose another folder") from error

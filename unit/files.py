"""Files that exist whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unit.errors import UserError


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one stroke: written beside it, synced to the disk, then renamed.

    Raises:
        OSError: it can't be written; what was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder can't be opened, nor need it be
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system refuses while something is written to `path` into one line.

    Raises:
        UserError: naming the path, the reason and the space that is left.
    """
    try:
        yield
    except OSError as error:
        free = ""
        with suppress(OSError):
            there = next(folder for folder in (path, *path.parents) if folder.is_dir())
            free = f"; {shutil.disk_usage(there).free / 1e6:.0f} MB are free there"
        raise UserError(f"{path}: can't be written ({error.strerror or error}){free}") from error

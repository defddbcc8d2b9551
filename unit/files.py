"""Files that exist whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unit.errors import UserError, printable


def write_whole(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Put `content` at `path` in one stroke: written beside it, then renamed; makes the folders it needs.

    With `sync` it is on the disk when this returns, so that also a power failure leaves the old file or the new one.

    Raises:
        OSError: it can't be written; what was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, so that no listing takes it; as short as may be, since the file's own name may be as long as a name can
    # be; the same each time, so that a killed program leaves one behind at most.
    beside = path.parent / f".{hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()}.partial"
    try:
        with beside.open("wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    if sync and os.name == "posix":  # elsewhere a folder can't be opened, nor need it be
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
        raise UserError(f"{printable(path)}: can't be written ({error.strerror or error}){free}") from error
